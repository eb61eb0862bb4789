"""Who owns the database: nothing is acknowledged that is not stored, no row of another overwritten."""

from __future__ import annotations

import asyncio
import os
import signal
import sqlite3
import subprocess
import sys
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import closing, suppress
from pathlib import Path

import psycopg
import pytest

from appliance.records import TailnetID, User
from appliance.store import upgrade
from appliance.store.errors import DatabaseAway, DatabaseInUse, NotOurs, StoreError
from appliance.store.journal import KEPT_VERSIONS
from appliance.store.owned import IN_DOUBT, Patience
from appliance.store.postgresql import parameters
from appliance.store.store import Database
from appliance.tailnet.snapshot import Rows, Sequences
from tests.store import making
from tests.support.forwarder import Forwarder

TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = 'headwater' AND datname = current_database()"
)
COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"


class Site:
    """A database that servers open one after the other, or at once when they should not."""

    def __init__(self, url: str) -> None:
        self.url = url
        self.patience = Patience()
        self._open: list[Database] = []

    async def server(self, *, take_over: bool = False) -> tuple[Database, Sequences]:
        """Open, migrate, load: what a server does at its start."""
        database = Database.open(
            self.url, busy_timeout_s=0.05, take_over=take_over, patience=self.patience
        )
        self._open.append(database)
        await database.migrate()
        snapshots, ids = await database.load()
        if not snapshots:
            record = making.TAILNET
            await database.create_tailnet(
                ids, name=record.name, domain=record.domain, created_at=record.created_at
            )
        return database, ids

    async def close(self) -> None:
        for database in self._open:
            await database.close()


@pytest.fixture
async def site(url: str) -> AsyncIterator[Site]:
    """Give an empty database, of each kind in turn."""
    site = Site(url)
    yield site
    await site.close()


@pytest.fixture
async def postgres_site(postgres_url: str) -> AsyncIterator[Site]:
    """Give an empty PostgreSQL database."""
    site = Site(postgres_url)
    yield site
    await site.close()


@pytest.fixture
async def file_site(tmp_path: Path) -> AsyncIterator[Site]:
    """Give a place for a SQLite database."""
    site = Site(f"sqlite:///{tmp_path}/headwater.db")
    yield site
    await site.close()


@pytest.fixture
def forwarder(postgres_url: str) -> Iterator[Forwarder]:
    """Give a way to the PostgreSQL server that can be cut."""
    with Forwarder(Path(parameters(postgres_url)["host"]) / ".s.PGSQL.5432") as forwarder:
        yield forwarder


@pytest.fixture
async def far_site(postgres_url: str, forwarder: Forwarder) -> AsyncIterator[Site]:
    """Give a PostgreSQL database behind the forwarder."""
    name = parameters(postgres_url)["dbname"]
    site = Site(f"postgresql://headwater@127.0.0.1:{forwarder.port}/{name}")
    yield site
    await site.close()


async def add(database: Database, ids: Sequences) -> User:
    """Write one user; give it once that is acknowledged."""
    user = making.user(ids)
    await database.write(TailnetID(1), [Rows(puts=(user,))])
    return user


async def users_of(site: Site) -> set[User]:
    """Give what a new start serves."""
    await site.close()
    database, _ = await site.server()
    (snapshot,), _ = await database.load()
    return set(snapshot.users.values())


def cut(url: str) -> None:
    """End the sessions of all servers."""
    with psycopg.connect(url, autocommit=True) as other:
        other.execute(TERMINATE)


async def test_a_server_whose_place_was_taken_after_a_cut_overwrites_nothing(
    postgres_site: Site,
) -> None:
    """S1: a connection cut while nothing is written, a second server, and the first one again."""
    first, ids = await postgres_site.server()
    kept = [await add(first, ids)]
    cut(postgres_site.url)
    second, their_ids = await postgres_site.server()
    kept += [await add(second, their_ids) for _ in range(8)]
    await second.close()
    with pytest.raises(NotOurs, match="9 commits that this server does not know"):
        await add(first, ids)
    with pytest.raises(NotOurs):
        await first.ping()
    assert await users_of(postgres_site) == set(kept)


