"""The database: read once at start, written at each commit, by one thread of its own.

All edits that wait are written in one transaction. If that fails, each batch is tried again in a
transaction of its own, so that only the one at fault fails; of a batch that fails nothing stays.
Last-seen times are gathered and written every half minute, and at close.

Each commit advances the version of its tailnets in the journal, or is not made (``journal``). A
connection that was lost is made again, and the journal asked before anything else: whether the
commit that was cut off was taken, and whether the database is still what this server left. If it is
not, ``NotOurs`` is raised by everything from then on, and by ``guard``, which ends the server.

Not for SQL texts (``writer``), opening (``engine``) or migrations (``upgrade``). No request handler
queries it. Sits below ``live``.
"""

from __future__ import annotations

import asyncio
import logging
import queue
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import partial
from pathlib import Path
from typing import Final, Generic, Self, TypeVar, cast

from sqlalchemy.exc import DBAPIError

from appliance.records import AuditEntry, NodeID, Tailnet, TailnetID
from appliance.store import auditlog, engine, loading, schema, upgrade
from appliance.store.errors import (
    DatabaseAway,
    DatabaseClosed,
    DatabaseMissing,
    NotOurs,
    StoreError,
    reason,
)
from appliance.store.owned import OwnConnection, Patience
from appliance.store.rows import Row, audit_entry_to_row, last_seen_to_row
from appliance.store.writer import Changes, Writer
from appliance.tailnet.kinds import KINDS
from appliance.tailnet.snapshot import Rows, Sequences, Snapshot

log = logging.getLogger(__name__)

LAST_SEEN_PERIOD_S = 30.0
"""How often last-seen times are written: what a power cut may lose of them."""
GUARD_PERIOD_S = 10.0
"""How often a server that nobody asks for anything asks whether the database is still its own."""
FORGET_PERIOD_S = 3600.0
"""How often the audit log is looked through for what is too old."""
MOST_NOTED = 10_000
"""Entries that wait for a database that is away; of more the newest are kept."""
MISSING: Final = (
    "the database is empty, and the server's key (noise.key) is older: the nodes that know this "
    "server would be strangers to it. Restore the database from a backup, or correct database_url; "
    "to begin anew, move noise.key away"
)
PING_S = 1.0
"""A health check must answer soon, also when the database does not."""
PATIENCE: Final = Patience()
MOST_ATTEMPTS = 5
"""How often one commit is tried again because its connection was lost."""

T = TypeVar("T")


@dataclass(slots=True)
class _Write:
    tailnet_id: TailnetID
    batch: Sequence[Rows]
    done: Future[None]


@dataclass(slots=True)
class _Call(Generic[T]):
    work: Callable[[], T]
    done: Future[T]


class _Stop:
    """Tell the thread to finish."""


_Job = _Write | _Call[object] | _Stop
_STOP: Final = _Stop()


