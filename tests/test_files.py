"""A watched text: every way in which people and tools replace a file."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from appliance.files import FRESH_NS, Unreadable, Watch, WatchedText

MAX_BYTES = 100


@pytest.fixture
def path(tmp_path: Path) -> Path:
    path = tmp_path / "policy.hujson"
    path.write_text("one")
    return path


@pytest.fixture
def watched(path: Path) -> WatchedText:
    watched = WatchedText(path, max_bytes=MAX_BYTES, clock_ns=lambda: 0)
    assert watched.news() == "one"
    assert watched.news() is None
    return watched


def test_written_in_place(watched: WatchedText, path: Path) -> None:
    path.write_text("three")
    assert watched.news() == "three"
    assert watched.news() is None


def test_renamed_over(watched: WatchedText, path: Path) -> None:
    other = path.with_suffix(".new")
    other.write_text("two")
    status = path.stat()
    os.utime(other, ns=(status.st_atime_ns, status.st_mtime_ns))  # as rsync -a and Nix leave it
    other.rename(path)
    assert watched.news() == "two"


def test_a_link_that_is_switched(tmp_path: Path) -> None:
    for name in ("one", "two"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "policy").write_text(name)
        os.utime(tmp_path / name / "policy", ns=(1, 1))
    (tmp_path / "current").symlink_to("one")
    watched = WatchedText(tmp_path / "current" / "policy", max_bytes=MAX_BYTES)
    assert watched.news() == "one"
    (tmp_path / "next").symlink_to("two")
    (tmp_path / "next").rename(tmp_path / "current")
    assert watched.news() == "two"


def test_a_file_that_was_just_written_is_looked_at_again_though_it_looks_the_same(
    path: Path,
) -> None:
    """Another write within the same tick of the file system's clock leaves no trace."""
    now = path.stat().st_ctime_ns
    for age_ns, is_looked_at in ((FRESH_NS // 2, True), (2 * FRESH_NS, False)):
        watch = Watch(path, clock_ns=lambda age_ns=age_ns: now + age_ns)  # type: ignore[misc]  # bound early
        watch.mark()
        assert watch.has_changed() is is_looked_at


def test_touched_without_another_text_is_no_news(watched: WatchedText, path: Path) -> None:
    os.utime(path)
    assert watched.news() is None


def test_gone_and_back_with_the_same_text_is_news(watched: WatchedText, path: Path) -> None:
    path.unlink()
    for _ in range(2):
        with pytest.raises(Unreadable, match=r"policy\.hujson: there is no such file"):
            watched.news()
    path.write_text("one")
    assert watched.news() == "one"


@pytest.mark.parametrize(
    ("data", "words"),
    [
        (b"", "is empty"),
        (b" \n", "is empty"),
        (b"x" * (MAX_BYTES + 1), "larger than 100 bytes"),
        (b"ab\xff", "byte 3 is no UTF-8"),
    ],
)
def test_what_is_no_text_is_said_and_mended(
    watched: WatchedText, path: Path, data: bytes, words: str
) -> None:
    path.write_bytes(data)
    for _ in range(2):
        with pytest.raises(Unreadable, match=words):
            watched.news()
    path.write_text("one")
    assert watched.news() == "one"


def test_other_kinds_of_files_are_refused_without_waiting(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(Unreadable, match="no regular file"):
        WatchedText(tmp_path / "pipe", max_bytes=MAX_BYTES).news()
    with pytest.raises(Unreadable, match="directory"):
        WatchedText(tmp_path, max_bytes=MAX_BYTES).news()


def test_a_byte_order_mark_is_no_part_of_the_text(watched: WatchedText, path: Path) -> None:
    path.write_bytes(b"\xef\xbb\xbftwo")
    assert watched.news() == "two"


def test_a_file_of_the_largest_size_is_read(path: Path) -> None:
    path.write_text("x" * MAX_BYTES)
    assert WatchedText(path, max_bytes=MAX_BYTES).news() == "x" * MAX_BYTES
