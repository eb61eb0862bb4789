"""The current snapshot of each tailnet: the only mutable state of the control plane.

``edit()`` is the one way to change it: draft, commit to disk, publish, wake. Drafts queue up while
a commit is under way and are then written together (group commit), so that a storm costs one
transaction per round and not one per node. Nobody sees a snapshot that is not on disk.

Not for rules (``tailnet`` has the verbs) and not for SQL (``store``). Sits between both and the doors.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

from appliance.identity.principals import SYSTEM, Principal
from appliance.records import AuthKey, Node, NodeID, TailnetID
from appliance.tailnet import clockwork
from appliance.tailnet.snapshot import Edit, Rows, Sequences, Snapshot
from appliance.wire.keys import MachineKey, NodeKey

log = logging.getLogger(__name__)

TICK_S = 1.0
"""How often grace times and expiry are looked at: the resolution that people can notice."""


class Store(Protocol):
    """What a tailnet needs of the database."""

    async def write(self, tailnet: TailnetID, batch: Sequence[Rows]) -> None:
        """Commit the rows of some edits, in order, in one transaction; raise if it failed."""

    def note_last_seen(self, seen: Sequence[tuple[NodeID, datetime]]) -> None:
        """Write these times some time soon, in bulk."""


class CommitFailed(Exception):
    """The database did not take an edit; nothing of it was published."""


@dataclass(slots=True)
class _Pending:
    snapshot: Snapshot
    rows: Rows
    waiter: asyncio.Future[Exception | None]


def utc_now() -> datetime:
    """Give the time of the wall clock, aware and in UTC."""
    return datetime.now(UTC)


class LiveTailnet:
    """One tailnet's present: ``snapshot`` is what everybody sees.

    ``run()`` must be running (one task of the server) for edits to be committed.
    """

    def __init__(
        self,
        snapshot: Snapshot,
        store: Store,
        ids: Sequences,
        *,
        clock: Callable[[], datetime] = utc_now,
    ) -> None:
        self.snapshot = snapshot
        self.clock = clock
        self._store = store
        self._ids = ids
        self._tip = snapshot
        self._pending: list[_Pending] = []
        self._lock = asyncio.Lock()
        self._work = asyncio.Event()
        self._published = asyncio.Event()
        self._round = 0

    @property
    def id(self) -> TailnetID:
        """The tailnet's id."""
        return self.snapshot.tailnet.id

    @asynccontextmanager
    async def edit(self, *, by: Principal) -> AsyncIterator[Edit]:
        """Draft a change; leaving the block commits and publishes it, then returns.

        An exception inside the block throws the draft away. Raises CommitFailed if the database
        did not take it, or if a draft that this one was built on failed.
        """
        async with self._lock:
            started_in = self._round
            edit = Edit(self._tip, self._ids)
            yield edit
            if started_in != self._round:
                raise CommitFailed("an earlier change could not be written; try again")
            snapshot, rows = edit.finish()
            waiter = self._stage(snapshot, rows)
        if waiter is None:
            return
        failure = await asyncio.shield(waiter)
        if failure is not None:
            log.warning("change was not written", extra={"by": str(by)})
            raise CommitFailed("the database did not take the change") from failure

    async def newer(self, than: Snapshot) -> Snapshot:
        """Wait until the published snapshot is another one than ``than``, and give it."""
        while self.snapshot is than:
            await self._published.wait()
        return self.snapshot

    async def run(self) -> None:
        """Commit edits as they come, and let time pass in the tailnet; never returns."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._commit_forever(), name="commit")
            tasks.create_task(self._tick_forever(), name="tick")

    def _stage(self, snapshot: Snapshot, rows: Rows) -> asyncio.Future[Exception | None] | None:
        if rows.last_seen:
            self._store.note_last_seen(rows.last_seen)
        if snapshot is self._tip and not rows.is_durable:
            return None
        self._tip = snapshot
        if not rows.is_durable and not self._pending:
            self._publish(snapshot)
            return None
        waiter: asyncio.Future[Exception | None] = asyncio.get_running_loop().create_future()
        self._pending.append(_Pending(snapshot, rows, waiter))
        self._work.set()
        return waiter

    def _publish(self, snapshot: Snapshot) -> None:
        self.snapshot = snapshot
        # A new event for each version: waiters hold the old one, which stays set.
        published, self._published = self._published, asyncio.Event()
        published.set()

    async def _commit_forever(self) -> None:
        while True:
            await self._work.wait()
            self._work.clear()
            while self._pending:
                await self._commit(tuple(self._pending))

    async def _commit(self, batch: Sequence[_Pending]) -> None:
        """Write a batch. The entries stay in ``_pending`` meanwhile, so that later edits queue."""
        failure: Exception | None = None
        try:
            await self._store.write(self.id, [entry.rows for entry in batch])
        except Exception as error:
            log.exception("commit failed", extra={"tailnet_version": batch[-1].snapshot.version})
            failure = error
        if failure is None:
            done, self._pending = batch, self._pending[len(batch) :]
            self._publish(batch[-1].snapshot)
        else:
            # What was drafted on top of a failed edit fails with it.
            done, self._pending = tuple(self._pending), []
            self._tip = self.snapshot
            self._round += 1
        for entry in done:
            if not entry.waiter.done():
                entry.waiter.set_result(failure)

    async def _tick_forever(self) -> None:
        while True:
            await asyncio.sleep(TICK_S)
            now = self.clock()
            if clockwork.is_due(self.snapshot, now):
                try:
                    async with self.edit(by=SYSTEM) as edit:
                        clockwork.tick(edit, now)
                except CommitFailed:
                    continue  # logged where it happened; the next tick tries again


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

    def find_auth_key(self, prefix: str) -> tuple[LiveTailnet, AuthKey] | None:
        """Find the tailnet that issued the auth key with this public prefix."""
        for live in self._by_id.values():
            key_id = live.snapshot.by_key_prefix.get(prefix)
            if key_id is not None:
                return live, live.snapshot.auth_keys[key_id]
        return None

    async def run(self) -> None:
        """Run all tailnets; never returns."""
        async with asyncio.TaskGroup() as tasks:
            for live in self._by_id.values():
                tasks.create_task(live.run(), name=f"tailnet {live.id}")
