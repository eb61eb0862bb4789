"""Our stock client program as a layer: one static binary on the PATH. Not for driving it."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

from driver import images
from driver.client import PROGRAM
from driver.images import Image
from driver.server import ROOT

# A cold build of the whole client on two cores.
BUILD_S = 900


def binary() -> Path:
    """Find or build the program on the newest client release. Raises NoImage."""
    script = "from tests.interop import build; print(build.node_binary(build.NEWEST))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        cwd=ROOT,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=BUILD_S,
        check=False,
    )
    if done.returncode:
        raise images.NoImage(f"the stock client cannot be built: {done.stderr[-2000:]}")
    return Path(done.stdout.strip().splitlines()[-1])


def installed(image: Image) -> Path:
    """Find or make the layer with the program."""
    program = binary()

    def put(root: Path) -> None:
        target = root / "usr/local/bin" / PROGRAM
        shutil.copy(program, target)
        target.chmod(0o755)

    return images.layer(image, "client", program.name.rpartition("-")[2], put)