async def test_a_health_check_notices_that_the_place_was_taken(postgres_site: Site) -> None:
    """S1: the variant in which a health check makes the connection again."""
    first, _ = await postgres_site.server()
    cut(postgres_site.url)
    second, their_ids = await postgres_site.server()
    await add(second, their_ids)
    await second.close()
    with pytest.raises(NotOurs, match="does not know"):
        await first.ping()


async def test_two_servers_without_a_lock_between_them(postgres_site: Site) -> None:
    """S1, S3: the lock is let go of behind the first one's back, as a pooler does it."""
    first, ids = await postgres_site.server()
    kept = [await add(first, ids)]
    await first._call(lambda: exec_on(first, "SELECT pg_advisory_unlock_all()"))
    second, their_ids = await postgres_site.server()
    kept.append(await add(second, their_ids))
    with pytest.raises(NotOurs, match=f"the newest by pid {os.getpid()} on "):
        await add(first, ids)
    kept.append(await add(second, their_ids))
    assert await users_of(postgres_site) == set(kept)


def exec_on(database: Database, statement: str) -> None:
    with database._own.get().begin() as transaction:
        transaction.connection.exec_driver_sql(statement)


async def test_one_that_took_over_and_wrote_nothing_yet_is_noticed(postgres_site: Site) -> None:
    """S6: whoever loads the tailnets has them, from the first moment on."""
    first, ids = await postgres_site.server()
    kept = [await add(first, ids)]
    second, their_ids = await postgres_site.server(take_over=True)
    with pytest.raises(NotOurs):
        await add(first, ids)
    kept.append(await add(second, their_ids))
    assert await users_of(postgres_site) == set(kept)


async def test_the_holder_of_the_lock_is_named(postgres_site: Site) -> None:
    """S6: who is it, since when, from where."""
    await postgres_site.server()
    with pytest.raises(
        DatabaseInUse,
        match=r"session with pid \d+, from .*, connected for 0:0.*--take-over",
    ):
        await postgres_site.server()


async def test_a_session_of_ours_that_the_server_believes_alive_is_ended(far_site: Site) -> None:
    """S6: after a cut that the server did not see, the lock is held by nobody but ourselves."""
    database, ids = await far_site.server()
    kept = [await add(database, ids)]
    # The client's half is gone; the server still waits for a statement on its own.
    await database._call(lambda: lose_silently(database))
    kept.append(await add(database, ids))
    assert await users_of(far_site) == set(kept)


def lose_silently(database: Database) -> None:
    connection = database._own.get()
    session = connection.connection.driver_connection
    assert isinstance(session, psycopg.Connection)
    # A second descriptor keeps the TCP connection open when psycopg closes its own.
    LEAKED.append(os.dup(session.fileno()))
    session.close()


LEAKED: list[int] = []


@pytest.fixture(autouse=True)
def _close_leaked() -> Iterator[None]:
    yield
    while LEAKED:
        os.close(LEAKED.pop())


def restore_on_postgres(url: str) -> Callable[[], None]:
    """Take a backup of all tables; the result puts it back, under a running server."""
    with psycopg.connect(url, autocommit=True) as connection:
        names = [
            name
            for (name,) in connection.execute(
                "SELECT tablename FROM pg_tables WHERE schemaname = 'public'"
            )
        ]
        for name in names:
            connection.execute(f"CREATE TABLE kept_{name} AS TABLE {name}".encode())

    def restore() -> None:
        with psycopg.connect(url) as connection:
            for name in reversed(names):
                connection.execute(f"TRUNCATE {name} CASCADE".encode())
            connection.execute("SET session_replication_role = replica")
            for name in names:
                copied = f"INSERT INTO {name} SELECT * FROM kept_{name}"  # noqa: S608 our own names
                connection.execute(copied.encode())

    return restore


