"""``python -m tests.soak.ownership [--rounds N] [--seed N]``: who owns the database, again and again.

Each round makes a database, lets a server write, lets something happen to it (a cut, a second server,
a pooler, a lost answer, a restored backup, a frozen process, a fail-over, a file that is exchanged),
lets everybody who still can write on, and then starts another server and compares. Must hold:

* what was acknowledged after the event, or before it and not undone by it, is what the last server serves;
* no row is another than the one that was acknowledged under its id;
* nobody says that it is well and then does not take a write.

PostgreSQL and PgBouncer are started for it; without PgBouncer its rounds are left out, and counted.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import random
import shutil
import signal
import sqlite3
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import closing, suppress
from dataclasses import dataclass, field
from pathlib import Path

import psycopg

from appliance.records import TailnetID, User
from appliance.store.errors import NotOurs, StoreError
from appliance.store.owned import Patience
from appliance.store.store import Database
from appliance.tailnet.snapshot import Rows, Sequences
from tests.store import making
from tests.store.conftest import POSTGRES_BINARIES, unprivileged
from tests.support.forwarder import Forwarder
from tests.support.pooler import BINARY, Pooler

ONE = TailnetID(1)
START_S = 180
COMMIT = b"Q\x00\x00\x00\x0bCOMMIT\x00"
ROLE = "headwater"
TERMINATE = (
    "SELECT pg_terminate_backend(pid) FROM pg_stat_activity "
    "WHERE application_name = 'headwater' AND datname = current_database()"
)


@dataclass
class Cluster:
    """A PostgreSQL server of our own, on a socket of its directory."""

    home: Path
    number: int = 0

    def run(self, program: str, *arguments: str, data: str = "data") -> None:
        subprocess.run(
            [POSTGRES_BINARIES[-1] / program, "-D", self.home / data, *arguments],
            check=True,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            timeout=START_S,
            user=None if os.geteuid() else unprivileged(),
            cwd=self.home,
            env={"LC_ALL": "C", "PATH": os.environ["PATH"]},
        )

    def start(self, data: str = "data", *options: str) -> None:
        directory = self.home / f"socket-{data}"
        directory.mkdir(exist_ok=True)
        if not os.geteuid():
            os.chown(directory, unprivileged(), -1)
        more = "".join(f" -c {option}" for option in options)
        settings = f"-c listen_addresses= -c fsync=off -k {directory}{more}"
        log = f"{self.home}/{data}.log"
        self.run("pg_ctl", "-w", "-l", log, "-o", settings, "start", data=data)

    def stop(self, data: str = "data") -> None:
        with suppress(subprocess.SubprocessError):
            self.run("pg_ctl", "-w", "-m", "immediate", "stop", data=data)

    def url(self, name: str, data: str = "data") -> str:
        return f"postgresql://{ROLE}@/{name}?host={self.home}/socket-{data}"

    def sql(
        self, statement: str, name: str = "postgres", data: str = "data"
    ) -> list[tuple[object, ...]]:
        with psycopg.connect(self.url(name, data), autocommit=True) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []

    def new(self) -> str:
        self.number += 1
        self.sql(f"CREATE DATABASE round{self.number}")
        return f"round{self.number}"


@dataclass
class Round:
    """One round: who was acknowledged what, and what went wrong."""

    rng: random.Random
    cluster: Cluster
    home: Path
    wrong: list[str] = field(default_factory=list)
    expected: dict[int, User] = field(default_factory=dict)
    uncertain: set[int] = field(default_factory=set)
    acknowledged: int = 0
    refused: int = 0
    _open: list[Database] = field(default_factory=list)

    async def server(self, url: str, *, take_over: bool = False) -> tuple[Database, Sequences]:
        patience = Patience(reconnect_s=2.0, doubt_s=10.0)
        database = Database.open(url, take_over=take_over, patience=patience)
        self._open.append(database)
        await database.migrate()
        snapshots, ids = await database.load()
        if not snapshots:
            await database.create_tailnet(ids, name="one", domain="one", created_at=making.NOW)
        return database, ids

    async def write(self, server: tuple[Database, Sequences], count: int) -> bool:
        """Write users, some at once; tell whether the server is still the owner."""
        database, ids = server
        users = [making.user(ids) for _ in range(count)]
        told = await asyncio.gather(
            *(database.write(ONE, [Rows(puts=(user,))]) for user in users), return_exceptions=True
        )
        for user, answer in zip(users, told, strict=True):
            if answer is None:
                self.acknowledged += 1
                self.expected[user.id] = user
            else:
                self.refused += 1
                self.uncertain.add(user.id)
        return not any(isinstance(answer, NotOurs) for answer in told)

    async def settle(self, server: tuple[Database, Sequences], attempts: int = 40) -> None:
        """Write on until the server is well or ends; it must not say well and refuse."""
        for _ in range(attempts):
            said = await server[0].health()
            before = self.refused
            is_owner = await self.write(server, 2)
            if said == "" and self.refused > before and is_owner:
                # The one that was cut in that very moment may fail; the next must not.
                again = await server[0].health()
                before = self.refused
                await self.write(server, 1)
                if again == "" and self.refused > before and await server[0].health() == "":
                    self.wrong.append("says well and refuses")
            if not is_owner:
                if await server[0].health() == "":
                    self.wrong.append("is not the owner and says well")
                return
            if self.refused == before:
                return
            await asyncio.sleep(0.1)

    async def compare(self, url: str) -> None:
        """Start another server, and compare what it serves."""
        await self.close()
        database, ids = await self.server(url, take_over=url.startswith("postgresql"))
        (snapshot,), ids = await database.load()
        for user_id, user in self.expected.items():
            found = snapshot.users.get(user_id)  # type: ignore[call-overload]  # ids are ints
            if found != user:
                self.wrong.append(f"user {user_id}: {'missing' if found is None else 'another'}")
        strange = set(snapshot.users) - set(self.expected) - self.uncertain
        if strange:
            self.wrong.append(f"users that nobody wrote: {sorted(strange)}")
        await self.write((database, ids), 1)
        await self.close()

    async def close(self) -> None:
        for database in self._open:
            await database.close()
        self._open.clear()

    async def serves(self, url: str) -> dict[int, User]:
        """Give what the database has now, read by a server that goes again."""
        database, _ = await self.server(url, take_over=True)
        (snapshot,), _ = await database.load()
        await database.close()
        return {int(user_id): user for user_id, user in snapshot.users.items()}


Event = Callable[[Round], Awaitable[None]]


async def cut(this: Round) -> None:
    """Connections are ended while some write."""
    name = this.cluster.new()
    url = this.cluster.url(name)
    server = await this.server(url)
    for _ in range(this.rng.randrange(2, 6)):
        writing = asyncio.create_task(this.write(server, 20))
        await asyncio.sleep(this.rng.random() * 0.02)
        this.cluster.sql(TERMINATE, name)
        await writing
    await this.settle(server)
    await this.compare(url)


async def second(this: Round) -> None:
    """A cut while nothing is written, and a second server that comes, writes, and may stay."""
    name = this.cluster.new()
    url = this.cluster.url(name)
    first = await this.server(url)
    await this.write(first, 5)
    other = await this.server(url, take_over=True)
    if this.rng.random() < 0.5:
        await this.write(other, 8)
    if this.rng.random() < 0.5:
        await other[0].close()
        other = first
    await this.settle(first)
    if await this.write(other, 3) and other is first:
        this.wrong.append("the first one goes on")
    await this.compare(url)


async def race(this: Round) -> None:
    """Two servers write at once, without a lock between them."""
    url = this.cluster.url(this.cluster.new())
    first = await this.server(url)
    await first[0]._call(lambda: _unlock(first[0]))
    writing = asyncio.create_task(_write_on(this, first))
    await asyncio.sleep(this.rng.random() * 0.05)
    other = await this.server(url)
    await this.write(other, 10)
    await writing
    if not await this.write(other, 3):
        this.wrong.append("the newer one is not the owner")
    await this.compare(url)


async def _write_on(this: Round, server: tuple[Database, Sequences]) -> None:
    for _ in range(200):
        if not await this.write(server, 5):
            return


def _unlock(database: Database) -> None:
    with database._own.get().begin() as transaction:
        transaction.connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")


async def lost_answer(this: Round) -> None:
    """The connection breaks between COMMIT and its answer, or before it; the database stays away."""
    name = this.cluster.new()
    with Forwarder(this.cluster.home / "socket-data" / ".s.PGSQL.5432") as forwarder:
        url = f"postgresql://{ROLE}@127.0.0.1:{forwarder.port}/{name}"
        server = await this.server(url)
        for _ in range(this.rng.randrange(1, 4)):
            if this.rng.random() < 0.6:
                forwarder.cut_answer_to = COMMIT
            else:
                forwarder.cut_before = COMMIT
            forwarder.refuse_after_cut = this.rng.random() < 0.5
            writing = asyncio.create_task(this.write(server, 4))
            await asyncio.sleep(this.rng.random() * 4)
            forwarder.refuse_after_cut = forwarder.is_refusing = False
            await writing
        await this.settle(server)
        await this.close()
    await this.compare(this.cluster.url(name))


async def pooled(this: Round) -> None:
    """PgBouncer in one of its modes: refused, or the fence holds."""
    if BINARY is None:
        raise LookupError("no pgbouncer")
    mode = this.rng.choice(("session", "transaction", "statement"))
    name = this.cluster.new()
    user = None if os.geteuid() else unprivileged()
    socket = f"{this.cluster.home}/socket-data"
    with Pooler(mode, socket, name, size=this.rng.choice((1, 2, 4)), user=user) as pooler:
        try:
            server = await this.server(pooler.url)
        except StoreError:
            if mode == "session":
                raise
            await this.close()
            return
        if mode != "session":
            this.wrong.append(f"a pooler in {mode} mode is accepted")
        await this.write(server, 5)
        other = await this.server(this.cluster.url(name), take_over=True)
        await this.write(other, 3)
        await this.settle(server)
        await this.compare(this.cluster.url(name))


async def restored(this: Round) -> None:
    """A backup is put back under a running server."""
    name = this.cluster.new()
    url = this.cluster.url(name)
    server = await this.server(url)
    await this.write(server, 5)
    names = [
        str(table)
        for (table,) in this.cluster.sql(
            "SELECT tablename FROM pg_tables WHERE schemaname = 'public'", name
        )
    ]
    with psycopg.connect(url) as copy:  # of one moment
        copy.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
        for table in names:
            copy.execute(f"CREATE TABLE kept_{table} AS TABLE {table}".encode())
    kept = dict(this.expected)
    await this.write(server, this.rng.randrange(1, 8))
    with psycopg.connect(url) as back:
        back.execute("SET session_replication_role = replica")
        for table in names:
            back.execute(f"TRUNCATE {table} CASCADE".encode())
        for table in names:
            copied = f"INSERT INTO {table} SELECT * FROM kept_{table}"  # noqa: S608 our own names
            back.execute(copied.encode())
    this.expected = kept
    await this.settle(server)
    await this.compare(url)


FROZEN = """
import asyncio, sys
from appliance.store.store import Database
from appliance.store.errors import StoreError
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
        except StoreError:
            return
        print(user.id, flush=True)

