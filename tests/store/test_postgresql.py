"""PostgreSQL as it is found: URLs, poolers, read-only servers, encodings, roles; a sentence for each."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import psycopg
import pytest

from appliance.records import TailnetID
from appliance.store.errors import DatabaseDamaged, DatabaseInUse, NotOurs, StoreError
from appliance.store.postgresql import parameters
from appliance.store.store import Database
from appliance.tailnet.snapshot import Rows, Sequences
from tests.store import making
from tests.store.conftest import unprivileged
from tests.support.pooler import BINARY, Pooler


async def start(url: str) -> tuple[Database, Sequences]:
    """Do what a server does at its start; the database is closed again if that fails."""
    database = Database.open(url)
    try:
        await database.migrate()
        snapshots, ids = await database.load()
        if not snapshots:
            await database.create_tailnet(ids, name="one", domain="one", created_at=making.NOW)
    except BaseException:
        await database.close()
        raise
    return database, ids


async def refusal(url: str) -> str:
    """Give the sentence with which a start is refused."""
    with pytest.raises(StoreError) as raised:
        await start(url)
    assert not isinstance(raised.value, DatabaseDamaged)
    assert "restore a backup" not in str(raised.value)
    assert "[SQL" not in str(raised.value)
    return str(raised.value)


@contextmanager
def pooled(url: str, mode: str, *, size: int = 4) -> Iterator[str]:
    """Put PgBouncer before the database."""
    if BINARY is None:
        pytest.skip("NO PGBOUNCER: apt-get install pgbouncer")
    found = parameters(url)
    user = None if os.geteuid() else unprivileged()
    with Pooler(mode, found["host"], found["dbname"], size=size, user=user) as pooler:
        yield pooler.url


@pytest.mark.parametrize("mode", ["transaction", "statement"])
@pytest.mark.parametrize("size", [1, 4])
async def test_poolers_that_change_the_session_are_refused(
    postgres_url: str, mode: str, size: int
) -> None:
    """S3: two servers could hold one lock, and neither would know."""
    with pooled(postgres_url, mode, size=size) as url:
        assert "pool_mode=session" in await refusal(url)


async def test_a_pooler_in_session_mode_is_fine(postgres_url: str) -> None:
    """S3: one server, and the second is refused."""
    with pooled(postgres_url, "session") as url:
        database, ids = await start(url)
        try:
            for _ in range(20):  # more than psycopg waits for before it prepares a statement
                await database.write(TailnetID(1), [Rows(puts=(making.user(ids),))])
            assert "another headwater serves" in await refusal(url)
        finally:
            await database.close()


async def test_a_session_pool_of_one_does_not_hold_up_the_start(postgres_url: str) -> None:
    """S3: looking for a pooler takes a second session; there may be no place for one."""
    with pooled(postgres_url, "session", size=1) as url:
        database, _ = await start(url)
        await database.close()


async def test_a_pooler_that_changes_its_mode_is_noticed(postgres_url: str) -> None:
    """S3: the fence holds where the check at start saw nothing."""
    with pooled(postgres_url, "session") as session:
        database, ids = await start(session)
        try:
            await database._call(lambda: unlock(database))
            other, their_ids = await start(postgres_url)
            await other.write(TailnetID(1), [Rows(puts=(making.user(their_ids),))])
            await other.close()
            with pytest.raises(NotOurs):
                await database.write(TailnetID(1), [Rows(puts=(making.user(ids),))])
        finally:
            await database.close()


def unlock(database: Database) -> None:
    with database._own.get().begin() as transaction:
        transaction.connection.exec_driver_sql("SELECT pg_advisory_unlock_all()")


def run(url: str, *statements: str) -> None:
    with psycopg.connect(url, autocommit=True) as connection:
        for statement in statements:
            connection.execute(statement.encode())


async def test_a_read_only_server_is_refused(postgres_url: str) -> None:
    """S11: at the start, in words; and "restore a backup" would be the worst advice."""
    name = parameters(postgres_url)["dbname"]
    run(postgres_url, f"ALTER DATABASE {name} SET default_transaction_read_only = on")
    assert "is read-only" in await refusal(postgres_url)


async def test_a_server_that_became_read_only_is_not_well(postgres_url: str) -> None:
    """S11: health knows it before anybody has tried to write, and when it is over."""
    database, ids = await start(postgres_url)
    try:
        await database._call(lambda: set_read_only(database, "on"))
        with pytest.raises(StoreError, match="is read-only"):
            await database.ping()
        with pytest.raises(Exception, match="read-only transaction"):
            await database.write(TailnetID(1), [Rows(puts=(making.user(ids),))])
        await database._call(lambda: set_read_only(database, "off"))
        await database.ping()
    finally:
        await database.close()


def set_read_only(database: Database, value: str) -> None:
    session = database._own.get().connection.driver_connection
    assert isinstance(session, psycopg.Connection)
    session.rollback()
    session.execute(f"SET default_transaction_read_only = {value}".encode())
    session.commit()


@pytest.fixture
def encoded(postgres: str) -> Callable[[str], str]:
    """Make databases of an encoding."""

    def make(encoding: str) -> str:
        name = f"test_{os.getpid()}_{encoding.lower()}"
        run(
            postgres.format("postgres"),
            f"DROP DATABASE IF EXISTS {name}",
            f"CREATE DATABASE {name} ENCODING '{encoding}' LOCALE 'C' TEMPLATE template0",
        )
        return postgres.format(name)

    return make


async def test_an_encoding_that_lacks_letters_is_refused(encoded: Callable[[str], str]) -> None:
    """S11: else a user's name that it cannot hold is a 503 for ever."""
    assert "has the encoding LATIN1" in await refusal(encoded("LATIN1"))


