"""A session of PostgreSQL's: from the URL to a connection that may be written to.

The URL is read as libpq reads it, several hosts included, and as SQLAlchemy does (``host=a:1`` in
the query). A connection is refused in a sentence if what is behind it cannot keep our promises: a
pooler that changes the session between transactions, a read-only server, another encoding.

The advisory lock keeps a second server from starting by mistake. It is a courtesy: what keeps two
servers from writing over each other is the journal (``journal``). Blocking.
"""

from __future__ import annotations

import select
import time
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final
from urllib.parse import parse_qsl, unquote, urlsplit

import psycopg
from psycopg import pq
from psycopg.conninfo import make_conninfo

from appliance.store.errors import POOLED, READ_ONLY, DatabaseAway, DatabaseInUse, StoreError

CONNECT_TIMEOUT_S = 10
"""How long to wait for a PostgreSQL server."""
STATEMENT_TIMEOUT_S = 30
"""A PostgreSQL server that takes longer for one statement is not well: fail the edit."""
KEEPALIVE_IDLE_S, KEEPALIVE_INTERVAL_S, KEEPALIVE_COUNT = 10, 5, 3
"""A session whose other end is gone ends after 25 s: on our side so that we connect again, on the
server's so that it lets go of the lock (its own default is two hours)."""
TCP_USER_TIMEOUT_MS = 25_000
"""The same for data that nobody acknowledges."""
ADVISORY_LOCK = 0x68656164
"""PostgreSQL's lock that stands for "a headwater serves from this database" ("head" in ASCII). In
another schema than "public" it is this number and the schema's hash."""
POOLER_PATIENCE_S = 2.0
"""How long a second session may take; a pool in session mode may have no place for one."""
TAKE_OVER_S = 10.0
"""How long an ended session may take to let go of the lock."""

DEFAULTS: Final = {
    "connect_timeout": str(CONNECT_TIMEOUT_S),
    "application_name": "headwater",
    "client_encoding": "utf8",
    "keepalives_idle": str(KEEPALIVE_IDLE_S),
    "keepalives_interval": str(KEEPALIVE_INTERVAL_S),
    "keepalives_count": str(KEEPALIVE_COUNT),
    "tcp_user_timeout": str(TCP_USER_TIMEOUT_MS),
}
SESSION: Final = {
    "statement_timeout": f"{STATEMENT_TIMEOUT_S}s",
    "TimeZone": "UTC",
    "tcp_keepalives_idle": str(KEEPALIVE_IDLE_S),
    "tcp_keepalives_interval": str(KEEPALIVE_INTERVAL_S),
    "tcp_keepalives_count": str(KEEPALIVE_COUNT),
    "tcp_user_timeout": str(TCP_USER_TIMEOUT_MS),
}
Session = psycopg.Connection[Any]


def parameters(url: str) -> dict[str, str]:
    """Read a URL into libpq's parameters. Raises StoreError, naming what it cannot read."""
    try:
        parts = urlsplit(url)
    except ValueError as error:
        raise StoreError(f"the database URL cannot be read: {error}") from error
    credentials, _, places = parts.netloc.rpartition("@")
    user, _, password = credentials.partition(":")
    hosts = [_host_and_port(place) for place in places.split(",")] if places else []
    found: dict[str, str] = {}
    for name, value in parse_qsl(parts.query, keep_blank_values=True):
        if name == "host":
            hosts += [_host_and_port(place) for place in value.split(",")]
        else:
            found[name] = value
    if hosts:
        found["host"] = ",".join(host for host, _ in hosts)
        if any(port for _, port in hosts):
            found["port"] = ",".join(port for _, port in hosts)
    database = unquote(parts.path.removeprefix("/"))
    for name, value in (("user", user), ("password", password)):
        if value:
            found[name] = unquote(value)
    if database:
        found["dbname"] = database
    found = DEFAULTS | found
    try:
        make_conninfo("", **found)
    except psycopg.ProgrammingError as error:
        raise StoreError(
            f"the database URL: {error}; behind '?' stand libpq's connection parameters"
        ) from error
    return found


def _host_and_port(place: str) -> tuple[str, str]:
    if place.startswith("/"):
        return place, ""
    if place.startswith("["):
        host, _, port = place[1:].partition("]")
        return host, port.removeprefix(":")
    host, _, port = place.partition(":")
    return unquote(host), port


@dataclass(frozen=True, slots=True)
class Holder:
    """The session that has the lock."""

    pid: int
    started: str
    address: str
    age: timedelta | None

    def __str__(self) -> str:
        told = f"session with pid {self.pid}"
        if self.address:
            told += f", from {self.address}"
        if self.age is not None:
            told += f", connected for {timedelta(seconds=int(self.age.total_seconds()))}"
        return told


