"""Whether the database is well, in a sentence: it answers, it is ours, and it can be written to."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
from collections.abc import Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest
from sqlalchemy.exc import DBAPIError

from appliance.identity.principals import LOCAL
from appliance.live import CommitFailed, LiveTailnet
from appliance.records import TailnetID
from appliance.store.errors import StoreError
from appliance.store.owned import Patience
from appliance.store.postgresql import parameters
from appliance.store.store import Database
from appliance.tailnet.snapshot import Rows
from tests.store import making
from tests.store.test_failures import fill
from tests.support.forwarder import Forwarder

ONE = TailnetID(1)


@pytest.fixture
def small(tmp_path: Path) -> Iterator[Path]:
    """Give a file system of one megabyte."""
    place = tmp_path / "small"
    place.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", "size=1m", "tmpfs", str(place)]
    if subprocess.run(mount, check=False, capture_output=True).returncode:
        pytest.skip("NO MOUNT: only root can make a small file system")
    try:
        yield place
    finally:
        subprocess.run(["umount", "-l", str(place)], check=True)


def fill_up(place: Path) -> Path:
    """Leave no room."""
    ballast = place / "ballast"
    with suppress(OSError), ballast.open("wb", buffering=0) as file:
        while True:
            file.write(bytes(4096))
    return ballast


async def test_health_knows_that_the_disk_is_full(small: Path) -> None:
    """H9: before and after the first change that fails; and when there is room again."""
    database = Database.open(f"sqlite:///{small}/headwater.db")
    try:
        await database.migrate()
        ids = await fill(database)
        await database.load()
        assert await database.health() == ""
        ballast = fill_up(small)
        assert "is full: nothing can be written" in await database.health()
        with pytest.raises(DBAPIError):
            await database.write(ONE, [Rows(puts=tuple(making.node(ids) for _ in range(2000)))])
        assert "is full: nothing can be written" in await database.health()
        ballast.unlink()
        assert await database.health() == ""
        await database.write(ONE, [Rows(puts=(making.node(ids),))])
    finally:
        await database.close()


async def test_a_first_start_on_a_full_disk_is_a_sentence(small: Path) -> None:
    """H9: was an ExceptionGroup with SQL, later "disk I/O error"."""
    fill_up(small)
    with pytest.raises((StoreError, OSError)) as raised:
        await migrate(f"sqlite:///{small}/headwater.db")
    assert "full" in str(raised.value) or "No space left" in str(raised.value)
    assert "SQL" not in str(raised.value)


async def migrate(url: str) -> None:
    database = Database.open(url)
    try:
        await database.migrate()
    finally:
        await database.close()


async def test_a_failed_change_is_remembered_until_one_is_written(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """H9, F10: a locked file; one line when it begins, one when it is over."""
    path = tmp_path / "headwater.db"
    database = Database.open(f"sqlite:///{path}", busy_timeout_s=0.01)
    try:
        await database.migrate()
        ids = await fill(database)
        await database.load()
        with closing(sqlite3.connect(path, isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(DBAPIError):
                await database.write(ONE, [Rows(puts=(making.node(ids),))])
            for _ in range(5):
                assert await database.health() == (
                    "the database does not answer: database is locked"
                )
            other.execute("ROLLBACK")
        assert await database.health() == ""
    finally:
        await database.close()
    told = [record.message for record in caplog.records if "database" in record.message]
    assert told.count("database is not well") == 1


async def test_a_database_that_is_away_is_called_so_and_the_log_stays_small(
    postgres_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    """F10: a hundred changes of an outage; no traceback, no SQL, a bounded log."""
    found = parameters(postgres_url)
    with Forwarder(Path(found["host"]) / ".s.PGSQL.5432") as forwarder:
        database = Database.open(
            f"postgresql://headwater@127.0.0.1:{forwarder.port}/{found['dbname']}",
            patience=Patience(reconnect_s=0.0, doubt_s=0.0),
        )
        try:
            await database.migrate()
            ids = await fill(database)
            (snapshot,), _ = await database.load()
            live = LiveTailnet(snapshot, database, ids)
            running = asyncio.create_task(live.run())
            forwarder.is_refusing = True
            forwarder.cut_all()
            for _ in range(100):
                with pytest.raises(CommitFailed):
                    async with live.edit(by=LOCAL, act="test.change") as edit:
                        edit.put(making.user(ids))
            assert (await database.health()).startswith("the database does not answer: ")
            forwarder.is_refusing = False
            assert await database.health() == ""
            running.cancel()
            await asyncio.wait([running])
        finally:
            await database.close()
    assert not any(record.exc_info for record in caplog.records)
    assert "INSERT" not in caplog.text
    assert "commit failed" in caplog.text


async def test_a_server_that_hangs_is_told_soon(postgres_url: str) -> None:
    """F10: the answer does not wait for the database."""
    database = Database.open(postgres_url)
    try:
        await database.migrate()
        await fill(database)
        await database.load()
        with psycopg.connect(postgres_url) as other:
            other.execute("LOCK TABLE journal IN ACCESS EXCLUSIVE MODE")
            assert await database.health() == "the database does not answer"
            other.rollback()
        assert await database.health() == ""
    finally:
        await database.close()
