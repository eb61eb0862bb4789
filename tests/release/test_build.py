"""Our wheel, built for real by the locked backend."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
PYTHON = ROOT / ".venv" / "release" / "bin" / "python"
BUILD = """
import sys
from pathlib import Path
from release import tree, wheel
print(wheel.build(Path(sys.argv[1]), "9.8.7", Path(sys.argv[2]), tree.moment(Path(sys.argv[1]))))
"""

pytestmark = pytest.mark.system


@pytest.fixture(scope="module")
def python() -> Path:
    done = subprocess.run(
        ["make", ".venv/release.stamp"], cwd=ROOT, capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr
    return PYTHON


def build(python: Path, source: Path, out: Path, umask: int) -> bytes:
    done = subprocess.run(
        [python, "-c", BUILD, source, out],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
        umask=umask,
    )
    assert done.returncode == 0, done.stderr
    path = Path(done.stdout.strip())
    assert path.name == "headwater-9.8.7-py3-none-any.whl"
    return path.read_bytes()


def test_the_same_tree_gives_the_same_wheel_and_stays_clean(python: Path, tmp_path: Path) -> None:
    from release import tree

    first, second = tmp_path / "first", tmp_path / "second"
    for copy, umask in ((first, 0o022), (second, 0o077)):
        before = os.umask(umask)
        try:
            tree.copy(ROOT, copy)
        finally:
            os.umask(before)
    (second / "appliance" / "errors.py").chmod(0o700)
    (second / "appliance" / "errors.py").touch()
    one = build(python, first, tmp_path / "1", 0o022)
    two = build(python, second, tmp_path / "2", 0o077)
    assert one == two
    names = {path.name for path in first.iterdir()}
    assert names == set(tree.WHEEL_PARTS)