async def test_a_backup_restored_under_a_running_server_is_noticed(postgres_site: Site) -> None:
    """S1: the same connection, but another database behind it."""
    database, ids = await postgres_site.server()
    kept = [await add(database, ids)]
    restore = restore_on_postgres(postgres_site.url)
    for _ in range(3):
        await add(database, ids)
    restore()
    with pytest.raises(NotOurs, match="3 commits of this server are missing from it"):
        await add(database, ids)
    assert await users_of(postgres_site) == set(kept)


async def test_a_backup_from_before_the_tailnet_is_noticed(postgres_site: Site) -> None:
    """S1: there is nothing left of what this server knows."""
    database, ids = await postgres_site.server()
    exec_on_other = "TRUNCATE journal"
    with psycopg.connect(postgres_site.url, autocommit=True) as other:
        other.execute(exec_on_other)
    with pytest.raises(NotOurs, match="has nothing of tailnet"):
        await database.ping()
    with pytest.raises(NotOurs):
        await add(database, ids)


async def test_a_commit_whose_answer_was_lost_is_looked_for(
    far_site: Site, forwarder: Forwarder
) -> None:
    """S4: taken, and acknowledged once that is known; written once."""
    database, ids = await far_site.server()
    for _ in range(3):
        forwarder.cut_answer_to = COMMIT
        await add(database, ids)
        assert forwarder.cut_answer_to is None
    await database.ping()
    assert database.trouble is None
    assert {user.id for user in await users_of(far_site)} == {1, 2, 3}


async def test_a_commit_that_was_cut_off_before_is_made_again(
    far_site: Site, forwarder: Forwarder
) -> None:
    """S4: not taken, so it is written again, and acknowledged then."""
    database, ids = await far_site.server()
    for _ in range(3):
        forwarder.cut_before = COMMIT
        await add(database, ids)
        assert forwarder.cut_before is None
    assert {user.id for user in await users_of(far_site)} == {1, 2, 3}


async def test_a_cut_while_the_new_session_is_set_up_is_survived(
    far_site: Site, forwarder: Forwarder
) -> None:
    """S11: connecting is tried again, not only the statement."""
    database, ids = await far_site.server()
    forwarder.cut_before = b"set_config"
    forwarder.cut_all()
    await add(database, ids)
    assert forwarder.cut_before is None


async def test_a_commit_in_doubt_waits_for_the_answer(far_site: Site, forwarder: Forwarder) -> None:
    """S4: while nobody can be asked, it is neither acknowledged nor denied, and health names it."""
    database, ids = await far_site.server()
    forwarder.cut_answer_to, forwarder.refuse_after_cut = COMMIT, True
    writing = asyncio.create_task(add(database, ids))
    while database.trouble is None:
        await asyncio.wait([writing], timeout=0.01)
    assert database.trouble == IN_DOUBT
    assert not writing.done()
    forwarder.refuse_after_cut = forwarder.is_refusing = False
    await writing
    await database.ping()
    assert database.trouble is None


async def test_a_commit_reported_as_failed_but_taken_ends_the_server(
    far_site: Site, forwarder: Forwarder
) -> None:
    """S4: what was in doubt for too long was denied; if it is there, memory is behind the truth."""
    far_site.patience = Patience(reconnect_s=0.3, doubt_s=0.3)
    database, ids = await far_site.server()
    forwarder.cut_answer_to, forwarder.refuse_after_cut = COMMIT, True
    with pytest.raises(DatabaseAway, match="whether it was taken cannot be asked"):
        await add(database, ids)
    assert database.trouble is not None
    assert "whether it was taken cannot be asked" in database.trouble
    with pytest.raises(StoreError):
        await database.ping()
    forwarder.refuse_after_cut = forwarder.is_refusing = False
    with pytest.raises(NotOurs, match="1 commit that this server does not know"):
        await database.ping()


