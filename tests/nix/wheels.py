"""Writes nix/wheels.json, by which Nix may fetch the wheels of a release: ``python -m tests.nix.wheels``.

Needs the tools of a release (`make release` installs them), a package index, and nix.
"""

from __future__ import annotations

import hashlib
import json
import subprocess
import sys

from release.targets import MACHINES, PYTHONS, Target
from release.wheelhouse import collect
from tests.nix.evaluation import ROOT

PLACE = ROOT / "nix" / "wheels.json"
LOCKED = ROOT / "requirements" / "run.txt"
CACHE = ROOT / ".cache" / "wheels"


def requirements_digest() -> str:
    """Give the digest of the locked requirements."""
    return hashlib.sha256(LOCKED.read_bytes()).hexdigest()


def main() -> None:
    """Collect the wheels of every target and write the hash of them all."""
    for python in PYTHONS:
        for machine in MACHINES:
            collect(Target(python, machine), LOCKED, CACHE)
    print(f"hashing {CACHE}", file=sys.stderr)
    command = ["nix", "--extra-experimental-features", "nix-command", "hash", "path", str(CACHE)]
    done = subprocess.run(command, check=True, capture_output=True, text=True)
    known = {"requirements": requirements_digest(), "hash": done.stdout.strip()}
    PLACE.write_text(json.dumps(known, indent=2) + "\n")


if __name__ == "__main__":
    main()
