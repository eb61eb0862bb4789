"""Opening a database: SQLite or PostgreSQL by URL, set up for one writer, and only one.

``synchronous=FULL`` in SQLite: with WAL, NORMAL keeps the file whole in a power cut but may lose
the last commits, and a node that was told "you are registered" must not be unknown afterwards.
Group commit makes the sync affordable, it is paid once per round and not once per edit.

Not for tables or statements. Sits under ``store``; runs in the database's thread only.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.pool import QueuePool, StaticPool

from appliance.store.errors import DatabaseDamaged, DatabaseInUse, StoreError

BUSY_TIMEOUT_S = 5.0
"""How long a write waits for somebody with the SQLite file open (a backup tool, a curious shell)."""
WAL_LIMIT_BYTES = 64 << 20
"""To this size the WAL file is cut back after a checkpoint; a burst must not keep the disk."""
CONNECT_TIMEOUT_S = 10
"""How long to wait for a PostgreSQL server."""
STATEMENT_TIMEOUT_S = 30
"""A PostgreSQL server that takes longer for one statement is not well: fail the edit."""
ADVISORY_LOCK = 0x68656164
"""PostgreSQL's lock that stands for "a headwater serves from this database" ("head" in ASCII)."""

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700


class Opened:
    """An engine of one connection, and the lock that keeps other processes away.

    ``path`` is None for PostgreSQL and for SQLite in memory.
    """

    def __init__(self, engine: Engine, path: Path | None, lock: int | None) -> None:
        self.engine = engine
        self.path = path
        self._lock = lock

    @property
    def is_sqlite(self) -> bool:
        """Tell whether this is SQLite, in a file or in memory."""
        return self.engine.dialect.name == "sqlite"

    def close(self) -> None:
        """Close the connection, then let others in."""
        self.engine.dispose()
        if self._lock is not None:
            os.close(self._lock)
            self._lock = None


def open_engine(url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S) -> Opened:
    """Open ``sqlite:///path``, ``sqlite://`` (memory) or ``postgresql://…``.

    A missing SQLite file and its directory are made, for the owner's eyes only.
    Raises StoreError with what to do: unknown URL, database in use.
    """
    try:
        parsed = make_url(url)
    except ArgumentError as error:
        raise StoreError(
            "the database URL cannot be read; write sqlite:///… or postgresql://…"
        ) from error
    match parsed.get_backend_name():
        case "sqlite":
            return _open_sqlite(parsed, busy_timeout_s)
        case "postgresql":
            return _open_postgresql(parsed)
        case other:
            raise StoreError(f"no database of kind {other!r}; write sqlite:///… or postgresql://…")


def _open_sqlite(url: URL, busy_timeout_s: float) -> Opened:
    path = Path(url.database).absolute() if url.database not in {None, "", ":memory:"} else None
    lock = None
    if path is not None:
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        lock = _take_lock(path)
        # Made here for its mode; SQLite gives the WAL files the mode of the database.
        os.close(os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE))
    engine = create_engine(
        URL.create("sqlite", database=None if path is None else str(path)),
        poolclass=StaticPool,
        # isolation_level None: the driver starts no transactions of its own accord, we do (below).
        connect_args={
            "check_same_thread": False,
            "isolation_level": None,
            "timeout": busy_timeout_s,
        },
    )
    event.listen(engine, "connect", _set_up_sqlite)
    event.listen(engine, "begin", _begin_sqlite)
    return Opened(engine, path, lock)


def _set_up_sqlite(connection: sqlite3.Connection, _record: object) -> None:
    for pragma in (
        "journal_mode = WAL",
        "synchronous = FULL",
        "foreign_keys = ON",
        f"journal_size_limit = {WAL_LIMIT_BYTES}",
        "trusted_schema = OFF",
    ):
        connection.execute(f"PRAGMA {pragma}").close()