async def test_a_commit_reported_as_failed_and_not_taken_is_forgotten(
    far_site: Site, forwarder: Forwarder
) -> None:
    """S4: then the server goes on by itself."""
    far_site.patience = Patience(reconnect_s=0.3, doubt_s=0.3)
    database, ids = await far_site.server()
    forwarder.is_refusing, forwarder.cut_before = True, COMMIT
    with pytest.raises(StoreError):
        await add(database, ids)
    forwarder.is_refusing = False
    await database.ping()
    assert database.trouble is None
    await add(database, ids)


async def test_the_guard_tells_of_it(postgres_site: Site) -> None:
    """B15: what ends the server."""
    first, ids = await postgres_site.server()
    guard = asyncio.create_task(first.guard())
    await postgres_site.server(take_over=True)
    with suppress(NotOurs):
        await add(first, ids)
    with pytest.raises(NotOurs):
        await guard


async def test_last_seen_times_of_one_that_lost_its_place_are_not_written(
    postgres_site: Site,
) -> None:
    """S1: no row of another is overwritten, not even one that matters little."""
    first, ids = await postgres_site.server()
    node = making.node(ids)
    await first.write(TailnetID(1), [Rows(puts=(node,))])
    second, _ = await postgres_site.server(take_over=True)
    later = making.NOW.replace(year=2027)
    second.note_last_seen([(node.id, later)])
    await second.close()
    first.note_last_seen([(node.id, making.NOW)])
    await first.close()
    database, _ = await postgres_site.server()
    (snapshot,), _ = await database.load()
    assert snapshot.presence_of(node.id).last_seen == later


async def test_the_journal_keeps_its_newest_rows(site: Site) -> None:
    """A9: one row per commit, from one number to the next, and not for ever."""
    database, ids = await site.server()
    await add(database, ids)
    await add(database, ids)
    head = await database._call(lambda: database._own.journal.heads[TailnetID(1)])
    assert head == 3  # the tailnet's own row, and two users
    database._own.journal.heads[TailnetID(1)] = 2 + KEPT_VERSIONS

    def trim() -> list[int]:
        with database._own.get().begin() as transaction:
            database._own.journal.trim(transaction.connection)
            found = transaction.connection.exec_driver_sql("SELECT version FROM journal").fetchall()
            return [version for (version,) in found]

    assert await database._call(trim) == [3]
    database._own.journal.heads[TailnetID(1)] = 3


# ── SQLite ───────────────────────────────────────────────────────────────────────────────────────


def path_of(site: Site) -> Path:
    return Path(site.url.removeprefix("sqlite:///"))


def copy_of(site: Site) -> Path:
    """Make a copy of the database as a backup tool does it."""
    target = path_of(site).with_name("copy.db")
    with closing(sqlite3.connect(path_of(site))) as source, closing(sqlite3.connect(target)) as to:
        source.backup(to)
    return target


async def test_a_copy_put_in_the_place_of_the_file_is_noticed(file_site: Site) -> None:
    """S1 on SQLite: writes would go to a file without a name."""
    database, ids = await file_site.server()
    kept = [await add(database, ids)]
    copy = copy_of(file_site)
    await add(database, ids)
    copy.replace(path_of(file_site))
    with pytest.raises(NotOurs, match="was moved, removed or replaced while it was in use"):
        await add(database, ids)
    with pytest.raises(NotOurs):
        await database.ping()
    await database.close()
    for left in ("-wal", "-shm"):
        path_of(file_site).with_name(f"headwater.db{left}").unlink(missing_ok=True)
    assert await users_of(file_site) == set(kept)


async def test_a_copy_written_over_the_file_is_noticed(file_site: Site) -> None:
    """S1 on SQLite: ``cp`` keeps the file and replaces what is in it."""
    database, ids = await file_site.server()
    await add(database, ids)
    copy = copy_of(file_site)
    await add(database, ids)
    await database._call(lambda: checkpoint(database))
    await add(database, ids)
    path_of(file_site).write_bytes(copy.read_bytes())
    with pytest.raises(NotOurs, match="was written over while it was in use"):
        await add(database, ids)


