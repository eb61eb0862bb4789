"""The one connection, and whether what is behind it is still this server's.

A connection that was lost is made again, tried for some seconds, and the journal asked before
anything else: is the database what this server left, and was the commit taken that was cut off? A
SQLite file is looked at before and after each transaction.

If the database is not this server's any more, ``lost`` gets the NotOurs, and every later use raises
it. Not for what is written (``store``, ``writer``). Blocking; runs in the database's thread only,
but for ``trouble`` and ``lost``, which others may read.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Iterator
from concurrent.futures import Future
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime

from sqlalchemy import Connection
from sqlalchemy.exc import DBAPIError

from appliance.store import engine, upgrade
from appliance.store.errors import NotOurs, StoreError, reason
from appliance.store.journal import Heads, Journal
from appliance.store.sqlitefile import SqliteFile

log = logging.getLogger(__name__)

RECONNECT_PAUSE_S = 0.2
"""Between two attempts: a server that refuses connections does so at once."""
CUT = "the connection to the database was lost"
IN_DOUBT = (
    "the connection to the database was lost during a commit; whether it was taken is asked as soon "
    "as the database answers"
)


@dataclass(frozen=True, slots=True)
class Patience:
    """How long edits wait for a database that went away, in seconds."""

    reconnect_s: float = 5.0
    """It may just be restarted, or failing over."""
    doubt_s: float = 30.0
    """For a commit of which nobody knows whether it was taken: better late than uncertain."""


class OwnConnection:
    """The connection of one database, for its one thread.

    ``doubt`` are the heads of a commit that is being made: should its answer be lost, the next
    connection tells whether it was taken, and ``journal.heads`` says so.
    """

    def __init__(self, opened: engine.Opened, patience: Patience) -> None:
        self.journal = Journal(opened.engine.dialect)
        self.lost: Future[None] = Future()
        self.trouble: str | None = None
        self.doubt: Heads | None = None
        self.closing = threading.Event()
        self._opened = opened
        self._patience = patience
        self._connection: Connection | None = None
        self._was_connected = False
        self._away_since: float | None = None
        self._floor: Heads = {}

    def get(self) -> Connection:
        """Give the connection; one that was lost is made again, which may take some seconds.

        Raises NotOurs if the database is not what this server left, and StoreError if it is away.
        """
        if self.lost.done():
            raise NotOurs(str(self.lost.exception()))
        if self._connection is None:
            self._connection = self._connect()
        elif self._opened.file is not None:
            self._look_at(self._opened.file)
        return self._connection

    @contextmanager
    def transaction(self, connection: Connection) -> Iterator[None]:
        """Begin and commit; see that the file, if there is one, was and is what we write to."""
        file = self._opened.file
        with self._disowning():
            with connection.begin():
                yield
            if file is None:
                return
            if file.note_written() and _is_all_in_the_file(connection):
                self._floor = dict(self.journal.heads)
                file.note_written()
            file.check_place()

    @contextmanager
    def asking(self) -> Iterator[Connection]:
        """Give the connection within a transaction; one that breaks is put away."""
        connection = self.get()
        try:
            with self.transaction(connection):
                yield connection
        except DBAPIError as error:
            if error.connection_invalidated:
                self.put_away(error)
            raise

    def check(self) -> None:
        """See that the database is this server's and can be written to.

        A connection that turns out to be lost is made again first: that alone is no failure.
        """
        try:
            self._check()
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            self._check()

    def _check(self) -> None:
        heads: Heads = {}
        with self.asking() as connection:
            self._opened.check_writable(connection)
            if self.journal.heads:
                self.journal.check(connection)
            if self.trouble is not None:
                # Whether it can be written again: a commit like any other, of nothing.
                heads = self.journal.advance(
                    connection, tuple(self.journal.heads), datetime.now(UTC)
                )
        if heads:
            self.journal.heads |= heads
            self.trouble = None

    def put_away(self, error: DBAPIError) -> None:
        """Close the lost connection, so that the next use makes one."""
        if self._away_since is None:
            log.warning(
                "lost the connection to the database; connecting again",
                extra={"reason": reason(error)},
            )
            self._away_since = time.monotonic()
        self.trouble = CUT if self.doubt is None else IN_DOUBT
        connection, self._connection = self._connection, None
        if connection is not None:
            with suppress(Exception):  # it is gone
                connection.close()

    def close(self) -> None:
        """Close the connection, if there is one."""
        connection, self._connection = self._connection, None
        if connection is not None:
            connection.close()

    def _connect(self) -> Connection:
        while True:
            try:
                connection = self._connect_once()
            except NotOurs:
                raise
            except (StoreError, DBAPIError) as error:
                if not self._may_wait():
                    raise engine.translated(error, self._opened.file) from error
            else:
                if self._away_since is not None:
                    log.info("connected to the database again")
                self._away_since, self._was_connected = None, True
                return connection

    def _connect_once(self) -> Connection:
        connection = engine.connect(self._opened)
        try:
            self._check_new(connection)
        except BaseException:
            connection.close()
            raise
        return connection

    def _check_new(self, connection: Connection) -> None:
        if self.journal.heads:
            with self._disowning(), connection.begin():
                heads = self.journal.check(connection, commit=self.doubt)
            if heads != self.journal.heads:
                # A commit that was cut off was taken. The next one makes it last: it may have been
                # cut off while PostgreSQL waited for its standby.
                with self._disowning(), connection.begin():
                    heads = self.journal.claim(connection, datetime.now(UTC))
                self.journal.heads = heads
        sessions = self._opened.sessions
        if sessions is not None and sessions.refusal is not None:
            raise sessions.refusal

    def _may_wait(self) -> bool:
        """Tell whether to try again to connect, after a moment that is spent here."""
        if not self._was_connected:
            return False
        self._away_since = self._away_since or time.monotonic()
        patience = self._patience.reconnect_s if self.doubt is None else self._patience.doubt_s
        if time.monotonic() - self._away_since > patience:
            return False
        return not self.closing.wait(RECONNECT_PAUSE_S)

    def _look_at(self, file: SqliteFile) -> None:
        """Raise NotOurs if the file that stands in its place is not what this server left."""
        if not file.is_written_by_others():
            return
        with self._disowning():
            file.check_place()
            found = file.read_journal()
            for tailnet_id, version in self._floor.items():
                if found.get(tailnet_id, 0) < version:
                    raise NotOurs(f"{file.path} was written over while it was in use")
            file.note_written()

    @contextmanager
    def _disowning(self) -> Iterator[None]:
        """Keep NotOurs for all who come later."""
        try:
            yield
        except NotOurs as error:
            if not self.lost.done():
                self.trouble = str(error)
                self.lost.set_exception(error)
            raise


def _is_all_in_the_file(connection: Connection) -> bool:
    """Tell whether nothing of the write-ahead log is missing from SQLite's main file."""
    driver = upgrade.driver_connection(connection)
    _, logged, moved = driver.execute("PRAGMA wal_checkpoint(PASSIVE)").fetchone()
    return bool(logged == moved)
