"""The current snapshot of each tailnet: the only mutable state of the control plane.

``edit()`` is the one way to change it: draft, commit to disk, publish, wake. Drafts queue up while
a commit is under way, or while more of them come at every turn of the event loop, and are then
written together (group commit), so that a storm costs one transaction per round and not one per
node. Nobody sees a snapshot that is not on disk.

Not for rules (``tailnet`` has the verbs) and not for SQL (``store``). Sits between both and the doors.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Protocol

from appliance.errors import Conflict
from appliance.identity.principals import SYSTEM, Principal
from appliance.live import told
from appliance.loops import Loop, run_all
from appliance.records import AuditEntry, Node, NodeID, TailnetID
from appliance.store.errors import is_databases, reason
from appliance.tailnet import expiry, nodes, policies
from appliance.tailnet.audit import entries as entries_of
from appliance.tailnet.audit import moved_routes
from appliance.tailnet.snapshot import Edit, Rows, Sequences, Snapshot
from appliance.wire.keys import MachineKey, NodeKey

log = logging.getLogger(__name__)

MOST_TURNS = 8
"""Turns of the event loop for which a round waits for more edits, at the most; one is the rule."""
TICK_S = 1.0
"""How often grace times and expiry are looked at: the resolution that people can notice."""


class Store(Protocol):
    """What a tailnet needs of the database."""

    async def write(self, tailnet: TailnetID, batch: Sequence[Rows]) -> None:
        """Commit the rows of some edits, in order, in one transaction; raise if it failed."""

    def note_last_seen(self, seen: Sequence[tuple[NodeID, datetime]]) -> None:
        """Write these times some time soon, in bulk."""

    def note_audit(self, tailnet: TailnetID, entries: Sequence[AuditEntry]) -> None:
        """Write these entries some time soon: of changes that are no records."""


class CommitFailed(Exception):
    """The database did not take an edit; no record of it was published."""


@dataclass(slots=True)
class LiveCounters:
    """What has become of edits since the start; ``commits`` counts transactions, each of some."""

    commits: int = 0
    committed_edits: int = 0
    failed_edits: int = 0
    carried_over: int = 0


@dataclass(slots=True)
class _Pending:
    """An edit that waits for its commit, or for one before it; ``waiter`` learns the outcome."""

    edit: Edit
    snapshot: Snapshot
    rows: Rows
    waiter: asyncio.Future[Exception | None]

    @property
    def is_lasting(self) -> bool:
        """Tell whether the edit survives the failure of one that it was drafted on.

        Presence is true whatever the database says; records are not, and nor is an edit that
        changed nothing, because of what it read.
        """
        return not self.rows.is_durable and self.snapshot is not self.edit.base

    def settle(self, failure: Exception | None) -> None:
        """Tell the one who waits, if it still does."""
        if not self.waiter.done():
            self.waiter.set_result(failure)


def a_bug(error: Exception) -> str:
    """Say to an operator that this is a fault of the program, not of what was written."""
    return f"a bug of this program met it ({error!r}); its log has the details"


def utc_now() -> datetime:
    """Give the time of the wall clock, aware and in UTC."""
    return datetime.now(UTC)


class LiveTailnet:
    """One tailnet's present: ``snapshot`` is what everybody sees.

    Its ``loops`` must be running for edits to be committed. When they are cancelled, edits that
    wait fail, and later ones that would need a commit fail at once.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        store: Store,
        ids: Sequences,
        *,
        clock: Callable[[], datetime] = utc_now,
        settle: Callable[[Snapshot, Snapshot], Snapshot] = policies.settle,
    ) -> None:
        self.clock = clock
        self.policy_failure = ""
        """Why the policy of the tailnet could not be compiled: a bug, so everything is denied."""
        self.policy_failed_at: datetime | None = None
        self._settle = settle
        self.snapshot = snapshot = self._settled(snapshot, snapshot)
        self.counters = LiveCounters()
        self._store = store
        self._ids = ids
        self._tip = snapshot
        self._private: frozenset[str] = frozenset()
        self._pending: list[_Pending] = []
        self._lock = asyncio.Lock()
        self._work = asyncio.Event()
        self._published = asyncio.Event()
        self._round = 0
        self._is_stopped = False
        self._watching_since: datetime | None = None

    @property
    def id(self) -> TailnetID:
        """The tailnet's id."""
        return self.snapshot.tailnet.id

    @property
    def drafted(self) -> Snapshot:
        """What the next draft begins with: not all of it is on disk.

        For checks inside an edit of another tailnet, and to choose the tailnet of an edit. Nobody
        may be told of it.
        """
        return self._tip

    @asynccontextmanager
    async def edit(self, *, by: Principal, act: str, reason: str = "") -> AsyncIterator[Edit]:
        """Draft a change; leaving the block commits and publishes it, then returns.

        ``act`` is what the audit log calls it ("node.rename"), ``reason`` why, if anybody said so;
        the entry is written in the transaction of the change (``tailnet.audit``).
        Wait for nothing inside the block: everybody else who has a change waits for it to end. An
        exception in it throws the draft away. Cancelled while it waits for the commit, the edit
        is committed all the same. Raises CommitFailed if this edit, or one that it is based on,
        could not be written. Changes to presence or settings are not stored and cannot fail.
        """
        async with self._lock:
            started_in = self._round
            edit = Edit(self._tip, self._ids, private=self._private)
            try:
                yield edit
            except BaseException:
                edit.abandon()
                raise
            snapshot, rows = edit.finish()
            audit = entries_of(
                edit, at=self.clock(), door=by.kind, by=by.name, act=act, reason=reason
            )
            if audit:
                rows = replace(rows, audit=audit)
            entry = _Pending(edit, snapshot, rows, asyncio.get_running_loop().create_future())
            if started_in != self._round:
                # The draft's base failed meanwhile, and everything that waited with it.
                if not entry.is_lasting:
                    raise CommitFailed("an earlier change could not be written; try again")
                self._carry_over([entry])
                return
            if not self._stage(entry):
                return
        failure = await entry.waiter
        if failure is not None:
            log.debug("change was not written", extra={"by": str(by)})
            raise CommitFailed("the database did not take the change") from failure

    async def newer(self, than: Snapshot) -> Snapshot:
        """Wait until the published snapshot is another one than ``than``, and give it."""
        while self.snapshot is than:
            await self._published.wait()
        return self.snapshot

    def loops(self) -> tuple[Loop, ...]:
        """Return what must run for edits to be committed and for expiries to be applied."""
        name = self.snapshot.tailnet.name
        return (
            Loop("commit", self._commit_forever, about=name, max_backoff_s=1.0),
            Loop("tick", self.tick, TICK_S, about=name),
        )

    async def run(self) -> None:
        """Run the loops until cancelled, without a supervisor."""
        await run_all(self.loops())

    def _stage(self, entry: _Pending) -> bool:
        """Publish an edit, or queue it; tell whether there is something to wait for."""
        if entry.snapshot is self._tip and not self._pending:
            return False
        if entry.rows.is_durable and self._is_stopped:
            raise CommitFailed("the server is stopping")
        if not entry.rows.is_durable and not self._pending:
            self._tip = entry.snapshot
            self._publish([entry], entry.snapshot)
            return False
        if entry.snapshot is not self._tip:
            # Until a commit takes it, nobody but the next draft looks at this snapshot.
            self._tip = entry.snapshot
            self._private = entry.edit.private
        self._pending.append(entry)
        self._work.set()
        return True

    def _publish(self, entries: Sequence[_Pending], newest: Snapshot) -> None:
        for entry in entries:
            self._note(entry.rows)
        if newest is not self.snapshot:
            settled = self._settled(self.snapshot, newest)
            if self._tip is newest:
                self._tip = settled
            moved = moved_routes(self.snapshot, settled, at=self.clock())
            self.snapshot = settled
            self._note(Rows(audit=moved))
            # A new event for each version: waiters hold the old one, which stays set.
            published, self._published = self._published, asyncio.Event()
            published.set()
        for entry in entries:
            entry.settle(None)

    def _settled(self, old: Snapshot, new: Snapshot) -> Snapshot:
        """Return ``new`` with all that follows from it.

        Should a bug be in the way, nobody reaches anybody in this tailnet, which goes on for all
        else, and so do the others.
        """
        try:
            settled = self._settle(old, new)
        except Exception as error:
            failure = f"the policy cannot be compiled: {a_bug(error)}"
            if failure != self.policy_failure:
                self.policy_failure, self.policy_failed_at = failure, self.clock()
                log.exception(
                    "policy cannot be compiled, everything is denied",
                    extra={"tailnet": new.tailnet.name},
                )
            return policies.deny_all(new)
        if self.policy_failure and new.policy is not policies.DENYING:
            self.policy_failure, self.policy_failed_at = "", None
        return settled

    def _note(self, rows: Rows) -> None:
        """Leave to the store what it may write later, and tell what happened."""
        if rows.last_seen:
            self._store.note_last_seen(rows.last_seen)
        if rows.audit:
            if not rows.is_durable:
                self._store.note_audit(self.id, rows.audit)
            told.tell(self.snapshot.tailnet.name, rows.audit)

    async def _commit_forever(self) -> None:
        """Commit edits as they come. Nobody who waits for one is forgotten, whatever happens."""
        try:
            while True:
                await self._work.wait()
                self._work.clear()
                while self._pending:
                    await self._gather()
                    async with self._lock:  # so that no draft is being written into what we take
                        batch = tuple(self._pending)
                        self._private = frozenset()
                    await self._commit(batch)
        except asyncio.CancelledError:
            self._is_stopped = True
            self._give_up(CommitFailed("the server is stopping"))
            raise
        except Exception as error:
            self._give_up(error)  # a bug; the loop is started again
            raise

    async def _gather(self) -> None:
        """Let edits join the round as long as every turn of the event loop brings some.

        In a storm a quick disk would else get rounds of two or three, and each copies the tailnet's
        mappings and compares them.
        """
        before = 0
        for _ in range(MOST_TURNS):
            if len(self._pending) == before:
                return
            before = len(self._pending)
            await asyncio.sleep(0)

    async def _commit(self, batch: Sequence[_Pending]) -> None:
        """Write a batch. The entries stay in ``_pending`` meanwhile, so that later edits queue.

        A batch that is refused is tried again edit by edit, so that one that the database cannot
        take does not bring down those before it.
        """
        failure = await self._write([entry.rows for entry in batch])
        if failure is None:
            self._committed(batch, batch[-1].snapshot)
            return
        if sum(entry.rows.is_durable for entry in batch) > 1:
            failure = await self._commit_singly(batch)
        if failure is not None:
            self._give_up(failure)

    async def _commit_singly(self, batch: Sequence[_Pending]) -> Exception | None:
        """Write and publish the edits of a batch up to the first failure.

        The snapshots between were written over by the drafts after them, so each is made again;
        the last one is what later drafts stand on.
        """
        for entry in batch:
            again = Edit(self.snapshot, self._ids)
            try:
                entry.edit.replay(again)
            except Conflict as error:
                return error
            snapshot, rows = again.finish()
            failure = await self._write([replace(rows, audit=entry.rows.audit)])
            if failure is not None:
                return failure
            self._committed([entry], entry.snapshot if entry is batch[-1] else snapshot)
        return None

    async def _write(self, batch: Sequence[Rows]) -> Exception | None:
        durable = [rows for rows in batch if rows.is_durable]
        if not durable:
            return None
        try:
            await self._store.write(self.id, durable)
        except Exception as error:
            if is_databases(error):
                log.warning("commit failed", extra={"reason": reason(error)})
                log.debug("commit failed", exc_info=True)
            else:
                log.exception("commit failed")  # a bug
            return error
        self.counters.commits += 1
        self.counters.committed_edits += len(durable)
        return None

    def _committed(self, batch: Sequence[_Pending], snapshot: Snapshot) -> None:
        del self._pending[: len(batch)]
        self._publish(batch, snapshot)

    def _give_up(self, failure: Exception) -> None:
        """Let everything that waits fail, but for what does not depend on the database."""
        waiting, self._pending = self._pending, []
        if not waiting:
            return
        self._tip = self.snapshot
        self._private = frozenset()
        self._round += 1
        self._carry_over([entry for entry in waiting if entry.is_lasting])
        for entry in waiting:
            self.counters.failed_edits += not entry.waiter.done()
            entry.settle(failure)

    def _carry_over(self, entries: Sequence[_Pending]) -> None:
        """Draft presence and the like again on what is true now, and publish it."""
        self.counters.carried_over += len(entries)
        for entry in entries:
            again = Edit(self._tip, self._ids)
            entry.edit.carry_over(again)
            entry.edit = again
            audit = entry.rows.audit
            entry.snapshot, rows = again.finish()
            entry.rows = replace(rows, audit=audit)
            self._tip = entry.snapshot
        if entries:
            self._publish(entries, self._tip)

    async def tick(self) -> None:
        """Apply all expiries that are due. The server awaits the first tick before it listens.

        A change that cannot be written is tried again at the next tick.
        """
        now = self.clock()
        since = self._watching_since = self._watching_since or now
        if not expiry.is_due(self.snapshot, now, since=since):
            return
        try:
            async with self.edit(by=SYSTEM, act="clock.tick") as edit:
                expiry.tick(edit, now, since=since)
        except CommitFailed:
            return  # logged where it happened; the next tick tries again


