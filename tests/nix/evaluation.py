"""Evaluates Nix expressions with ``nix-instantiate``: no daemon, no store, nothing is built."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

import pytest

HERE = Path(__file__).parent
ROOT = HERE.parents[1]
EVALUATION_S = 60.0
"""An evaluation takes a tenth of a second; a real NixOS tree one."""

NIXPKGS = os.environ.get("HEADWATER_NIXPKGS", "")
"""A checkout of nixpkgs, for tests on its own library and module tree."""

needs_nix = pytest.mark.skipif(
    shutil.which("nix-instantiate") is None,
    reason="nix-instantiate is missing (Debian: apt install nix-bin): the NixOS module is not tested",
)
LIBRARIES = ("", *([NIXPKGS] if NIXPKGS else []))


class EvaluationError(Exception):
    """Nix refused; the text is what people see."""


@dataclass(frozen=True)
class Box:
    """What a definition evaluates to; ``value`` has the parts that box.nix names."""

    value: dict[str, Any]

    def __getitem__(self, name: str) -> Any:
        return self.value[name]


def box(
    definition: object = None,
    *,
    node: object = None,
    more: Path | None = None,
    nixpkgs: str = "",
    **rest: str,
) -> Box:
    """Evaluate the modules. Raises EvaluationError, also for assertions that fail."""
    found = unchecked(definition, node=node, more=more, nixpkgs=nixpkgs, **rest)
    if found["failed"]:
        raise EvaluationError("Failed assertions:\n" + "\n".join(found["failed"]))
    return found


def unchecked(
    definition: object = None,
    *,
    node: object = None,
    more: Path | None = None,
    nixpkgs: str = "",
    **rest: str,
) -> Box:
    """Evaluate the modules and leave failed assertions as they are."""
    arguments = {"definition": json.dumps(definition), "node": json.dumps(node), **rest}
    if more is not None:
        arguments["more"] = str(more)
    if nixpkgs:
        arguments["nixpkgs"] = nixpkgs
    return Box(cast("dict[str, Any]", evaluate(HERE / "box.nix", **arguments)))


WHOLE_S = 600.0
"""A host and its images with every package, on a busy machine."""


def evaluate(file: Path, **arguments: str) -> object:
    """Evaluate a file to a value. Raises EvaluationError."""
    return _evaluate(file, EVALUATION_S, arguments)


def evaluate_whole(file: Path, **arguments: str) -> object:
    """Evaluate what takes a checkout with all its packages. Raises EvaluationError."""
    return _evaluate(file, WHOLE_S, arguments)


def _evaluate(file: Path, limit_s: float, arguments: dict[str, str]) -> object:
    command = ["nix-instantiate", "--store", "dummy://", "--eval", "--strict", "--json", str(file)]
    for name, text in arguments.items():
        command += ["--argstr", name, text]
    done = subprocess.run(command, capture_output=True, text=True, timeout=limit_s, check=False)
    if done.returncode:
        raise EvaluationError(done.stderr)
    return json.loads(done.stdout)
