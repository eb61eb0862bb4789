"""Every fuzz target, with a small budget and fixed seeds."""

from __future__ import annotations

import importlib
import random
from pathlib import Path

import pytest

CASES = 300
TARGETS = sorted(path.stem for path in Path(__file__).parent.glob("fuzz_*.py"))


@pytest.mark.parametrize("target", TARGETS)
def test_target_survives_its_small_budget(target: str) -> None:
    case = importlib.import_module(f"tests.fuzz.{target}").case
    for seed in range(CASES):
        try:
            case(random.Random(seed))
        except Exception as error:
            raise AssertionError(f"{target} broke with --seed {seed}") from error
