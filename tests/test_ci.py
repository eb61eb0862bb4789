"""The last line of ``.ci/run``, and what shell scripts of ours look like to shellcheck."""

from __future__ import annotations

import re
import shutil
import subprocess
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
SCRIPTS = (ROOT / ".ci" / "run", ROOT / "deploy" / "install.sh")


def count(log: str) -> str:
    found = re.search(
        r"^count_results\(\) \{\n.*?^\}\n", SCRIPTS[0].read_text(), re.MULTILINE | re.DOTALL
    )
    assert found
    command = ["bash", "-c", f"{found[0]}\ncount_results"]
    return subprocess.run(command, input=log, capture_output=True, text=True, check=True).stdout


def test_results_of_tests_and_stories_are_added_up() -> None:
    log = """\
SKIPPED [1] tests/x.py:3: no Go toolchain
FAILED tests/y.py::test_three - assert 1 passed, 2
5 failed, 480 passed, 4 skipped, 1 error in 10.26s
487 passed, 1 xfailed in 100.17s (0:01:40)
69 passed, 2 deselected, 1 warning in 3.01s
vm: passed     31.5 s  two_nodes
vm: 16 passed, 1 failed, 2 skipped, 1065 s altogether
"""
    assert count(log) == "1053 passed, 7 failed, 6 skipped\n"


def test_no_result_counts_as_none() -> None:
    assert count("make: *** [Makefile:1: test] Error 2\n") == "0 passed, 0 failed, 0 skipped\n"


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda path: str(path.relative_to(ROOT)))
def test_shellcheck_finds_nothing(script: Path) -> None:
    shellcheck = shutil.which("shellcheck")
    if shellcheck is None:
        pytest.skip("shellcheck is not installed (Debian: shellcheck)")
    done = subprocess.run([shellcheck, script], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout
