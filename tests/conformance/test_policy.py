"""Recorded answers of the hosted service, asked of our policy engine, where the recordings are.

Two of the 518 open recordings answer no question that can be put: in one, nodes were asked before
and after a route was approved; in the other the policy names an address that was nobody's when it
was recorded. The evidence is in docs/decisions/0010.
"""

from __future__ import annotations

import importlib.util
import os
import sys
from collections import Counter
from pathlib import Path
from typing import Any

import pytest

from tests.conformance.runner import answer, read

UNANSWERABLE = 2
LEAST_STRICT = 0.95


def recordings() -> Path | None:
    """Find the folder of recordings: named by the environment, or beside the checkout."""
    named = os.environ.get("HEADWATER_RECORDINGS")
    places = [Path(named)] if named else []
    places += [parent / "shared" / "conformance" for parent in Path(__file__).parents]
    return next((place for place in places if (place / "compare.py").is_file()), None)


@pytest.fixture(scope="module")
def place() -> Path:
    found = recordings()
    if found is None:
        pytest.skip("NO RECORDINGS: set HEADWATER_RECORDINGS to their folder to compare with them")
    return found


@pytest.fixture(scope="module")
def comparator(place: Path) -> Any:
    spec = importlib.util.spec_from_file_location("compare", place / "compare.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    # Its dataclasses look their module up by name.
    sys.modules["compare"] = module
    spec.loader.exec_module(module)
    return module


def test_every_recorded_case_is_right(place: Path, comparator: Any) -> None:
    wrong: dict[str, list[str]] = {}
    rules: Counter[str] = Counter()
    count = 0
    for path in sorted(place.glob("*.jsonl.gz")):
        for case in read(path):
            if "policy" not in case:
                continue
            count += 1
            for aspect, node, verdict in comparator.compare_case(case, answer(case)):
                if not verdict.semantic:
                    wrong.setdefault(case["id"], []).append(f"{aspect} {node} {verdict}")
                if aspect == "rules" and not verdict.trivial:
                    rules["all"] += 1
                    rules["strict"] += verdict.strict
    assert count >= 500
    assert len(wrong) <= UNANSWERABLE, wrong
    assert rules["strict"] >= LEAST_STRICT * rules["all"], rules
