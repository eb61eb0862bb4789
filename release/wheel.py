"""Our own wheel, by the locked build backend: the same bytes from the same tree.

Not for other people's wheels (``wheelhouse``).
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from release import tree, version
from release.tree import ReleaseError


def build(source: Path, wanted: str, out: Path, moment: int) -> Path:
    """Build the wheel of a tree as version ``wanted`` into a folder.

    The tree is copied first, so a build leaves nothing in it. The backend is the one of
    requirements/build.txt, which the make target installs.
    """
    out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix="headwater-release-") as scratch:
        copy, made = Path(scratch, "tree"), Path(scratch, "wheel")
        tree.copy(source, copy)
        version.write(copy, wanted)
        _run_backend(copy, made, moment)
        wheels = list(made.glob("*.whl"))
        if len(wheels) != 1:
            raise ReleaseError(f"the build backend made {len(wheels)} wheels, not one")
        # Not a rename: /tmp is often a file system of its own.
        return Path(shutil.copy(wheels[0], out))


def _run_backend(copy: Path, made: Path, moment: int) -> None:
    command = [sys.executable, "-m", "pip", "--disable-pip-version-check", "--quiet", "wheel"]
    command += ["--no-build-isolation", "--no-deps", "--no-index", "--wheel-dir", str(made), "."]
    done = subprocess.run(  # noqa: S603  # a fixed command
        command,
        cwd=copy,
        env={**os.environ, "SOURCE_DATE_EPOCH": str(moment)},
        capture_output=True,
        text=True,
        check=False,
        umask=0o022,  # permissions of files are in the wheel
    )
    if done.returncode:
        raise ReleaseError(f"the wheel could not be built:\n{done.stdout}{done.stderr}")