class Sessions:
    """Makes sessions, one after the other; ``refusal`` says why the newest may not be used yet.

    The first session is refused at once if the lock is taken. A later one may ask the journal who
    wrote last: the holder may be our own session of before the cut, which the server believes alive.
    """

    def __init__(self, url: str, *, take_over: bool = False) -> None:
        self.refusal: DatabaseInUse | None = None
        self._parameters = parameters(url)
        self._take_over = take_over
        self._mine: tuple[int, str] | None = None

    def connect(self) -> Session:
        """Connect and make the session ready. Raises psycopg's errors and StoreError."""
        session = psycopg.connect(**self._parameters)  # type: ignore[arg-type] # libpq's names
        try:
            self._set_up(session)
        except BaseException:
            session.close()
            raise
        return session

    def _set_up(self, session: Session) -> None:
        pid, started = _identity(session)
        if self._mine is None:
            self._refuse_pooler(session, pid)
        elif _identity(session)[0] != pid:
            raise StoreError(POOLED)
        _refuse_unfit(session)
        settings = ", ".join(f"set_config('{k}', '{v}', false)" for k, v in SESSION.items())
        session.execute(f"SELECT {settings}".encode())
        session.commit()
        self.refusal = self._take_lock(session)
        if self.refusal is not None and self._mine is None:
            raise self.refusal
        self._mine = (pid, started)

    def _refuse_pooler(self, session: Session, pid: int) -> None:
        """See whether two sessions of ours share one of the server's."""
        try:
            other = psycopg.connect(**self._parameters)  # type: ignore[arg-type] # as above
        except psycopg.OperationalError:
            return  # no place for a second one, so it cannot share ours
        try:
            seen = _pid_soon(other)
            if seen == pid or (seen is not None and _identity(session)[0] != pid):
                raise StoreError(POOLED)
        finally:
            other.close()

    def _take_lock(self, session: Session) -> DatabaseInUse | None:
        """Take the lock; else give what to tell about the one who has it."""
        if _try_lock(session):
            return None
        holder = _holder(session)
        is_mine = holder is not None and (holder.pid, holder.started) == self._mine
        if holder is not None and (is_mine or self._take_over) and _end(session, holder):
            return None
        return DatabaseInUse(
            "another headwater serves from this PostgreSQL database"
            f"{'' if holder is None else f' ({holder})'}; stop it first, or give this one a "
            "database of its own; if that one is dead and only its session is left, "
            "'headwater serve --take-over' ends the session"
        )


def _identity(session: Session) -> tuple[int, str]:
    """Tell which of the server's sessions this is, in a transaction of its own."""
    row = session.execute(
        "SELECT pg_backend_pid(), (SELECT backend_start::text FROM pg_stat_activity "
        "WHERE pid = pg_backend_pid())"
    ).fetchone()
    session.commit()
    assert row is not None  # noqa: S101 a SELECT without FROM has one row
    return row[0], row[1] or ""


def _pid_soon(session: Session) -> int | None:
    """Begin a transaction and tell its pid; None if that takes too long."""
    raw, deadline = session.pgconn, time.monotonic() + POOLER_PATIENCE_S
    raw.send_query(b"BEGIN; SELECT pg_backend_pid()")
    found = None
    while True:
        while raw.is_busy():
            left = deadline - time.monotonic()
            if left <= 0 or not select.select([session.fileno()], [], [], left)[0]:
                return None
            raw.consume_input()
        result = raw.get_result()
        if result is None:
            return found
        if result.status == pq.ExecStatus.TUPLES_OK:
            value = result.get_value(0, 0)
            found = None if value is None else int(value)


def _refuse_unfit(session: Session) -> None:
    """Raise StoreError for a server that cannot keep what we write, or not as we write it."""
    row = session.execute(
        "SELECT current_setting('transaction_read_only'), current_setting('server_encoding'), "
        "current_schema(), current_setting('search_path')"
    ).fetchone()
    session.commit()
    assert row is not None  # noqa: S101 as above
    read_only, encoding, schema, path = row
    if read_only == "on":
        raise DatabaseAway(READ_ONLY)
    if encoding not in {"UTF8", "SQL_ASCII"}:  # SQL_ASCII keeps bytes as they come
        raise StoreError(
            f"this PostgreSQL database has the encoding {encoding}, which lacks letters that names "
            "may have; make one with: CREATE DATABASE … ENCODING 'UTF8' TEMPLATE template0"
        )
    if schema is None:
        raise StoreError(
            f"none of the schemas of search_path ({path}) is there for this role; "
            "make one, or let the role use one (GRANT USAGE, CREATE ON SCHEMA …)"
        )


def _lock_key(session: Session) -> str:
    row = session.execute("SELECT current_schema(), hashtext(current_schema())").fetchone()
    assert row is not None  # noqa: S101 as above
    return str(ADVISORY_LOCK) if row[0] == "public" else f"{ADVISORY_LOCK}, {row[1]}"


def _try_lock(session: Session) -> bool:
    key = _lock_key(session)
    row = session.execute(f"SELECT pg_try_advisory_lock({key})".encode()).fetchone()
    session.commit()
    return bool(row and row[0])


def _holder(session: Session) -> Holder | None:
    first, _, second = _lock_key(session).partition(", ")
    key = (0, int(first), 1) if not second else (int(first), int(second) & 0xFFFFFFFF, 2)
    row = session.execute(
        "SELECT l.pid, a.backend_start::text, host(a.client_addr), a.client_port, "
        "now() - a.backend_start FROM pg_locks l LEFT JOIN pg_stat_activity a ON a.pid = l.pid "
        "WHERE l.locktype = 'advisory' AND l.granted AND l.database = "
        "(SELECT oid FROM pg_database WHERE datname = current_database()) "
        "AND l.classid = %s AND l.objid = %s AND l.objsubid = %s",
        key,
    ).fetchone()
    session.commit()
    if row is None:
        return None
    pid, started, address, port, age = row
    place = f"{address}:{port}" if address else "a socket of that machine" if port == -1 else ""
    return Holder(pid, started or "", place, age)


def _end(session: Session, holder: Holder) -> bool:
    """End the holder's session, and take the lock that it lets go of."""
    try:
        session.execute("SELECT pg_terminate_backend(%s)", (holder.pid,))
        session.commit()
    except psycopg.errors.InsufficientPrivilege:
        session.rollback()
        return False
    deadline = time.monotonic() + TAKE_OVER_S
    while not _try_lock(session):
        if time.monotonic() >= deadline:
            return False
        time.sleep(0.05)
    return True
