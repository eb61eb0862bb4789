from __future__ import annotations

import shutil
from datetime import date
from pathlib import Path

import pytest

from appliance import __version__
from release import version
from release.tree import ReleaseError

ROOT = Path(__file__).parents[2]


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for place in version.PLACES:
        if (ROOT / place).exists():
            (tmp_path / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(ROOT / place, tmp_path / place)
    (tmp_path / "CHANGELOG.md").write_text(version.HEAD + "\n## 0.0.1 (2026-01-01)\n\nOld.\n")
    (tmp_path / "changelog.d").mkdir()
    (tmp_path / "changelog.d" / "README.md").write_text("How to write one.\n")
    return tmp_path


def fragment(tree: Path, name: str, text: str) -> Path:
    path = tree / "changelog.d" / name
    path.write_text(text)
    return path


def test_the_version_is_the_same_in_all_its_places() -> None:
    assert version.read(ROOT) == __version__


def test_fragments_of_this_tree_have_a_kind() -> None:
    version.collect(ROOT / "changelog.d")


@pytest.mark.parametrize("number", ["1.2.3", "1.2.3rc1", "10.0.0+try", "1.2.3+try.7"])
def test_write_changes_every_place(tree: Path, number: str) -> None:
    version.write(tree, number)
    assert version.read(tree) == number
    assert f'\nversion = "{number}"\n' in (tree / "pyproject.toml").read_text()


@pytest.mark.parametrize("number", ["", "1", "1.2", "v1.2.3", "1.2.3/..", "../1.2.3", "1.2.3 "])
def test_write_refuses_what_is_no_version(tree: Path, number: str) -> None:
    before = version.read(tree)
    with pytest.raises(ReleaseError, match="is no version"):
        version.write(tree, number)
    assert version.read(tree) == before


def test_read_refuses_places_that_differ(tree: Path) -> None:
    (tree / "pyproject.toml").write_text('version = "9.9.9"\n')
    with pytest.raises(ReleaseError, match=r"pyproject\.toml 9\.9\.9.*bump"):
        version.read(tree)


def test_bump_joins_fragments_newest_release_first(tree: Path) -> None:
    gone = [
        fragment(tree, "tea.fixed.md", "Drinkers: tea is hot\nagain.\n"),
        fragment(tree, "milk.breaking.md", "Everybody: no milk.\n"),
        fragment(tree, "cake.added.md", "Eaters: cake.\n"),
    ]
    count = version.bump(tree, "2.0.0", date(2026, 12, 1), "Schema 7.")
    assert count == len(gone)
    assert not any(path.exists() for path in gone)
    assert (tree / "changelog.d" / "README.md").exists()
    assert (tree / "CHANGELOG.md").read_text() == (
        version.HEAD
        + """
## 2.0.0 (2026-12-01)

Schema 7.

### Breaking

* Everybody: no milk.

### Added

* Eaters: cake.

### Fixed

* Drinkers: tea is hot again.

## 0.0.1 (2026-01-01)

Old.
"""
    )


def test_bump_refuses_an_unknown_kind_and_changes_nothing(tree: Path) -> None:
    odd = fragment(tree, "odd.thought.md", "Hm.\n")
    with pytest.raises(ReleaseError, match="'thought' is no kind"):
        version.bump(tree, "2.0.0", date(2026, 12, 1), "")
    assert odd.exists()
    assert version.read(tree) == __version__
