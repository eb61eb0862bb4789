"""``LiveTailnet``: commit before publishing, groups, failure, cancellation, several tailnets."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Sequence
from dataclasses import replace
from datetime import timedelta

import pytest

from appliance.identity.principals import SYSTEM
from appliance.live import MOST_TURNS, CommitFailed, LiveCounters, LiveTailnet, LiveTailnets
from appliance.records import NodeID, Settings, TailnetID, User
from appliance.tailnet import nodes, presence
from appliance.tailnet.expiry import OFFLINE_GRACE
from appliance.tailnet.snapshot import Edit, Rows, Sequences, Snapshot
from tests.support.builder import (
    build,
    machine_key,
    node_key,
    node_named,
)
from tests.support.clock import NOON, Clock
from tests.support.livehouse import FakeStore, House, start
from tests.support.polling import until


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    house.task = asyncio.create_task(house.live.run())
    yield house
    house.task.cancel()
    await asyncio.gather(house.task, return_exceptions=True)


async def test_nothing_is_published_before_it_is_written(house: House) -> None:
    before = house.snapshot
    async with house.held():
        (task,) = await start(house.rename("laptop", "desk"))
        assert house.snapshot is before
        assert not task.done()
    await task
    assert "desk" in house.snapshot.by_name
    assert house.snapshot.version == before.version + 2


async def test_edits_behind_a_commit_are_written_together_in_order(house: House) -> None:
    async with house.held():
        names = [f"user{n}" for n in range(5)]
        tasks = await start(*(house.create_user(name) for name in names))
    await asyncio.gather(*tasks)
    assert house.store.put_names == [[["first"]], [[name] for name in names]]
    assert house.live.counters == LiveCounters(commits=2, committed_edits=6)
    assert [u.name for u in house.snapshot.users.values()] == ["alice", "first", *names]


async def test_edits_that_come_turn_by_turn_share_a_round(house: House) -> None:
    """As in a storm, where every turn of the loop reads some more requests; but not for ever."""

    async def late(turns: int) -> None:
        for _ in range(turns):
            await asyncio.sleep(0)
        await house.create_user(f"user{turns}")

    await asyncio.gather(*(late(turns) for turns in range(4 * MOST_TURNS)))
    first, *rest = house.store.put_names
    assert MOST_TURNS <= len(first) <= 2 * MOST_TURNS
    assert rest
    assert house.live.counters.committed_edits == 4 * MOST_TURNS


async def test_later_drafts_build_on_earlier_ones_before_they_are_written(house: House) -> None:
    async with house.held():
        one, two = await start(house.rename("laptop", "desk"), house.rename("desk", "tower"))
    await asyncio.gather(one, two)
    assert set(house.snapshot.by_name) == {"tower", "phone"}


async def test_an_edit_that_changes_nothing_writes_and_wakes_nothing(house: House) -> None:
    before = house.snapshot
    async with house.live.edit(by=SYSTEM, act="test.change") as edit:
        edit.put(node_named(edit, "laptop"))
    assert house.snapshot is before
    assert not house.store.batches


async def test_an_edit_that_changes_nothing_waits_for_what_it_read(house: House) -> None:
    """A node that registers twice must not hear "you are in" before the first one is written."""
    async with house.held():
        one, two = await start(house.rename("laptop", "desk"), house.rename("desk", "desk"))
        assert not two.done()
    await asyncio.gather(one, two)


async def test_an_exception_in_the_block_throws_the_draft_away(house: House) -> None:
    before = house.snapshot

    async def broken() -> None:
        async with house.live.edit(by=SYSTEM, act="test.change") as edit:
            nodes.rename(edit, node_named(edit, "laptop").id, "desk")
            raise KeyError("bug")

    with pytest.raises(KeyError):
        await broken()
    assert house.snapshot is before
    await house.rename("laptop", "tower")
    assert "tower" in house.snapshot.by_name


async def test_presence_needs_no_commit(house: House) -> None:
    await house.enter("laptop")
    assert house.sessions("laptop") == 1
    await house.leave("laptop")
    assert not house.store.batches
    assert house.store.seen == [(NodeID(1), NOON)]


async def test_presence_behind_a_commit_waits_for_it_and_writes_nothing(house: House) -> None:
    async with house.held():
        (task,) = await start(house.enter("laptop"))
        assert not task.done()
        assert house.sessions("laptop") == 0
    await task
    assert house.sessions("laptop") == 1
    assert house.store.put_names == [[["first"]]]


async def test_failure_publishes_nothing_and_tells_everybody_behind(house: House) -> None:
    before = house.snapshot
    house.store.refuse = lambda _batch: True
    async with house.held():
        tasks = await start(house.rename("laptop", "desk"), house.create_user("bob"))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [CommitFailed, CommitFailed]
    assert house.snapshot is before
    house.store.refuse = lambda _batch: False
    await house.rename("laptop", "tower")
    assert set(house.snapshot.by_name) == {"tower", "phone"}
    assert "first" not in {u.name for u in house.snapshot.users.values()}


async def test_presence_survives_the_failure_of_records(house: House) -> None:
    """A map session that ends while the database is away has ended all the same."""
    await house.enter("laptop")
    house.store.refuse = lambda _batch: True
    async with house.held():
        tasks = await start(
            house.enter("phone"),
            house.rename("phone", "tablet"),
            house.leave("laptop"),
            house.enter("tablet"),
        )
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(o) for o in outcomes] == [type(None), CommitFailed, type(None), type(None)]
    assert house.sessions("laptop") == 0
    assert house.sessions("phone") == 2
    assert house.store.seen == [(NodeID(1), NOON)]
    assert house.live.counters == LiveCounters(failed_edits=2, carried_over=3)


async def test_presence_of_a_node_that_was_never_written_is_forgotten(house: House) -> None:
    house.store.refuse = lambda _batch: True

    async def add() -> None:
        async with house.live.edit(by=SYSTEM, act="test.change") as edit:
            laptop = node_named(edit, "laptop")
            node_id = edit.ids.next_node()
            new = replace(
                laptop,
                id=node_id,
                name="new",
                node_key=node_key("new"),
                machine_key=machine_key("new"),
                ipv4=None,
                ipv6=None,
            )
            edit.put(new)

    async with house.held():
        adding, entering = await start(add(), house.enter("new"))
    assert isinstance((await asyncio.gather(adding, return_exceptions=True))[0], CommitFailed)
    await entering
    assert not house.snapshot.presence


async def test_settings_survive_the_failure_of_records(house: House) -> None:
    house.store.refuse = lambda _batch: True
    settings = Settings(magic_dns=False)

    async def change() -> None:
        async with house.live.edit(by=SYSTEM, act="test.change") as edit:
            edit.set_settings(settings)

    async with house.held():
        (task,) = await start(change())
    await task
    assert house.snapshot.settings is settings


async def test_an_edit_open_during_a_failure_fails_too(house: House) -> None:
    house.store.refuse = lambda _batch: True
    before = house.snapshot
    opened = asyncio.Event()
    go_on = asyncio.Event()

    async def slow(change: Callable[[Edit], object]) -> None:
        async with house.live.edit(by=SYSTEM, act="test.change") as edit:
            opened.set()
            await go_on.wait()
            change(edit)

    async with house.held():
        (task,) = await start(slow(lambda edit: nodes.rename(edit, NodeID(1), "desk")))
        await opened.wait()
    house.store.refuse = lambda _batch: False
    go_on.set()
    with pytest.raises(CommitFailed):
        await task
    assert house.snapshot is before

    house.store.refuse = lambda _batch: True
    opened.clear()
    go_on.clear()
    async with house.held():
        (task,) = await start(
            slow(lambda edit: presence.session_opened(edit, NodeID(1), house.clock()))
        )
        await opened.wait()
    go_on.set()
    await task
    assert house.sessions("laptop") == 1


async def test_one_bad_edit_does_not_bring_down_those_before_it(house: House) -> None:
    house.store.refuse = lambda batch: any(
        isinstance(r, User) and r.name == "poison" for rows in batch for r in rows.puts
    )
    async with house.held():
        tasks = await start(*(house.create_user(n) for n in ("a", "b", "poison", "c")))
        tasks += await start(house.enter("laptop"))
    outcomes = await asyncio.gather(*tasks, return_exceptions=True)
    failed = [isinstance(outcome, CommitFailed) for outcome in outcomes]
    assert failed == [False, False, True, True, False]
    assert {u.name for u in house.snapshot.users.values()} == {"alice", "first", "a", "b"}
    assert house.sessions("laptop") == 1
    assert house.live.snapshot.version == 5, "four edits got through after the builder's one"


async def test_a_batch_refused_once_gets_through_edit_by_edit(house: House) -> None:
    """Also edits that are drafted while the batch is tried again."""

    def refuse(batch: Sequence[Rows]) -> bool:
        if len(batch) == 3:
            house.store.gate.clear()
        return len(batch) == 3

    house.store.refuse = refuse
    async with house.held():
        tasks = await start(*(house.create_user(n) for n in ("a", "b", "c")))
    await until(lambda: house.store.writing == 1)
    tasks += await start(house.create_user("d"), house.enter("laptop"), house.create_user("e"))
    assert not any(task.done() for task in tasks)
    house.store.gate.set()
    await asyncio.gather(*tasks)
    assert [u.name for u in house.snapshot.users.values()] == [
        "alice", "first", "a", "b", "c", "d", "e"
    ]  # fmt: skip
    assert house.sessions("laptop") == 1
    assert house.snapshot.version == 8


async def test_cancelled_while_it_waits_for_the_commit_it_is_committed(house: House) -> None:
    async with house.held():
        (task,) = await start(house.rename("laptop", "desk"))
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert task.cancelled()
    await until(lambda: "desk" in house.snapshot.by_name)
    await house.rename("desk", "tower")


async def test_cancelled_while_it_waits_for_its_turn_it_never_happened(house: House) -> None:
    go_on = asyncio.Event()

    async def slow() -> None:
        async with house.live.edit(by=SYSTEM, act="test.change"):
            await go_on.wait()

    first, second = await start(slow(), house.rename("laptop", "desk"))
    second.cancel()
    await asyncio.gather(second, return_exceptions=True)
    go_on.set()
    await first
    await house.rename("laptop", "tower")
    assert set(house.snapshot.by_name) == {"tower", "phone"}


async def test_cancelled_inside_the_block_it_never_happened(house: House) -> None:
    async def slow() -> None:
        async with house.live.edit(by=SYSTEM, act="test.change") as edit:
            nodes.rename(edit, NodeID(1), "desk")
            await asyncio.Event().wait()

    (task,) = await start(slow())
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    await house.rename("laptop", "tower")
    assert set(house.snapshot.by_name) == {"tower", "phone"}


@pytest.mark.parametrize("steps", range(12))
async def test_cancelled_at_any_step_the_tailnet_goes_on(house: House, steps: int) -> None:
    """Whenever the cancellation comes, the edit happened whole or not at all, and others go on."""
    others = await start(house.create_user("bob"))
    task = asyncio.ensure_future(house.rename("laptop", "desk"))
    for _ in range(steps):
        await asyncio.sleep(0)
    task.cancel()
    await asyncio.gather(task, *others, return_exceptions=True)
    await house.create_user("carol")
    assert set(house.snapshot.by_name) in ({"laptop", "phone"}, {"desk", "phone"})
    written = [names for batch in house.store.put_names for names in batch]
    assert (["desk"] in written) == ("desk" in house.snapshot.by_name)
    assert {"bob", "carol"} <= {u.name for u in house.snapshot.users.values()}


async def test_newer_wakes_everybody_and_survives_a_cancelled_waiter(house: House) -> None:
    before = house.snapshot
    waiters = await start(*(house.live.newer(than=before) for _ in range(5)))
    waiters[2].cancel()
    await house.rename("laptop", "desk")
    found = await asyncio.gather(*waiters, return_exceptions=True)
    assert isinstance(found.pop(2), asyncio.CancelledError)
    assert all(snapshot is house.snapshot for snapshot in found)
    assert await house.live.newer(than=before) is house.snapshot


async def test_when_the_server_stops_nobody_waits_for_ever() -> None:
    house = House()
    task = asyncio.create_task(house.live.run())
    await house.enter("laptop")
    house.store.gate.clear()
    waiting = await start(house.rename("laptop", "desk"), house.leave("desk"))
    await until(lambda: house.store.writing == 1)
    task.cancel()
    outcomes = await asyncio.gather(*waiting, return_exceptions=True)
    assert [type(outcome) for outcome in outcomes] == [CommitFailed, type(None)]
    await asyncio.gather(task, return_exceptions=True)
    with pytest.raises(CommitFailed):
        await house.rename("laptop", "desk")
    await house.enter("phone")
    assert (house.sessions("laptop"), house.sessions("phone")) == (0, 1)


async def test_time_passes_from_the_first_moment_on() -> None:
    """A key that ran out while the server was down is expired before anybody looks."""
    house = House("alice: laptop!")
    node_id = NodeID(1)
    house.live.snapshot = house.live._tip = _without_presence(house.snapshot)
    task = asyncio.create_task(house.live.run())
    await until(lambda: house.snapshot.presence_of(node_id).expired)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def _without_presence(snapshot: Snapshot) -> Snapshot:
    return replace(snapshot, presence={})


async def test_grace_ends_and_ephemeral_nodes_go() -> None:
    house = House("alice: laptop job~", ephemeral_timeout=timedelta(minutes=5))
    task = asyncio.create_task(house.live.run())
    for name in ("laptop", "job"):
        await house.enter(name)
        await house.leave(name)
    house.clock.now += OFFLINE_GRACE
    await house.live.tick()
    assert not house.snapshot.presence_of(NodeID(1)).online
    assert set(house.snapshot.nodes) == {1, 2}
    house.clock.advance(minutes=5)
    await house.live.tick()
    assert set(house.snapshot.nodes) == {1}
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_ephemeral_nodes_survive_a_long_stop_of_the_server() -> None:
    house = House("alice: job~", ephemeral_timeout=timedelta(minutes=5))
    house.clock.advance(hours=2)
    task = asyncio.create_task(house.live.run())
    await house.create_user("bob")
    await house.live.tick()
    assert set(house.snapshot.nodes) == {1}
    house.clock.advance(minutes=5)
    await house.live.tick()
    assert not house.snapshot.nodes
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


async def test_a_tick_that_cannot_be_written_is_tried_again(house: House) -> None:
    async with house.live.edit(by=SYSTEM, act="test.change") as edit:
        edit.put(replace(node_named(edit, "phone"), ephemeral=True))
    house.clock.advance(hours=1)
    house.store.refuse = lambda _batch: True
    await house.live.tick()
    assert set(house.snapshot.nodes) == {1, 2}
    house.store.refuse = lambda _batch: False
    await house.live.tick()
    assert set(house.snapshot.nodes) == {1}


async def test_tailnets_are_apart_and_found_by_their_keys() -> None:
    ids = Sequences()
    texts = ("alice: laptop", "alice: laptop2 laptop3")
    store = FakeStore()
    lives = [
        LiveTailnet(build(text, ids=ids, tailnet_id=n), store, ids, clock=Clock())
        for n, text in enumerate(texts, 1)
    ]
    tailnets = LiveTailnets(lives)
    task = asyncio.create_task(tailnets.run())
    first, second = tailnets
    assert tailnets.default is first
    assert tailnets.get(TailnetID(2)) is second
    assert tailnets.get(TailnetID(3)) is None
    found = tailnets.find_node(node_key("laptop3"))
    assert found is not None
    assert (found[0], found[1].name) == (second, "laptop3")
    assert tailnets.find_node(node_key("nobody")) is None
    assert tailnets.find_machine(machine_key("laptop")) is first
    assert tailnets.find_machine(machine_key("nobody")) is None
    assert len(first.snapshot.users) == 1
    addresses = [str(n.ipv4) for live in lives for n in live.snapshot.nodes.values()]
    assert addresses == ["100.64.0.1", "100.64.0.1", "100.64.0.2"]
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)


def test_a_server_without_a_tailnet_is_no_server() -> None:
    with pytest.raises(ValueError, match="at least one"):
        LiveTailnets([])