asyncio.run(main(sys.argv[1]))
"""


async def frozen(this: Round) -> None:
    """A server is stopped in the middle of writing; another takes over; it goes on."""
    url = this.cluster.url(this.cluster.new())
    first = await this.server(url)
    await first[0].close()
    command = [sys.executable, "-c", FROZEN, url]
    child = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)  # noqa: ASYNC220 waited for
    assert child.stdout is not None
    seen = [int(child.stdout.readline()) for _ in range(this.rng.randrange(1, 40))]
    child.send_signal(signal.SIGSTOP)
    other = await this.server(url, take_over=True)
    await this.write(other, this.rng.randrange(0, 5))
    child.send_signal(signal.SIGCONT)
    seen += [int(line) for line in child.stdout.read().split()]
    child.wait()
    mine = await other[0]._call(lambda: _ids_of(other[0]))
    if missing := set(seen) - mine:
        this.wrong.append(f"acknowledged by the frozen one and missing: {sorted(missing)}")
    this.uncertain |= mine
    if not await this.write(other, 2):
        this.wrong.append("the newer one is not the owner")
    await this.compare(url)


def _ids_of(database: Database) -> set[int]:
    with database._own.asking() as connection:
        return {row[0] for row in connection.exec_driver_sql("SELECT id FROM users")}


async def failed_over(this: Round, *, synchronous: bool) -> None:
    """The primary dies; its standby is promoted, behind the same address."""
    cluster = this.cluster
    name = cluster.new()
    standby = f"standby{cluster.number}"
    socket = f"{cluster.home}/socket-data"
    cluster.run("pg_basebackup", "-R", "-h", socket, "-U", ROLE, "-c", "fast", data=standby)
    cluster.start(standby, f"cluster_name={standby}")
    names = f"'{standby}'" if synchronous else "''"
    cluster.sql(f"ALTER SYSTEM SET synchronous_standby_names = {names}")
    cluster.sql("SELECT pg_reload_conf()")
    until = time.monotonic() + START_S
    while not cluster.sql("SELECT 1 FROM pg_stat_replication WHERE state = 'streaming'"):
        if time.monotonic() > until:
            raise TimeoutError("the standby does not follow")
        await asyncio.sleep(0.1)
    try:
        with Forwarder(Path(socket) / ".s.PGSQL.5432") as forwarder:
            url = f"postgresql://{ROLE}@127.0.0.1:{forwarder.port}/{name}"
            server = await this.server(url)
            await this.write(server, 5)
            if not synchronous and this.rng.random() < 0.7:
                cluster.sql("SELECT pg_wal_replay_pause()", data=standby)
                cluster.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_replication")
            writing = asyncio.create_task(this.write(server, 20))
            await asyncio.sleep(this.rng.random() * 0.05)
            forwarder.is_refusing = True
            cluster.stop()
            forwarder.cut_all()
            cluster.sql("SELECT pg_wal_replay_resume()", data=standby)
            cluster.run("pg_ctl", "-w", "promote", data=standby)
            forwarder.target = cluster.home / f"socket-{standby}" / ".s.PGSQL.5432"
            there = {int(str(row[0])) for row in cluster.sql("SELECT id FROM users", name, standby)}
            forwarder.is_refusing = False
            await writing
            if not synchronous:  # what it had not got is lost: that is what asynchronous means
                this.uncertain |= set(this.expected) - there
                this.expected = {k: v for k, v in this.expected.items() if k in there}
            await this.settle(server)
            await this.close()
        await this.compare(cluster.url(name, standby))
    finally:
        cluster.stop(standby)
        cluster.stop()
        cluster.start("data")
        cluster.sql("ALTER SYSTEM RESET synchronous_standby_names")
        cluster.sql("SELECT pg_reload_conf()")
        shutil.rmtree(cluster.home / standby)


async def synchronous(this: Round) -> None:
    """Nothing acknowledged is lost."""
    await failed_over(this, synchronous=True)


async def asynchronous(this: Round) -> None:
    """What is lost is noticed."""
    await failed_over(this, synchronous=False)


async def exchanged(this: Round) -> None:
    """Another file is put in the place of SQLite's, or over it, or its log goes."""
    path = this.home / f"{this.rng.randrange(10**9)}.db"
    url = f"sqlite:///{path}"
    server = await this.server(url)
    await this.write(server, 5)
    copy = path.with_suffix(".copy")
    with closing(sqlite3.connect(path)) as source, closing(sqlite3.connect(copy)) as target:
        source.backup(target)
    kept = dict(this.expected)
    if this.rng.random() < 0.5:
        for _ in range(3):
            await this.write(server, 600)  # more than the log keeps
    else:
        await this.write(server, 5)
    how = this.rng.choice(("replace", "log", "checkpoint"))
    if how == "replace":
        copy.replace(path)
        this.expected = kept
        this.uncertain.clear()
    elif how == "log":
        path.with_name(f"{path.name}-wal").unlink()
    else:
        with closing(sqlite3.connect(path)) as tool:
            tool.execute("PRAGMA wal_checkpoint(TRUNCATE)").close()
    await this.settle(server)
    await this.close()
    if how == "replace":
        for end in ("-wal", "-shm"):
            path.with_name(path.name + end).unlink(missing_ok=True)
    if how == "log":  # what was in the log is gone with it; only what comes afterwards counts
        found = await this.serves(url)
        this.uncertain |= set(this.expected) - set(found)
        this.expected = {k: v for k, v in this.expected.items() if k in found}
    await this.compare(url)


