"""``LiveTailnet`` in bad weather: random edits, failures, cancellations, and what must hold."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from random import Random

import pytest

from appliance.errors import Conflict
from appliance.identity.principals import SYSTEM
from appliance.live import CommitFailed
from appliance.records import Node, Record, User
from appliance.tailnet import nodes, presence
from appliance.tailnet.snapshot import Edit, Snapshot
from tests.support.builder import extend
from tests.support.clock import NOON
from tests.support.livehouse import House
from tests.support.polling import until


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    house.task = asyncio.create_task(house.live.run())
    yield house
    house.task.cancel()
    await asyncio.gather(house.task, return_exceptions=True)


@pytest.mark.parametrize("seed", range(20))
async def test_random_weather_ends_in_what_was_acknowledged(house: House, seed: int) -> None:
    """Edits, presence, refusals and cancellations at random: acknowledged means kept."""
    rng = Random(seed)
    house.store.refuse = lambda _batch: rng.random() < 0.3
    kept: set[str] = set()
    unsure: set[str] = set()
    opened = 0

    async def create(name: str) -> None:
        try:
            await house.create_user(name)
        except CommitFailed:
            return
        except asyncio.CancelledError:
            unsure.add(name)
            raise
        kept.add(name)

    async def visit() -> None:
        nonlocal opened
        await house.enter("laptop")
        opened += 1
        if rng.random() < 0.5:
            await asyncio.sleep(0)
        await house.leave("laptop")
        opened -= 1

    tasks = []
    for n in range(40):
        work = create(f"user{n}") if rng.random() < 0.6 else visit()
        tasks.append(asyncio.ensure_future(work))
        if rng.random() < 0.3:
            await asyncio.sleep(0)
        if rng.random() < 0.1 and n:
            victim = rng.randrange(n)
            if not tasks[victim].done() and "create" in repr(tasks[victim].get_coro()):
                tasks[victim].cancel()
    await asyncio.gather(*tasks, return_exceptions=True)
    house.store.refuse = lambda _batch: False
    await create("last")
    names = {u.name for u in house.snapshot.users.values()} - {"alice"}
    assert kept <= names <= kept | unsure
    assert house.sessions("laptop") == opened == 0
    written = {name for batch in house.store.put_names for edit in batch for name in edit}
    assert names == written


MAPPINGS = ("users", "nodes", "auth_keys", "presence", "by_node_key", "by_name", "by_address")


class Witness:
    """Sees every published snapshot, and that none of them ever changes."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.seen: list[tuple[Snapshot, dict[str, dict[object, object]]]] = []
        self.task = asyncio.create_task(self._watch())

    async def _watch(self) -> None:
        snapshot = self.house.snapshot
        while True:
            self.seen.append((snapshot, {n: dict(getattr(snapshot, n)) for n in MAPPINGS}))
            snapshot = await self.house.live.newer(than=snapshot)

    async def check(self) -> None:
        await until(lambda: self.seen[-1][0] is self.house.snapshot)
        self.task.cancel()
        for snapshot, copies in self.seen:
            for name, copy in copies.items():
                assert getattr(snapshot, name) == copy, name
            assert snapshot.by_name == {n.name: n.id for n in snapshot.nodes.values()}
            assert snapshot.by_node_key == {n.node_key: n.id for n in snapshot.nodes.values()}
            assert set(snapshot.presence) <= set(snapshot.nodes)
        versions = [snapshot.version for snapshot, _ in self.seen]
        assert versions == sorted(set(versions))


def some_node(edit: Edit, rng: Random) -> Node:
    return rng.choice(list(edit.nodes.values()))


def add(edit: Edit, _rng: Random) -> None:
    extend(edit, f"alice: n{edit.ids.node + 1}*")


def rename(edit: Edit, rng: Random) -> None:
    nodes.rename(edit, some_node(edit, rng).id, f"name{rng.randrange(20)}")


def drop(edit: Edit, rng: Random) -> None:
    if len(edit.nodes) > 1:
        edit.drop(some_node(edit, rng))


def enter(edit: Edit, rng: Random) -> None:
    presence.session_opened(edit, some_node(edit, rng).id, NOON)


def create(edit: Edit, _rng: Random) -> None:
    edit.put(User(edit.ids.next_user(), f"user{edit.ids.user}", NOON))


VERBS = (add, rename, drop, enter, enter, create)


def key_of(record: Record) -> tuple[type, int]:
    return type(record), record.id


def by_key(snapshot: Snapshot) -> dict[tuple[type, int], Record]:
    records: list[Record] = [*snapshot.nodes.values(), *snapshot.users.values()]
    return {key_of(record): record for record in records}


def written(house: House, before: Snapshot) -> dict[tuple[type, int], Record]:
    """What a database would hold: what was there, and every batch that was taken."""
    held = by_key(before)
    for batch in house.store.batches:
        for rows in batch:
            for gone in rows.drops:
                held.pop(key_of(gone), None)
            held |= {key_of(record): record for record in rows.puts}
    return held


@pytest.mark.parametrize("seed", range(30))
async def test_published_snapshots_never_change_whatever_happens(house: House, seed: int) -> None:
    """Drafts are written over one another while they wait; what is published stays as it is.

    Half of the edits give up in the middle, some wait inside, some batches are refused.
    """
    rng = Random(seed)
    house.store.refuse = lambda _batch: rng.random() < 0.15
    witness = Witness(house)
    before = house.snapshot

    async def work() -> None:
        async with house.live.edit(by=SYSTEM, act="test.change") as edit:
            for _ in range(rng.randrange(1, 4)):
                rng.choice(VERBS)(edit, rng)
                if rng.random() < 0.1:
                    await asyncio.sleep(0)
            if rng.random() < 0.3:
                raise KeyError("given up in the middle")

    tasks = []
    for _ in range(120):
        tasks.append(asyncio.ensure_future(work()))
        if rng.random() < 0.15:
            await asyncio.sleep(0)
        if rng.random() < 0.05:
            rng.choice(tasks).cancel()
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(o) for o in outcomes} <= {
        type(None), KeyError, CommitFailed, Conflict, asyncio.CancelledError
    }  # fmt: skip
    house.store.refuse = lambda _batch: False
    await house.create_user("last")
    await witness.check()
    assert by_key(house.snapshot) == written(house, before)
