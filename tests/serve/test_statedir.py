"""The state directory tells the truth: whose it is, which keys it has, what belongs together."""

from __future__ import annotations

import multiprocessing
import os
import secrets
import sqlite3
import stat
from contextlib import closing
from pathlib import Path

import pytest

from appliance import files
from appliance.serve import statedir
from appliance.serve.statedir import StateError, known_key, prepare, private_key
from tests.cli.test_serve import fails, headwater, write_site


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


def test_a_directory_of_others_is_not_restricted(tmp_path: Path) -> None:
    """H13: ``state_dir: /var/lib`` as root would have broken the machine."""
    place = tmp_path / "lib"
    place.mkdir()
    place.chmod(0o755)
    (place / "dpkg").mkdir()
    with pytest.raises(StateError, match=r"has files of others \(dpkg, …\)"):
        prepare(place)
    assert mode(place) == 0o755


@pytest.mark.parametrize("name", [None, "noise.key", "headwater.db", "lost+found"])
def test_a_directory_of_ours_is_restricted(tmp_path: Path, name: str | None) -> None:
    place = tmp_path / "state"
    place.mkdir()
    place.chmod(0o755)
    if name is not None:
        (place / name).touch()
    prepare(place)
    assert mode(place) == 0o700


def test_a_restricted_directory_may_hold_what_it_will(tmp_path: Path) -> None:
    """The policy, say, that was put there before the first start."""
    place = tmp_path / "state"
    place.mkdir(mode=0o700)
    (place / "policy.hujson").touch()
    prepare(place)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can give a directory away")
def test_a_directory_of_another_user_is_refused(tmp_path: Path) -> None:
    place = tmp_path / "state"
    place.mkdir(mode=0o700)
    os.chown(place, 65534, -1)
    with pytest.raises(StateError, match="belongs to nobody"):
        prepare(place)


@pytest.mark.parametrize(
    "data",
    [b"\xff\xfe", b"", b"privkey:" + b"0" * 64, b"privkey:" + b"0" * 64 + b"\n", b"x" * 5000],
)
def test_what_is_no_key_is_a_sentence(tmp_path: Path, data: bytes) -> None:
    """H10: bytes that are no text were a traceback, a key of zeros was taken."""
    path = tmp_path / "noise.key"
    path.write_bytes(data)
    with pytest.raises(StateError, match="restore it from a backup"):
        known_key(path)


def _make(path: Path, start: object, found: object) -> None:
    start.wait()  # type: ignore[attr-defined]  # a barrier of multiprocessing's
    found.put(private_key(path, secrets.token_bytes).reveal_text())  # type: ignore[attr-defined]


def test_two_processes_that_make_a_key_have_the_same(tmp_path: Path) -> None:
    """H11: the one who came second wrote over the key that the first one served with."""
    spawn = multiprocessing.get_context("spawn")
    start, found = spawn.Barrier(4), spawn.Queue()
    for number in range(3):
        path = tmp_path / f"key{number}"
        processes = [spawn.Process(target=_make, args=(path, start, found)) for _ in range(4)]
        for process in processes:
            process.start()
        keys = {found.get(timeout=60) for _ in processes}
        for process in processes:
            process.join()
        known = known_key(path)
        assert known is not None
        assert keys == {known.reveal_text()}
    assert not list(tmp_path.glob(".key*"))


def test_a_key_that_appears_meanwhile_is_the_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """H11: deterministically: another process is quicker by a moment."""
    path = tmp_path / "noise.key"
    theirs = private_key(tmp_path / "theirs", secrets.token_bytes)

    def other_is_quicker(target: Path, data: bytes, *, is_new: bool) -> None:
        (tmp_path / "theirs").rename(path)
        files.write_whole(target, data, is_new=is_new)

    monkeypatch.setattr(statedir, "write_whole", other_is_quicker)
    assert private_key(path, secrets.token_bytes).reveal_text() == theirs.reveal_text()


def test_the_key_is_made_under_the_lock_of_the_database(tmp_path: Path) -> None:
    """H11: a second server that is refused has made nothing."""
    with headwater("serve", "-c", str(write_site(tmp_path))):
        (tmp_path / "state" / "noise.key").unlink()
        other = tmp_path / "other"
        other.mkdir()
        site = write_site(other, state_dir=str(tmp_path / "state"))
        assert "has" in fails("serve", "-c", str(site))
        assert not (tmp_path / "state" / "noise.key").exists()


@pytest.mark.parametrize("left", [None, b"", "foreign"])
def test_an_empty_database_beside_an_older_key_is_refused(
    tmp_path: Path, left: bytes | str | None
) -> None:
    """H10: every node would be a stranger, and nobody would be told."""
    site, state = write_site(tmp_path), tmp_path / "state"
    with headwater("serve", "-c", str(site)):
        pass
    path = state / "headwater.db"
    path.unlink()
    if isinstance(left, bytes):
        path.write_bytes(left)
    elif left is not None:
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("CREATE TABLE songs (title TEXT)")
    told = fails("serve", "-c", str(site))
    if left == "foreign":
        assert "belongs to another program" in told
    else:
        assert "move noise.key away" in told
        (state / "noise.key").unlink()
        with headwater("serve", "-c", str(site)):
            pass


def test_rows_without_their_owner_are_a_sentence(tmp_path: Path) -> None:
    """H10: ``delete from users`` started without a word; so did a time that is none."""
    site, path = write_site(tmp_path), tmp_path / "state" / "headwater.db"
    with headwater("serve", "-c", str(site)):
        pass
    statement = "INSERT INTO auth_keys VALUES (1, 1, 'p', 'h', '{}', {}, '[]', 0, 0, NULL, NULL)"
    for at, user, says in (
        ("2026-01-01 00:00:00.000000", "77", "its row of users is missing"),
        ("yesterday", "NULL", "a row cannot be read"),
    ):
        with closing(sqlite3.connect(path)) as connection:
            connection.execute("DELETE FROM auth_keys")
            connection.execute(statement.format(at, user))
            connection.commit()
        assert says in fails("serve", "-c", str(site))