def _begin_sqlite(connection: Connection) -> None:
    # IMMEDIATE: wait for the write lock here, where nothing was done yet, not in the middle.
    connection.exec_driver_sql("BEGIN IMMEDIATE")


def _take_lock(path: Path) -> int:
    lock_path = path.with_name(path.name + ".lock")
    lock = os.open(lock_path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        holder = os.pread(lock, 32, 0).decode("ascii", "replace").strip() or "unknown"
        os.close(lock)
        raise DatabaseInUse(
            f"another process (pid {holder}) has {path} open; stop it first, "
            "or let this one use another database"
        ) from error
    os.ftruncate(lock, 0)
    os.pwrite(lock, f"{os.getpid()}\n".encode(), 0)
    return lock


def _open_postgresql(url: URL) -> Opened:
    engine = create_engine(
        url.set(drivername="postgresql+psycopg"),
        poolclass=QueuePool,
        pool_size=1,
        max_overflow=0,
        paramstyle="format",
        connect_args={
            "connect_timeout": CONNECT_TIMEOUT_S,
            "application_name": "headwater",
            "client_encoding": "utf8",
            "tcp_user_timeout": STATEMENT_TIMEOUT_S * 1000,
        },
    )
    event.listen(engine, "connect", _set_up_postgresql)
    return Opened(engine, None, None)


def _set_up_postgresql(connection: Any, _record: object) -> None:
    """Take the lock on the session, which ends with it: also after a lost connection."""
    with connection.cursor() as cursor:
        cursor.execute(f"SET statement_timeout = '{STATEMENT_TIMEOUT_S}s'")
        cursor.execute("SET TimeZone = 'UTC'")
        cursor.execute(f"SELECT pg_try_advisory_lock({ADVISORY_LOCK})")
        (taken,) = cursor.fetchone()
    connection.commit()
    if not taken:
        raise DatabaseInUse(
            "another headwater serves from this PostgreSQL database; stop it first, "
            "or give this one a database of its own"
        )


def connect(opened: Opened) -> Connection:
    """Make the one connection. Raises StoreError with the driver's words."""
    try:
        return opened.engine.connect()
    except DBAPIError as error:
        raise translated(error) from error


def translated(error: DBAPIError) -> StoreError:
    """Give what an operator is told about a database that cannot be opened or read."""
    if isinstance(error, OperationalError):
        return StoreError(f"the database cannot be opened: {reason(error)}")
    return DatabaseDamaged(f"the database cannot be read: {reason(error)}; restore a backup")


def back_up(connection: sqlite3.Connection, target: Path) -> None:
    """Copy a live SQLite database, and check the copy. Raises DatabaseDamaged if it is not whole.

    The copy appears under its name only when it is complete and synced.
    """
    part = target.with_name(target.name + ".part")
    part.unlink(missing_ok=True)
    os.close(os.open(part, os.O_RDWR | os.O_CREAT | os.O_EXCL | os.O_CLOEXEC, FILE_MODE))
    with closing(sqlite3.connect(part)) as copy:
        connection.backup(copy)
        # One file without companions; the journal mode was copied along.
        copy.execute("PRAGMA journal_mode = DELETE").close()
        (verdict,) = copy.execute("PRAGMA integrity_check").fetchone()
        if verdict != "ok" or _row_counts(copy) != _row_counts(connection):
            raise DatabaseDamaged(f"the copy of the database is not whole: {verdict}")
    with part.open("rb") as file:
        os.fsync(file.fileno())
    part.replace(target)


def _row_counts(connection: sqlite3.Connection) -> dict[str, int]:
    tables = connection.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
    return {
        name: connection.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0]  # noqa: S608 names from the file itself
        for (name,) in tables
    }


def reason(error: Exception) -> str:
    """Give the driver's own words for a failure, without the statement and its parameters."""
    if isinstance(error, DBAPIError):
        return str(error.orig).strip()
    return str(error)
