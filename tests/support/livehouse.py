"""A live tailnet with a fake store and a fake clock, for tests of ``LiveTailnet``."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

from appliance.identity.principals import SYSTEM
from appliance.live import LiveTailnet
from appliance.records import AuditEntry, Node, NodeID, Settings, TailnetID, User
from appliance.tailnet import nodes, presence
from appliance.tailnet.snapshot import Rows, Snapshot
from tests.support.builder import build, node_named, sequences_after
from tests.support.clock import NOON, Clock
from tests.support.polling import until


class FakeStore:
    """Takes or refuses batches; holds them back while ``gate`` is closed."""

    def __init__(self) -> None:
        self.batches: list[tuple[Rows, ...]] = []
        self.seen: list[tuple[NodeID, datetime]] = []
        self.audit: list[tuple[TailnetID, AuditEntry]] = []
        self.refuse: Callable[[Sequence[Rows]], bool] = lambda _batch: False
        self.gate = asyncio.Event()
        self.gate.set()
        self.writing = 0

    async def write(self, tailnet: TailnetID, batch: Sequence[Rows]) -> None:
        assert tailnet
        self.writing += 1
        try:
            await asyncio.sleep(0)  # others run meanwhile, as they do beside a database
            await self.gate.wait()
        finally:
            self.writing -= 1
        if self.refuse(batch):
            raise OSError("disk full")
        self.batches.append(tuple(batch))

    def note_last_seen(self, seen: Sequence[tuple[NodeID, datetime]]) -> None:
        self.seen += seen

    def note_audit(self, tailnet: TailnetID, entries: Sequence[AuditEntry]) -> None:
        self.audit += [(tailnet, entry) for entry in entries]

    @property
    def put_names(self) -> list[list[list[str]]]:
        """The names that were put, by batch and edit."""
        return [
            [[r.name for r in rows.puts if isinstance(r, Node | User)] for rows in batch]
            for batch in self.batches
        ]


class House:
    """A live tailnet with a fake store and a clock."""

    def __init__(self, text: str = "alice: laptop phone", **settings: object) -> None:
        snapshot = build(text, settings=replace(Settings(), **settings))  # type: ignore[arg-type]  # field names
        self.clock = Clock()
        self.store = FakeStore()
        self.live = LiveTailnet(snapshot, self.store, sequences_after(snapshot), clock=self.clock)
        self.task: asyncio.Task[None] | None = None

    @property
    def snapshot(self) -> Snapshot:
        return self.live.snapshot

    async def rename(self, name: str, new: str) -> None:
        async with self.live.edit(by=SYSTEM, act="test.change") as edit:
            nodes.rename(edit, node_named(edit, name).id, new)

    async def enter(self, name: str) -> None:
        async with self.live.edit(by=SYSTEM, act="test.change") as edit:
            presence.session_opened(edit, node_named(edit, name).id, self.clock())

    async def leave(self, name: str) -> None:
        async with self.live.edit(by=SYSTEM, act="test.change") as edit:
            presence.session_closed(edit, node_named(edit, name).id, self.clock())

    def sessions(self, name: str) -> int:
        return self.snapshot.presence_of(node_named(self.snapshot, name).id).sessions

    @asynccontextmanager
    async def held(self) -> AsyncIterator[None]:
        """Keep the store from answering; one write is under way inside the block."""
        self.store.gate.clear()
        first = asyncio.create_task(self.create_user("first"))
        await until(lambda: self.store.writing == 1)
        try:
            yield
        finally:
            self.store.gate.set()
            await asyncio.gather(first, return_exceptions=True)

    async def create_user(self, name: str) -> None:
        async with self.live.edit(by=SYSTEM, act="test.change") as edit:
            edit.put(User(edit.ids.next_user(), name, NOON))


async def start(*work: Awaitable[object]) -> list[asyncio.Task[object]]:
    """Start these one after the other, and let each run until it waits."""
    tasks = []
    for one in work:
        tasks.append(asyncio.ensure_future(one))
        await asyncio.sleep(0)
        await asyncio.sleep(0)
    return tasks
