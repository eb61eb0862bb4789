"""Opening a database: SQLite or PostgreSQL by URL, set up for one writer, and only one.

``synchronous=FULL`` in SQLite: with WAL, NORMAL keeps the file whole in a power cut but may lose
the last commits, and a node that was told "you are registered" must not be unknown afterwards.
Group commit makes the sync affordable, it is paid once per round and not once per edit.

Not for tables or statements. Sits under ``store``; runs in the database's thread only.
"""

from __future__ import annotations

import logging
import os
import sqlite3
from contextlib import closing
from pathlib import Path
from typing import TYPE_CHECKING, Final

from sqlalchemy import URL, Connection, Engine, create_engine, event, make_url
from sqlalchemy.exc import ArgumentError, DBAPIError, OperationalError
from sqlalchemy.pool import NullPool, StaticPool

from appliance.store.errors import (
    POOLED,
    READ_ONLY,
    DatabaseAway,
    DatabaseDamaged,
    StoreError,
    reason,
)
from appliance.store.sqlitefile import FILE_MODE, SqliteFile
from appliance.store.statements import execute

if TYPE_CHECKING:
    from appliance.store.postgresql import Sessions

log = logging.getLogger(__name__)

BUSY_TIMEOUT_S = 5.0
"""How long a write waits for somebody with the SQLite file open (a backup tool, a curious shell)."""
WAL_LIMIT_BYTES = 64 << 20
"""To this size the WAL file is cut back after a checkpoint; a burst must not keep the disk."""
NO_ANSWER = "the database does not answer"
DAMAGED_STATES: Final = frozenset({"XX001", "XX002"})
"""PostgreSQL's codes for a table and for an index that are not whole."""
LOGIN = "; check the user, the password and pg_hba.conf"
MISSING = "; make the database first (createdb), or correct its name in the URL"
POOR = "; let the role use it: GRANT USAGE, CREATE ON SCHEMA … TO …, and let it own the tables"
FULL = "; let the server take more connections, or give this role its share"
ADVICE: Final = {
    "28": LOGIN,
    "3D000": MISSING,
    "42501": POOR,
    "53300": FULL,
    "authentication failed": LOGIN,
    "no pg_hba.conf entry": LOGIN,
    'database "': MISSING,
    "too many": FULL,
}
"""What helps, by the beginning of PostgreSQL's error code, or by its words: psycopg gives no code
for a connection that was refused."""


class Opened:
    """An engine of one connection, and what keeps other processes away.

    ``file`` is None for PostgreSQL and for SQLite in memory, ``sessions`` for SQLite.
    """

    def __init__(
        self, engine: Engine, file: SqliteFile | None = None, sessions: Sessions | None = None
    ) -> None:
        self.engine = engine
        self.file = file
        self.sessions = sessions

    @property
    def path(self) -> Path | None:
        """The file's path, if there is a file."""
        return None if self.file is None else self.file.path

    @property
    def is_sqlite(self) -> bool:
        """Tell whether this is SQLite, in a file or in memory."""
        return self.engine.dialect.name == "sqlite"

    def check_writable(self, connection: Connection) -> None:
        """Raise DatabaseAway if nothing can be written. PostgreSQL is asked within a transaction."""
        if self.file is not None and (trouble := self.file.trouble()):
            raise DatabaseAway(trouble)
        if self.sessions is None:
            return
        if connection.exec_driver_sql("SHOW transaction_read_only").scalar() == "on":
            raise DatabaseAway(READ_ONLY)

    def close(self) -> None:
        """Close the connection, then let others in."""
        self.engine.dispose()
        if self.file is not None:
            self.file.close()
            self.file = None


def open_engine(
    url: str, *, busy_timeout_s: float = BUSY_TIMEOUT_S, take_over: bool = False
) -> Opened:
    """Open ``sqlite:///path``, ``sqlite://`` (memory) or ``postgresql://…``.

    A missing SQLite file and its directory are made, for the owner's eyes only.
    Raises StoreError with what to do: unknown URL, database in use.
    """
    kind = url.partition("://")[0].partition("+")[0]
    match kind:
        case "sqlite":
            return _open_sqlite(_parsed(url), busy_timeout_s)
        case "postgresql" | "postgres":
            return _open_postgresql(url, take_over=take_over)
        case _:
            raise StoreError(
                f"no database of kind {kind!r}; write sqlite:///… or postgresql://…"
                if "://" in url
                else "the database URL cannot be read; write sqlite:///… or postgresql://…"
            )


def _parsed(url: str) -> URL:
    try:
        return make_url(url)
    except (ArgumentError, ValueError) as error:
        raise StoreError(
            "the database URL cannot be read; write sqlite:///… or postgresql://…"
        ) from error


def _open_sqlite(url: URL, busy_timeout_s: float) -> Opened:
    path = Path(url.database).absolute() if url.database not in {None, "", ":memory:"} else None
    file = None if path is None else SqliteFile(path)
    if file is not None and file.is_linked:
        log.warning("the database has a second name (hard link); never open it by that one")
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
    return Opened(engine, file=file)


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
    execute(connection, "BEGIN IMMEDIATE")


def _open_postgresql(url: str, *, take_over: bool) -> Opened:
    # Here, for few sites have PostgreSQL, and importing its driver takes 40 ms of each start.
    from appliance.store.postgresql import Sessions

    sessions = Sessions(url, take_over=take_over)
    engine = create_engine(
        "postgresql+psycopg://",
        creator=sessions.connect,
        poolclass=NullPool,  # the one connection is kept by who made it
        paramstyle="format",
    )
    return Opened(engine, sessions=sessions)


def connect(opened: Opened) -> Connection:
    """Make the one connection. Raises StoreError with the driver's words."""
    try:
        return opened.engine.connect()
    except DBAPIError as error:
        raise translated(error, opened.file) from error


def translated(error: DBAPIError | StoreError, file: SqliteFile | None = None) -> StoreError:
    """Give what an operator is told about a database that cannot be opened or read."""
    if isinstance(error, StoreError):
        return error
    if file is not None and (trouble := file.trouble()):
        return DatabaseAway(trouble)
    text = reason(error)
    state = getattr(error.orig, "sqlstate", None)
    if not isinstance(error.orig, sqlite3.Error):
        return _translated_postgresql(text, state or "")
    if isinstance(error, OperationalError):
        return DatabaseAway(f"the database cannot be opened: {text}")
    return DatabaseDamaged(f"the database cannot be read: {text}; restore a backup")


def _translated_postgresql(text: str, state: str) -> StoreError:
    if "statement pooling" in text:
        return StoreError(f"{POOLED} ({text})")
    if state in DAMAGED_STATES:
        return DatabaseDamaged(f"the database cannot be read: {text}; restore a backup")
    advice = next((words for sign, words in ADVICE.items() if _fits(sign, state, text)), "")
    if state == "25006":
        return DatabaseAway(READ_ONLY)
    if not state or state.startswith(("08", "57P")):
        return DatabaseAway(f"{NO_ANSWER}: {text}{advice}")
    return DatabaseAway(f"the database cannot be used: {text}{advice}")


def _fits(sign: str, state: str, text: str) -> bool:
    return state.startswith(sign) if state else sign[0].islower() and sign in text


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
