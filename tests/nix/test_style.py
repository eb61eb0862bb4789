"""Every Nix file parses, says nothing that it does not use, and looks like the others."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path

import pytest

from tests.nix.evaluation import ROOT, needs_nix

MAX_COLUMNS = 120
FOLDERS = ("nix", "tests/nix", "vm-tests")
FILES = sorted(
    [ROOT / "flake.nix", *(file for each in FOLDERS for file in (ROOT / each).rglob("*.nix"))]
)

NAME = r"[A-Za-z_][\w'-]*"


def named(text: str) -> set[str]:
    """Name what a file takes as arguments, inherits from other sets, or binds in a let."""
    names: set[str] = set()
    for arguments in re.findall(r"\{([^{}=;]*?(?:\?[^{};]*?)?)\}\s*:", text):
        names.update(re.findall(rf"(?:^|,)\s*({NAME})", arguments))
    for inherited in re.findall(r"^  inherit \([^)]*\)([^;]*);", _before_in(text), re.MULTILINE):
        names.update(re.findall(NAME, inherited))
    return names


def _before_in(text: str) -> str:
    """Give the bindings of the file's own let, where there is one."""
    found = re.search(r"^let\n(.*?)^in$", text, re.DOTALL | re.MULTILINE)
    return found[1] if found else ""


@needs_nix
@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_parses(path: Path) -> None:
    done = subprocess.run(
        ["nix-instantiate", "--parse", str(path)], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_names_nothing_that_it_does_not_use(path: Path) -> None:
    text = re.sub(r"(^|\s)#.*", "", path.read_text())
    unused = [
        name
        for name in named(text)
        if len(re.findall(rf"(?<![\w'-]){re.escape(name)}(?![\w'-])", text)) < 2
    ]
    assert unused == []


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_it_is_laid_out_like_the_others(path: Path) -> None:
    text = path.read_text()
    assert text.endswith("\n")
    for number, line in enumerate(text.splitlines(), 1):
        where = f"{path.name}:{number}"
        assert line == line.rstrip(), f"{where}: blanks at the end"
        assert "\t" not in line, f"{where}: a tab"
        assert (len(line) - len(line.lstrip())) % 2 == 0 or "''" in text, f"{where}: odd indent"
        # A sentence for people stays on one line, and what only tests read need not be pretty.
        sentences = re.findall(r'"(?:[^"\\]|\\.){60,}"', line)
        if not {"tests", "vm-tests"} & set(path.parts) and not sentences:
            assert len(line) <= MAX_COLUMNS, f"{where}: {len(line)} columns"
