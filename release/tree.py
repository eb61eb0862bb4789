"""The files of the checkout, copied aside so that a build sees nothing else and changes nothing.

Not for building (``wheel``).
"""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

WHEEL_PARTS = ("appliance", "pyproject.toml", "README.md", "LICENSE")
"""All that our wheel is made from."""
SKIPPED = shutil.ignore_patterns("__pycache__", "*.pyc")
FIRST_MOMENT = 315_532_800
"""1980-01-01: zip files know no earlier time."""


class ReleaseError(Exception):
    """A release cannot be made; the text says why and what to do."""


def copy(source: Path, target: Path) -> None:
    """Copy what the wheel is made from, with the permissions that every machine would give."""
    target.mkdir(parents=True)
    for name in WHEEL_PARTS:
        place = source / name
        if place.is_dir():
            shutil.copytree(place, target / name, ignore=SKIPPED)
        elif place.is_file():
            shutil.copy(place, target / name)
        else:
            raise ReleaseError(f"{place} is missing: name a checkout with --source")
    for path in (target, *target.rglob("*")):
        path.chmod(0o755 if path.is_dir() else 0o644)


def moment(source: Path) -> int:
    """Give the time that all files of a release get: the one of the newest commit.

    A tree without history, like an unpacked archive, gets a fixed one.
    """
    git = shutil.which("git")
    if git is None:
        return FIRST_MOMENT
    done = subprocess.run(  # noqa: S603  # a fixed command
        [git, "-C", str(source), "log", "-1", "--format=%ct"],
        capture_output=True,
        text=True,
        check=False,
    )
    return int(done.stdout) if done.returncode == 0 and done.stdout.strip() else FIRST_MOMENT