class LiveTailnets:
    """All tailnets of the server; the first is the default one."""

    def __init__(self, tailnets: Sequence[LiveTailnet]) -> None:
        if not tailnets:
            raise ValueError("a server has at least one tailnet")
        self._by_id = {live.id: live for live in tailnets}
        self.default = tailnets[0]

    def __iter__(self) -> Iterator[LiveTailnet]:
        return iter(self._by_id.values())

    def get(self, tailnet_id: TailnetID) -> LiveTailnet | None:
        """Give the tailnet with this id."""
        return self._by_id.get(tailnet_id)

    def find_node(self, node_key: NodeKey) -> tuple[LiveTailnet, Node] | None:
        """Find the tailnet and the node that hold this node key now."""
        for live in self._by_id.values():
            node = live.snapshot.node_of(node_key)
            if node is not None:
                return live, node
        return None

    def find_machine(self, machine_key: MachineKey) -> LiveTailnet | None:
        """Find a tailnet in which this machine has a node."""
        for live in self._by_id.values():
            if machine_key in live.snapshot.by_machine_key:
                return live
        return None

    async def part_node_keys(self) -> None:
        """Expire every node whose node key a tailnet before holds, too, and say so.

        Its holder is only ever found in the first; earlier releases let such pairs come about. The
        later node keeps its id and addresses, and comes back with a key of its own.
        """
        first: dict[NodeKey, LiveTailnet] = {}
        for live in self:
            now = live.clock()
            for node in list(live.snapshot.nodes.values()):
                holder = first.setdefault(node.node_key, live)
                if holder is live or node.is_expired(now):
                    continue
                log.warning(
                    "node key stands in another tailnet, too: node expired, log it in again",
                    extra={
                        "node": node.name,
                        "tailnet": live.snapshot.tailnet.name,
                        "source": holder.snapshot.tailnet.name,
                    },
                )
                try:
                    async with live.edit(
                        by=SYSTEM,
                        act="node.expire",
                        reason="the node key stands in another tailnet, too",
                    ) as edit:
                        if node.id in edit.nodes:
                            nodes.expire(edit, node.id, now)
                except CommitFailed:
                    return  # logged where it happened; the next start tries again

    async def run(self) -> None:
        """Run the loops of all tailnets until cancelled, without a supervisor."""
        await run_all(loop for live in self._by_id.values() for loop in live.loops())