class Database:
    """One database, open for this process alone. Fulfils ``live.Store``.

    Order of use: ``open``, ``migrate``, ``load``, then writes, then ``close``. Safe to call from
    the event loop's thread; everything that waits is async.
    """

    def __init__(
        self, opened: engine.Opened, *, last_seen_period_s: float, patience: Patience
    ) -> None:
        self._opened = opened
        self._period_s = last_seen_period_s
        self._writer = Writer(opened.engine.dialect)
        self._own = OwnConnection(opened, patience)
        self._jobs: queue.SimpleQueue[_Job] = queue.SimpleQueue()
        self._seen: dict[NodeID, datetime] = {}
        self._seen_lock = threading.Lock()
        self._audit: list[Row] = []
        self._forget_at = 0.0
        self.retention = auditlog.Retention()
        self._counters: dict[str, int] = {}
        self._is_closed = False
        self._is_unwell = False
        self.is_new = False
        self._thread = threading.Thread(target=self._run, name="database", daemon=True)
        self._thread.start()

    @classmethod
    def open(
        cls,
        url: str,
        *,
        busy_timeout_s: float = engine.BUSY_TIMEOUT_S,
        last_seen_period_s: float = LAST_SEEN_PERIOD_S,
        take_over: bool = False,
        patience: Patience = PATIENCE,
    ) -> Self:
        """Open ``sqlite:///path``, ``sqlite://`` (memory, for tests) or ``postgresql://…``.

        ``take_over`` ends the session that holds PostgreSQL's lock; whoever wrote by it stops at
        its next commit. Raises StoreError: unknown URL, or another process has it open. A
        PostgreSQL server is only asked at ``migrate``.
        """
        opened = engine.open_engine(url, busy_timeout_s=busy_timeout_s, take_over=take_over)
        return cls(opened, last_seen_period_s=last_seen_period_s, patience=patience)

    async def migrate(self, *, may_be_new: bool = True) -> Path | None:
        """Bring the database to this program's schema; give the copy made before, if any.

        ``is_new`` tells afterwards whether it was empty. If it must not be, DatabaseMissing.
        Raises DatabaseTooNew, DatabaseDamaged or DatabaseInUse, saying what to do.
        """
        return await self._call(lambda: self._migrate(may_be_new=may_be_new))

    async def load(self) -> tuple[list[Snapshot], Sequences]:
        """Read everything: a snapshot per tailnet, oldest tailnet first, and the id counters.

        Raises DatabaseDamaged if the records contradict each other.
        """
        return await self._call(self._load)

    async def write(self, tailnet: TailnetID, batch: Sequence[Rows]) -> None:
        """Commit the rows of some edits, in order, all or none; on disk when it returns.

        Raises what the driver raised if the database did not take them.
        """
        done: Future[None] = Future()
        self._submit(_Write(tailnet, batch, done))
        await asyncio.wrap_future(done)

    def note_last_seen(self, seen: Sequence[tuple[NodeID, datetime]]) -> None:
        """Write these times some time soon, in bulk."""
        with self._seen_lock:
            self._seen.update(seen)

    def note_audit(self, tailnet: TailnetID, entries: Sequence[AuditEntry]) -> None:
        """Write these entries of the audit log some time soon: of changes that are no rows."""
        with self._seen_lock:
            self._audit += [audit_entry_to_row(tailnet, entry) for entry in entries]
            del self._audit[:-MOST_NOTED]

    async def audit(
        self,
        tailnet: TailnetID,
        *,
        before: int | None = None,
        limit: int = 100,
        act: str = "",
        by: str = "",
        kind: str = "",
        target: int | None = None,
        since: datetime | None = None,
    ) -> list[auditlog.Found]:
        """Read a page of the audit log of a tailnet, newest first: ``(id, AuditEntry)``.

        ``before`` is the id of the last entry of the page before; ``limit`` at most
        ``auditlog.MAX_PAGE``. ``act`` is one ("node.rename") or a noun ("node"); ``by`` the name of a
        principal; ``kind`` and ``target`` a record ("node", 7). What is noted and not yet written
        is written first.
        """

        def read() -> list[auditlog.Found]:
            self._flush()
            with self._own.asking() as connection:
                return auditlog.page(
                    connection,
                    tailnet,
                    before=before,
                    limit=limit,
                    act=act,
                    by=by,
                    kind=kind,
                    target=target,
                    since=since,
                )

        return await self._call(read)

    async def create_tailnet(
        self, ids: Sequences, *, name: str, domain: str, created_at: datetime
    ) -> Tailnet:
        """Add a tailnet with the next id. Raises IntegrityError if the name is taken."""
        ids.tailnet += 1
        tailnet = Tailnet(TailnetID(ids.tailnet), name, domain, created_at)
        await self.write(tailnet.id, [Rows(puts=(tailnet,))])
        return tailnet

    @property
    def trouble(self) -> str | None:
        """Why nothing can be written at present, in a sentence; None if the last commit was."""
        return self._own.trouble

    async def ping(self) -> None:
        """Learn that the database answers, is still this server's, and can be written to.

        Raises NotOurs, another StoreError, or what the driver raised.
        """
        await self._call(self._own.check)

    async def health(self) -> str:
        """Say in a sentence why the database cannot be used; "" if it can. Soon, whatever it does."""
        try:
            async with asyncio.timeout(PING_S):
                await self.ping()
        except TimeoutError:
            said = self._own.trouble or engine.NO_ANSWER
        except StoreError as error:
            said = str(error)
        except DBAPIError as error:
            said = f"{engine.NO_ANSWER}: {reason(error)}"
        else:
            if self._is_unwell:
                log.info("database answers again")
            self._is_unwell = False
            return ""
        if not self._is_unwell:
            log.warning("database is not well", extra={"reason": said})
        self._is_unwell = True
        return said

    async def guard(self) -> None:
        """Ask now and then whether the database is still this server's. Raises NotOurs when not.

        Never returns. A database that does not answer is asked again: it may come back.
        """
        loop, is_lost = asyncio.get_running_loop(), asyncio.Event()

        def wake(_lost: Future[None]) -> None:
            with suppress(RuntimeError):  # the loop is closed, and nobody waits
                loop.call_soon_threadsafe(is_lost.set)

        self._own.lost.add_done_callback(wake)
        while not self._own.lost.done():
            with suppress(Exception):  # a commit or the next health check tells of it
                await self.ping()
            with suppress(TimeoutError):
                async with asyncio.timeout(GUARD_PERIOD_S):
                    await is_lost.wait()
        self._own.lost.result()

    async def back_up(self, target: Path) -> None:
        """Write a verified copy of the live SQLite database. Raises StoreError for PostgreSQL."""
        if not self._opened.is_sqlite:
            raise StoreError("copy a PostgreSQL database with pg_dump")
        await self._call(lambda: engine.back_up(upgrade.driver_connection(self._own.get()), target))

    async def close(self) -> None:
        """Write what waits, last-seen times too, and close. Closing twice does nothing."""
        if self._is_closed:
            return
        self._is_closed = True
        self._own.closing.set()
        self._jobs.put(_STOP)
        await asyncio.to_thread(self._thread.join)

    async def _call(self, work: Callable[[], T]) -> T:
        done: Future[T] = Future()
        self._submit(cast(_Call[object], _Call(work, done)))
        return await asyncio.wrap_future(done)

    def _submit(self, job: _Job) -> None:
        if self._is_closed:
            raise DatabaseClosed("the database is closed")
        self._jobs.put(job)

    # ── from here on: the database's thread ──────────────────────────────────────────────────

    def _run(self) -> None:
        flush_at = time.monotonic() + self._period_s
        held: _Job | None = None
        while True:
            if held is None:
                held = self._next_job(flush_at)
            job, held = held, None
            match job:
                case _Write():
                    writes, held = self._gather(job)
                    self._commit(writes)
                case _Call():
                    _settle(job.done, job.work)
                case _Stop():
                    self._flush()
                    self._shut()
                    return
                case None:
                    pass
            if time.monotonic() >= flush_at:
                self._flush()
                flush_at = time.monotonic() + self._period_s

    def _next_job(self, deadline: float) -> _Job | None:
        try:
            return self._jobs.get(timeout=max(0.0, deadline - time.monotonic()))
        except queue.Empty:
            return None

    def _gather(self, first: _Write) -> tuple[list[_Write], _Job | None]:
        """Take every write that waits, and the other job that stands behind them, if any."""
        writes = [first]
        while True:
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                return writes, None
            if not isinstance(job, _Write):
                return writes, job
            writes.append(job)

    def _commit(self, writes: Sequence[_Write]) -> None:
        writes = [write for write in writes if write.done.set_running_or_notify_cancel()]
        if not writes:
            return
        try:
            self._transact(writes)
        except Exception as error:  # noqa: BLE001 the waiters get it
            if len(writes) == 1 or isinstance(error, StoreError):
                # A database that is away, or not ours, is so for each of them.
                for write in writes:
                    write.done.set_exception(error)
                return
        else:
            for write in writes:
                write.done.set_result(None)
            return
        log.warning("a commit of several tailnets failed; trying them one by one")
        for write in writes:
            _settle(write.done, partial(self._transact, [write]), started=True)

    def _transact(self, writes: Sequence[_Write]) -> None:
        changes = Changes()
        for write in writes:
            changes.add(write.tailnet_id, write.batch)
        counters = {
            name: last
            for name, last in changes.counters.items()
            if last > self._counters.get(name, 0)
        }
        tailnets = tuple(dict.fromkeys(write.tailnet_id for write in writes))
        try:
            self._commit_surely(changes, counters, tailnets)
        except NotOurs:
            raise
        except Exception as error:
            self._own.trouble = f"the last change was not written: {reason(error)}"
            raise
        self._counters.update(counters)
        self._own.trouble = None

    def _commit_surely(
        self, changes: Changes, counters: dict[str, int], tailnets: Sequence[TailnetID]
    ) -> None:
        """Write and commit, again and again if the connection is lost before it was taken."""
        for _ in range(MOST_ATTEMPTS):
            if self._apply(changes, counters, tailnets):
                return
        raise DatabaseAway("the connection to the database was lost again and again")

    def _apply(
        self, changes: Changes, counters: dict[str, int], tailnets: Sequence[TailnetID]
    ) -> bool:
        """Write and commit; False: the connection was lost, and nothing of it was taken."""
        own = self._own
        connection = own.get()
        try:
            with own.transaction(connection):
                heads = own.journal.advance(connection, tailnets, datetime.now(UTC))
                self._writer.apply(connection, changes)
                rows = [{"name": name, "last": last} for name, last in counters.items()]
                self._writer.put(connection, schema.sequences, rows)
                own.doubt = heads
        except DBAPIError as error:
            if not error.connection_invalidated:
                raise
            own.put_away(error)
            return own.doubt is not None and self._was_taken()
        else:
            own.journal.heads |= heads
            return True
        finally:
            own.doubt = None

    def _was_taken(self) -> bool:
        """Ask, over the next connection, whether the commit that was cut off is in the database.

        Raises DatabaseAway if nobody can be asked. Should it turn out later that it was taken, then
        the database is ahead of what this server has in memory: NotOurs.
        """
        before = dict(self._own.journal.heads)
        try:
            self._own.get()
        except NotOurs:
            raise
        except StoreError as error:
            raise DatabaseAway(
                "the connection was lost during a commit, and whether it was taken cannot be "
                f"asked: {error}"
            ) from error
        return self._own.journal.heads != before

    def _migrate(self, *, may_be_new: bool) -> Path | None:
        try:
            self.is_new = upgrade.is_empty(self._own.get())
            if self.is_new and not may_be_new:
                raise DatabaseMissing(MISSING)
            return upgrade.migrate(self._opened, self._own.get(), datetime.now(UTC))
        except DBAPIError as error:
            raise engine.translated(error, self._opened.file) from error

    def _load(self) -> tuple[list[Snapshot], Sequences]:
        try:
            with self._own.asking() as connection:
                heads = self._own.journal.claim(connection, datetime.now(UTC))
                snapshots, counters = loading.load(connection)
        except DBAPIError as error:
            raise engine.translated(error, self._opened.file) from error
        self._own.journal.heads = heads
        self._counters = counters
        ids = Sequences(
            tailnet=counters.get("tailnets", 0),
            user=counters.get("users", 0),
            node=counters.get("nodes", 0),
            auth_key=counters.get("auth_keys", 0),
            policy=counters.get("policies", 0),
            more={kind.records: counters.get(kind.records, 0) for kind in KINDS},
        )
        return snapshots, ids

    def _flush(self) -> None:
        """Write what was noted, and forget what is old."""
        with self._seen_lock:
            seen, self._seen = self._seen, {}
            noted, self._audit = self._audit, []
        if not (seen or noted) or self._own.lost.done():
            return
        try:
            with self._own.asking() as connection:
                self._own.journal.check(connection)
                rows = [last_seen_to_row(node_id, at) for node_id, at in seen.items()]
                self._writer.put(connection, schema.last_seen, rows)
                self._writer.add_audit(connection, noted)
                self._own.journal.trim(connection)
                if time.monotonic() >= self._forget_at:
                    auditlog.forget(connection, self.retention, datetime.now(UTC))
        except Exception as error:  # noqa: BLE001 not worth stopping for: tried again later
            log.warning("last-seen times were not written", extra={"reason": reason(error)})
            with self._seen_lock:
                self._seen = seen | self._seen
                self._audit = noted + self._audit
        else:
            if time.monotonic() >= self._forget_at:
                self._forget_at = time.monotonic() + FORGET_PERIOD_S

    def _shut(self) -> None:
        while True:  # nobody submits any more; those who raced with close() learn of it
            try:
                job = self._jobs.get_nowait()
            except queue.Empty:
                break
            if not isinstance(job, _Stop):
                job.done.set_exception(DatabaseClosed("the database is closed"))
        try:
            self._own.close()
            self._opened.close()
        except Exception as error:  # noqa: BLE001 it is going away either way
            log.warning("the database did not close cleanly: %s", reason(error))


def _settle(done: Future[T], work: Callable[[], T], *, started: bool = False) -> None:
    """Do the work, and give its result or failure to who waits, if anybody still does."""
    if not started and not done.set_running_or_notify_cancel():
        return
    try:
        result = work()
    except Exception as error:  # noqa: BLE001 the waiter gets it
        done.set_exception(error)
    else:
        done.set_result(result)