async def test_names_survive_a_server_that_keeps_bytes(encoded: Callable[[str], str]) -> None:
    """S11: SQL_ASCII held before."""
    url = encoded("SQL_ASCII")
    database, ids = await start(url)
    user = making.user(ids)
    await database.write(TailnetID(1), [Rows(puts=(user,))])
    await database.close()
    database, _ = await start(url)
    (snapshot,), _ = await database.load()
    await database.close()
    assert list(snapshot.users.values()) == [user]


async def test_a_role_that_may_make_no_tables_is_told_so(postgres_url: str) -> None:
    """S11: was an ExceptionGroup with SQL."""
    run(
        postgres_url,
        "DROP ROLE IF EXISTS poor",
        "CREATE ROLE poor LOGIN",
        "REVOKE CREATE ON SCHEMA public FROM PUBLIC",
    )
    url = postgres_url.replace("headwater@", "poor@")
    told = await refusal(url)
    assert "permission denied for schema public" in told
    assert "GRANT USAGE, CREATE ON SCHEMA" in told
    assert "search_path" in await refusal(f"{url}&options=-csearch_path%3Dnowhere")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        (lambda url: f"{url}&nosuch=1", 'invalid connection option "nosuch"'),
        (lambda url: f"{url}&port=1", "the database does not answer: "),
        (lambda url: re.sub(r"/test_\d+_\d+", "/nowhere", url), "make the database first"),
        (lambda _: "postgresql://u@[::1/db", "the database URL cannot be read"),
        (lambda _: "postgresql://u@127.0.0.1:port/db", 'invalid integer value "port"'),
        (lambda url: f"{url}&sslmode=perhaps", "sslmode"),
    ],
)
async def test_mistakes_in_the_url_are_sentences(
    postgres_url: str, change: Callable[[str], str], told: str
) -> None:
    """S11: a typo is no reason to restore a backup."""
    assert told in await refusal(change(postgres_url))


@pytest.mark.parametrize(
    ("url", "host", "port"),
    [
        ("postgresql://u@a:1,b:2/d?target_session_attrs=read-write", "a,b", "1,2"),
        ("postgresql://u@/d?host=a:1&host=b:2", "a,b", "1,2"),
        ("postgresql://u@/d?host=a,b&port=1,2", "a,b", "1,2"),
        ("postgresql://u@[2001:db8::1]:5,c/d", "2001:db8::1,c", "5,"),
        ("postgresql://u@%2Frun%2Fpg/d", "/run/pg", None),
        ("postgresql:///d?host=/run/pg", "/run/pg", None),
    ],
)
def test_urls_are_read_as_libpq_and_sqlalchemy_do(url: str, host: str, port: str | None) -> None:
    """S11: several hosts were a traceback."""
    found = parameters(url)
    assert (found["host"], found.get("port"), found["dbname"]) == (host, port, "d")


def test_what_the_url_says_goes_before_what_we_say() -> None:
    found = parameters("postgresql://us%40er:p%2Fw@h/d?application_name=mine&connect_timeout=3")
    assert found["user"] == "us@er"
    assert found["password"] == "p/w"
    assert found["application_name"] == "mine"
    assert found["connect_timeout"] == "3"
    assert found["tcp_user_timeout"]


async def test_the_first_host_that_can_be_written_to_is_taken(postgres_url: str) -> None:
    """S11: libpq's own form for a fail-over."""
    found = parameters(postgres_url)
    url = (
        f"postgresql://headwater@/{found['dbname']}?host=/nowhere,{found['host']}"
        "&target_session_attrs=read-write"
    )
    database, _ = await start(url)
    await database.ping()
    await database.close()


async def test_two_schemas_of_one_database_are_two_databases(postgres_url: str) -> None:
    """S11: they shared one lock."""
    run(postgres_url, "CREATE SCHEMA other")
    first, _ = await start(postgres_url)
    try:
        second, _ = await start(f"{postgres_url}&options=-csearch_path%3Dother")
        try:
            with pytest.raises(DatabaseInUse):
                await start(f"{postgres_url}&options=-csearch_path%3Dother")
            await first.ping()
            await second.ping()
        finally:
            await second.close()
    finally:
        await first.close()


async def test_dead_sessions_end_soon_on_both_sides(postgres_url: str) -> None:
    """S6: PostgreSQL's own default is two hours."""
    database, _ = await start(postgres_url)

    def show(name: str) -> str:
        connection = database._own.get()
        with connection.begin():
            text = f"SELECT setting FROM pg_settings WHERE name = '{name}'"  # noqa: S608 ours
            return str(connection.exec_driver_sql(text).scalar())

    try:
        # On a socket of the machine the rest reads as 0: there is nobody to lose.
        assert await database._call(lambda: show("statement_timeout")) == "30000"
        assert await database._call(lambda: show("TimeZone")) == "UTC"
    finally:
        await database.close()
