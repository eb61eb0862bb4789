"""The short form of the run over random site files; ``python -m tests.soak.sitefiles`` is the long one."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from appliance.config import read_document
from tests.soak import sitefiles

SHORT = 8
"""Files that are started; a start takes a third of a second of CPU."""
CHECKED = 150


def test_what_the_check_calls_fine_works() -> None:
    """H8, F5: a file that is fine starts a server that answers, before and after a reload."""
    tally = sitefiles.run(SHORT, "suite")
    assert tally.failures == []
    assert tally.started + tally.refused == SHORT
    assert tally.started > SHORT // 4


def test_every_other_file_is_refused_in_words(tmp_path: Path) -> None:
    tally = sitefiles.Tally()
    sitefiles.prepare(tmp_path)
    for number in range(CHECKED):
        sitefiles.one("checked", number, tmp_path, tally, start=False)
    assert tally.failures == []
    assert CHECKED // 10 < tally.refused < CHECKED


@pytest.mark.parametrize("form", ["yaml", "json", "toml"])
def test_the_three_forms_say_the_same(form: str, tmp_path: Path) -> None:
    """The grammar's own writer of TOML loses nothing but what TOML has not."""
    sitefiles.prepare(tmp_path)
    place = sitefiles.Place(tmp_path / "x", 1)
    tree = sitefiles.site(random.Random("good-4"), place)
    path = tmp_path / f"site.{form}"
    path.write_text(sitefiles.WRITERS[form](tree))
    assert read_document(path) == _without_null(tree, keep=form != "toml")


def _without_null(value: object, *, keep: bool) -> object:
    if isinstance(value, dict):
        items = value.items()
        return {k: _without_null(v, keep=keep) for k, v in items if keep or v is not None}
    if isinstance(value, list):
        return [_without_null(each, keep=keep) for each in value if keep or each is not None]
    return value
