from __future__ import annotations

import os
from pathlib import Path

import pytest
from headwater_files import Wanted, put

ME = (os.getuid(), os.getgid())


def wanted(path: Path, text: str, **more: str) -> Wanted:
    return Wanted(str(path), {"text": text, **more}, owner=ME)


def test_a_file_is_written_with_its_folders_once(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "file"
    written, differences = put([wanted(path, "one\n", mode="0640")], dry=False)
    assert written == [str(path)]
    assert path.read_text() == "one\n"
    assert path.stat().st_mode & 0o7777 == 0o640
    assert path.parent.stat().st_mode & 0o7777 == 0o755
    assert differences == [
        {
            "before": "",
            "after": "one\n",
            "before_header": str(path),
            "after_header": f"{path} (mode 0640)",
        }
    ]
    assert put([wanted(path, "one\n", mode="0640")], dry=False) == ([], [])
    assert [each.name for each in path.parent.iterdir()] == ["file"]


def test_only_what_differs_is_written(tmp_path: Path) -> None:
    right, wrong = tmp_path / "right", tmp_path / "wrong"
    put([wanted(right, "1"), wanted(wrong, "1")], dry=False)
    number = right.stat().st_ino
    assert put([wanted(right, "1"), wanted(wrong, "2")], dry=False)[0] == [str(wrong)]
    assert right.stat().st_ino == number
    assert wrong.read_text() == "2"


def test_check_mode_says_it_and_writes_nothing(tmp_path: Path) -> None:
    path = tmp_path / "new" / "file"
    written, differences = put([wanted(path, "one\n")], dry=True)
    assert written == [str(path)]
    assert differences[0]["after"] == "one\n"
    assert not path.parent.exists()


def test_wrong_permissions_alone_are_mended_and_shown(tmp_path: Path) -> None:
    path = tmp_path / "file"
    put([wanted(path, "one")], dry=False)
    path.chmod(0o666)
    _, differences = put([wanted(path, "one")], dry=False)
    assert differences[0]["before_header"].endswith("(mode 0666)")
    assert (differences[0]["before"], differences[0]["after"]) == ("(mode 0666)\n", "(mode 0644)\n")
    assert path.stat().st_mode & 0o7777 == 0o644


def test_a_link_is_replaced_and_not_followed(tmp_path: Path) -> None:
    other, path = tmp_path / "other", tmp_path / "file"
    other.write_text("precious")
    path.symlink_to(other)
    put([wanted(path, "ours")], dry=False)
    assert not path.is_symlink()
    assert path.read_text() == "ours"
    assert other.read_text() == "precious"


def test_a_folder_in_the_way_is_an_error_and_leaves_nothing_behind(tmp_path: Path) -> None:
    (tmp_path / "file").mkdir()
    with pytest.raises(OSError, match="directory"):
        put([wanted(tmp_path / "file", "one")], dry=False)
    assert [each.name for each in tmp_path.iterdir()] == ["file"]