EVENTS: dict[str, tuple[Event, int]] = {
    "cut": (cut, 4),
    "second": (second, 4),
    "race": (race, 3),
    "lost answer": (lost_answer, 4),
    "pooler": (pooled, 3),
    "restored": (restored, 3),
    "frozen": (frozen, 3),
    "fail-over, synchronous": (synchronous, 1),
    "fail-over, asynchronous": (asynchronous, 1),
    "file": (exchanged, 4),
}
"""What may happen, and how often beside the others: fail-overs take long."""


async def play(rounds: int, seed: int, only: str = "") -> int:
    """Play the rounds, and tell; give how many went wrong."""
    home = Path(tempfile.mkdtemp(prefix="headwater-soak-"))
    if not os.geteuid():
        os.chown(home, unprivileged(), -1)
    cluster = Cluster(home)
    cluster.run("initdb", "--no-sync", "-A", "trust", "-U", ROLE, "-E", "UTF8")
    cluster.start()
    names = [name for name, (_, weight) in EVENTS.items() for _ in range(weight)]
    if only:
        names = [only]
    played: Counter[str] = Counter()
    wrong: list[str] = []
    acknowledged = refused = 0
    try:
        for number in range(rounds):
            name = names[number % len(names)]
            this = Round(random.Random(f"{seed}-{number}"), cluster, home)
            try:
                async with asyncio.timeout(240):
                    await EVENTS[name][0](this)
            except LookupError as error:
                played[f"{name}: left out, {error}"] += 1
                continue
            except Exception as error:  # noqa: BLE001 told below
                this.wrong.append(f"{type(error).__name__}: {error}")
            finally:
                await this.close()
            played[name] += 1
            acknowledged += this.acknowledged
            refused += this.refused
            for each in this.wrong:
                wrong.append(f"round {number}, {name}: {each}")
                print(f"WRONG: {wrong[-1]}", flush=True)
    finally:
        cluster.stop()
        shutil.rmtree(home)
    for name, count in sorted(played.items()):
        print(f"{count:5} {name}")
    print(f"{acknowledged} writes acknowledged, {refused} refused, {len(wrong)} wrong")
    return len(wrong)


def main() -> int:
    """Play as many rounds as asked for; exit with 1 if one went wrong."""
    parser = argparse.ArgumentParser(prog="python -m tests.soak.ownership")
    parser.add_argument("--rounds", type=int, default=200)
    parser.add_argument("--seed", type=int, default=1)
    parser.add_argument("--only", default="", choices=["", *EVENTS])
    options = parser.parse_args()
    return int(asyncio.run(play(options.rounds, options.seed, options.only)) > 0)


if __name__ == "__main__":
    sys.exit(main())
