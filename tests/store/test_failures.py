"""What fails, fails whole; what was acknowledged, stays."""

from __future__ import annotations

import asyncio
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from dataclasses import replace
from pathlib import Path
from typing import Any

import psycopg
import pytest
from sqlalchemy.exc import IntegrityError, OperationalError

from appliance.identity.principals import LOCAL
from appliance.live import CommitFailed, LiveTailnet
from appliance.records import UserID
from appliance.store.errors import DatabaseDamaged, DatabaseInUse
from appliance.store.store import Database
from appliance.tailnet.snapshot import Rows, Sequences
from tests.store import making


async def fill(database: Database, count: int = 3) -> Sequences:
    """Write a tailnet and some nodes."""
    ids = Sequences(tailnet=1)
    nodes = [making.node(ids) for _ in range(count)]
    await database.write(making.TAILNET.id, [Rows(puts=(making.TAILNET, *nodes))])
    return ids


def sqlite_path(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


@pytest.fixture
def sqlite_url(tmp_path: Path) -> str:
    return f"sqlite:///{tmp_path}/headwater.db"


@pytest.fixture
async def on_sqlite(sqlite_url: str) -> Any:
    database = Database.open(sqlite_url, busy_timeout_s=0.05)
    await database.migrate()
    yield database
    await database.close()


async def test_a_full_disk_fails_the_edit_and_leaves_nothing_of_it(on_sqlite: Database) -> None:
    ids = await fill(on_sqlite)
    connection = on_sqlite._own.get()

    def set_limit(pages: int) -> None:
        connection.exec_driver_sql(f"PRAGMA max_page_count = {pages}")
        connection.rollback()

    await on_sqlite._call(lambda: set_limit(1))  # SQLite takes the present size for the least
    many = tuple(making.node(ids) for _ in range(200))
    with pytest.raises(OperationalError, match="full"):
        await on_sqlite.write(making.TAILNET.id, [Rows(puts=many)])
    assert len((await on_sqlite.load())[0][0].nodes) == 3
    await on_sqlite._call(lambda: set_limit(100_000))
    await on_sqlite.write(making.TAILNET.id, [Rows(puts=many)])
    assert len((await on_sqlite.load())[0][0].nodes) == 203


async def test_a_locked_file_fails_the_edit_and_the_next_one_works(
    on_sqlite: Database, sqlite_url: str
) -> None:
    ids = await fill(on_sqlite)
    node = making.node(ids)
    with closing(sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)) as other:
        other.execute("BEGIN IMMEDIATE")
        with pytest.raises(OperationalError, match="locked"):
            await on_sqlite.write(making.TAILNET.id, [Rows(puts=(node,))])
        other.execute("ROLLBACK")
    await on_sqlite.write(making.TAILNET.id, [Rows(puts=(node,))])
    assert node.id in (await on_sqlite.load())[0][0].nodes


async def test_a_failed_commit_is_not_published(on_sqlite: Database, sqlite_url: str) -> None:
    """Nobody sees a node that the disk has not, and the tailnet goes on afterwards."""
    ids = await fill(on_sqlite)
    (snapshot,), _ = await on_sqlite.load()
    live = LiveTailnet(snapshot, on_sqlite, ids)
    before = live.snapshot
    running = asyncio.create_task(live.run())
    try:
        with closing(sqlite3.connect(sqlite_path(sqlite_url), isolation_level=None)) as other:
            other.execute("BEGIN IMMEDIATE")
            with pytest.raises(CommitFailed):
                async with live.edit(by=LOCAL, act="test.change") as edit:
                    edit.put(making.node(ids))
            other.execute("ROLLBACK")
        assert live.snapshot is before
        async with live.edit(by=LOCAL, act="test.change") as edit:
            edit.put(replace(snapshot.nodes[next(iter(snapshot.nodes))], name="renamed"))
    finally:
        running.cancel()
        await asyncio.wait([running])
    (loaded,), _ = await on_sqlite.load()
    assert loaded.nodes == live.snapshot.nodes
    assert "renamed" in loaded.by_name


async def test_one_bad_batch_does_not_fail_the_others(database: Database) -> None:
    """The thread is held, so that both batches wait and are written together."""
    ids = Sequences()
    one = await database.create_tailnet(ids, name="one", domain="one", created_at=making.NOW)
    two = await database.create_tailnet(ids, name="two", domain="two", created_at=making.NOW)
    let_go = threading.Event()
    holding = asyncio.create_task(database._call(let_go.wait))
    await asyncio.sleep(0)
    owned_by_nobody = making.node(ids, UserID(99))
    companion, fine = making.node(ids), making.node(ids)
    writes = [
        asyncio.create_task(
            database.write(one.id, [Rows(puts=(companion,)), Rows(puts=(owned_by_nobody,))])
        ),
        asyncio.create_task(database.write(two.id, [Rows(puts=(fine,))])),
    ]
    await asyncio.sleep(0)
    let_go.set()
    outcomes = await asyncio.gather(*writes, return_exceptions=True)
    await holding
    assert isinstance(outcomes[0], IntegrityError)
    assert outcomes[1] is None
    loaded, _ = await database.load()
    assert [list(snapshot.nodes) for snapshot in loaded] == [[], [fine.id]]