def checkpoint(database: Database) -> None:
    """Do by hand what SQLite does after each thousand pages."""
    own = database._own
    upgrade.driver_connection(own.get()).execute("PRAGMA wal_checkpoint(PASSIVE)").close()
    own._floor = dict(own.journal.heads)
    assert own._opened.file is not None
    own._opened.file.note_written()


async def test_another_programs_checkpoint_is_fine(file_site: Site) -> None:
    """A backup tool may move our commits from the log to the file."""
    database, ids = await file_site.server()
    await add(database, ids)
    with closing(sqlite3.connect(path_of(file_site))) as tool:
        tool.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    await add(database, ids)
    await database.ping()
    with closing(sqlite3.connect(path_of(file_site))) as tool:
        tool.execute("PRAGMA wal_checkpoint(RESTART)").close()
    await add(database, ids)
    assert {user.id for user in await users_of(file_site)} == {1, 2, 3}


async def test_a_log_that_was_removed_is_noticed(file_site: Site) -> None:
    """S1 on SQLite: commits would go to a log without a name."""
    database, ids = await file_site.server()
    await add(database, ids)
    path_of(file_site).with_name("headwater.db-wal").unlink()
    with pytest.raises(NotOurs, match="commits went with it"):
        await add(database, ids)


async def test_a_hard_link_of_the_database_has_the_same_lock(
    file_site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    """H13: two names, one file, one server."""
    await file_site.server()
    other = path_of(file_site).with_name("other.db")
    os.link(path_of(file_site), other)
    with pytest.raises(DatabaseInUse, match="by another name"):
        Database.open(f"sqlite:///{other}")
    await file_site.close()
    database = Database.open(f"sqlite:///{other}")
    await database.close()
    assert "second name" in caplog.text


async def test_rows_written_behind_the_servers_back_are_noticed(file_site: Site) -> None:
    """S1 on SQLite: another server that got past the lock (a file system without locks)."""
    database, ids = await file_site.server()
    await add(database, ids)
    with closing(sqlite3.connect(path_of(file_site), isolation_level=None)) as other:
        other.execute(
            "INSERT INTO journal SELECT tailnet_id, version+1, at, 'b/1/x' FROM journal WHERE version = 2"
        )
    with pytest.raises(
        NotOurs, match="1 commit that this server does not know, the newest by pid 1 on b"
    ):
        await add(database, ids)


FROZEN = """
import asyncio, sys
from appliance.store.store import Database
from appliance.store import upgrade
from appliance.store.errors import NotOurs
from appliance.records import TailnetID
from appliance.tailnet.snapshot import Rows
from tests.store import making

async def main(url):
    database = Database.open(url)
    await database.migrate()
    (snapshot,), ids = await database.load()
    while True:
        user = making.user(ids)
        try:
            await database.write(TailnetID(1), [Rows(puts=(user,))])
        except NotOurs as error:
            print("ended:", error, flush=True)
            return
        print(user.id, flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def test_a_frozen_server_whose_place_was_taken_ends(postgres_site: Site) -> None:
    """S1: SIGSTOP in the middle of writing; another takes over, writes and goes; SIGCONT."""
    starting, _ = await postgres_site.server()
    await starting.close()
    command = [sys.executable, "-c", FROZEN, postgres_site.url]
    # Blocking on purpose: nothing else is to happen here meanwhile.
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as child:  # noqa: ASYNC220
        assert child.stdout is not None
        seen = [int(child.stdout.readline()) for _ in range(20)]
        child.send_signal(signal.SIGSTOP)
        second, ids = await postgres_site.server(take_over=True)
        theirs = [(await add(second, ids)).id for _ in range(3)]
        child.send_signal(signal.SIGCONT)
        rest = child.stdout.read().splitlines()
    assert rest[-1].startswith("ended: the database went on without this server")
    acknowledged = {*seen, *map(int, rest[:-1]), *theirs}
    assert acknowledged <= {user.id for user in await users_of(postgres_site)}