async def test_a_damaged_file_is_reported_with_the_way_out(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/headwater.db"
    database = Database.open(url)
    await database.migrate()
    await fill(database, 500)
    await database.close()
    with sqlite_path(url).open("r+b") as file:
        file.seek(20 * 4096)
        file.write(b"\xa5" * 30 * 4096)
    database = Database.open(url)
    try:
        await database.migrate()
        with pytest.raises(DatabaseDamaged, match="restore a backup"):
            await database.load()
    finally:
        await database.close()


async def test_a_taken_name_of_a_tailnet_is_refused(database: Database) -> None:
    ids = Sequences()
    await database.create_tailnet(ids, name="one", domain="one", created_at=making.NOW)
    with pytest.raises(IntegrityError):
        await database.create_tailnet(ids, name="one", domain="two", created_at=making.NOW)


async def test_a_second_opening_is_refused(database: Database, url: str) -> None:
    async def open_again() -> None:
        second = Database.open(url)
        try:
            await second.migrate()
        finally:
            await second.close()

    with pytest.raises(DatabaseInUse, match="stop it first"):
        await open_again()
    await database.close()
    await open_again()


CHILD = """
import asyncio, sys
from appliance.store.store import Database
from appliance.tailnet.snapshot import Rows, Sequences
from tests.store import making

async def main(url):
    database = Database.open(url)
    await database.migrate()
    ids = Sequences(tailnet=1)
    await database.write(making.TAILNET.id, [Rows(puts=(making.TAILNET,))])

    async def one():
        user = making.user(ids)
        node = making.node(ids, user.id)
        await database.write(making.TAILNET.id, [Rows(puts=(user,)), Rows(puts=(node,))])
        print(node.id, flush=True)

    while True:
        await asyncio.gather(*(one() for _ in range(7)))

asyncio.run(main(sys.argv[1]))
"""


def write_until_killed(url: str, acknowledged: int) -> list[int]:
    """Let a process write, kill it in the middle, and give the ids that it had confirmed."""
    with subprocess.Popen([sys.executable, "-c", CHILD, url], stdout=subprocess.PIPE) as child:
        assert child.stdout is not None
        seen = [int(child.stdout.readline()) for _ in range(acknowledged)]
        child.kill()
        return seen + [int(line) for line in child.stdout.read().split(b"\n")[:-1]]


@pytest.mark.parametrize("acknowledged", [1, 333])
async def test_kill_9_keeps_every_acknowledged_write(url: str, acknowledged: int) -> None:
    seen = write_until_killed(url, acknowledged)
    database = await open_when_free(url)
    try:
        (loaded,), ids = await database.load()
        assert set(seen) <= set(loaded.nodes)
        assert {node.user_id for node in loaded.nodes.values()} == set(loaded.users)
        assert ids.node >= max(loaded.nodes)
        if url.startswith("sqlite"):
            check = await database._call(
                lambda: database._own.get().exec_driver_sql("PRAGMA integrity_check").scalar()
            )
            assert check == "ok"
    finally:
        await database.close()


async def open_when_free(url: str) -> Database:
    """Open; PostgreSQL may need a moment to see that the killed process is gone."""
    for _ in range(500):
        database = Database.open(url)
        try:
            await database.migrate()
        except DatabaseInUse:
            await database.close()
            await asyncio.sleep(0.01)
        else:
            return database
    raise TimeoutError("the killed process still holds the database")


async def test_a_lost_connection_is_made_again(postgres_url: str) -> None:
    database = Database.open(postgres_url)
    try:
        await database.migrate()
        ids = await fill(database)
        with psycopg.connect(postgres_url, autocommit=True) as other:
            other.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
                "WHERE application_name = 'headwater' AND datname = current_database()"
            )
        node = making.node(ids)
        await database.write(making.TAILNET.id, [Rows(puts=(node,))])
        assert node.id in (await database.load())[0][0].nodes
        with pytest.raises(DatabaseInUse):
            await open_and_close(postgres_url)
    finally:
        await database.close()


async def open_and_close(url: str) -> None:
    second = Database.open(url)
    try:
        await second.migrate()
    finally:
        await second.close()
