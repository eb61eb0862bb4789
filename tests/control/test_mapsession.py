"""Map sessions: the first map, differences, slow readers, replacement, leaving, keep-alives."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace

import pytest

from appliance.control import mapsession
from appliance.control.mapsession import MapSession, MapSessions
from appliance.identity.principals import SYSTEM
from appliance.live import LiveTailnet
from appliance.netmap.encoded import Encoder
from appliance.records import NodeID
from appliance.wire import tailcfg
from tests.control.recorder import Recorder
from tests.control.tailnets import machine_key, make_live, make_node, node_key
from tests.support.polling import until


class Seconds:
    """A clock of the event loop's kind that a test sets."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Lab:
    def __init__(self, live: LiveTailnet) -> None:
        self.live = live
        self.seconds = Seconds()
        # Distribute at once: these tests are about what is sent, not about when.
        self.sessions = MapSessions(
            live,
            Encoder(),
            clock=self.seconds,
            jitter=lambda: 0.0,
            coalesce_s=0.0,
            max_gap_s=0.0,
        )

    async def poll(self, number: int, *, compress: str = "zstd", version: int = 130) -> Recorder:
        recorder = Recorder(machine_key(number), version=version)
        request = tailcfg.MapRequest(
            version=version,
            compress=compress,
            keep_alive=True,
            stream=True,
            node_key=node_key(number),
        )
        await self.sessions.open(recorder.request("/machine/map"), NodeID(number), request)
        return recorder

    async def change(self, number: int, **fields: object) -> None:
        async with self.live.edit(by=SYSTEM, act="test.change") as edit:
            edit.put(replace(edit.nodes[NodeID(number)], **fields))  # type: ignore[arg-type]

    async def until(self, holds: Callable[[], object]) -> None:
        await until(lambda: bool(holds()))


@asynccontextmanager
async def running(nodes: int) -> AsyncIterator[Lab]:
    lab = Lab(make_live(nodes))
    tasks = [
        asyncio.create_task(lab.live.run(), name="live"),
        asyncio.create_task(lab.sessions.run(), name="sessions"),
    ]
    try:
        yield lab
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("compress", ["zstd", ""])
async def test_first_message_is_the_full_map(compress: str) -> None:
    async with running(3) as lab:
        recorder = await lab.poll(1, compress=compress)
        (first,) = recorder.messages()
        assert first.node is not None
        assert first.node.id == 1
        assert [peer.id for peer in first.peers or ()] == [2, 3]
        assert lab.live.snapshot.presence_of(NodeID(1)).online


async def test_change_reaches_the_others_as_a_difference() -> None:
    async with running(3) as lab:
        one, two = await lab.poll(1), await lab.poll(2)
        await lab.until(lambda: lab.sessions.counters.rounds)
        one.messages()
        two.messages()
        await lab.change(3, home_derp=7)
        await lab.until(lambda: one.body and two.body)
        for recorder in (one, two):
            (difference,) = recorder.messages()
            assert [p.derp_region for p in difference.peers_changed_patch or ()] == [7]


async def test_slow_reader_skips_versions_and_catches_up() -> None:
    async with running(3) as lab:
        slow, quick = await lab.poll(1), await lab.poll(2)
        await lab.until(lambda: lab.sessions.counters.rounds)
        slow.messages()
        slow.window = 0
        for region in (1, 2, 3, 4):
            quick.messages()
            await lab.change(3, home_derp=region)
            await lab.until(lambda: quick.body)
        assert slow.out is not None
        assert slow.out.backlog
        slow.take(slow.out, 1 << 20)
        messages = slow.messages()
        patches = [p.derp_region for m in messages for p in m.peers_changed_patch or ()]
        assert len(messages) == 2
        assert patches[-1] == 4


async def test_second_poll_of_a_node_replaces_the_first() -> None:
    async with running(2) as lab:
        first = await lab.poll(1)
        second = await lab.poll(1)
        assert first.out is not None
        assert first.out.ending
        assert second.out is not None
        assert not second.out.ending
        await lab.until(lambda: lab.live.snapshot.presence_of(NodeID(1)).sessions == 1)
        assert lab.sessions.counters.replaced == 1
        # The late end of the first connection must not count against the second.
        first.out.lose()
        await asyncio.sleep(0)
        assert lab.live.snapshot.presence_of(NodeID(1)).sessions == 1
        assert len(lab.sessions) == 1


async def test_client_that_goes_away_starts_its_grace_time() -> None:
    async with running(2) as lab:
        recorder = await lab.poll(1)
        assert recorder.out is not None
        recorder.out.lose()
        await lab.until(lambda: lab.live.snapshot.presence_of(NodeID(1)).sessions == 0)
        assert lab.live.snapshot.presence_of(NodeID(1)).online
        assert len(lab.sessions) == 0


async def test_client_gone_before_the_answer_leaves_no_session() -> None:
    async with running(1) as lab:
        recorder = Recorder(machine_key(1))
        exchange = recorder.request("/machine/map")
        exchange.lose()
        request = tailcfg.MapRequest(version=130, stream=True, node_key=node_key(1))
        await lab.sessions.open(exchange, NodeID(1), request)
        await lab.until(lambda: lab.live.snapshot.presence_of(NodeID(1)).sessions == 0)
        assert len(lab.sessions) == 0


async def test_deleted_node_loses_its_session() -> None:
    async with running(2) as lab:
        recorder = await lab.poll(1)
        async with lab.live.edit(by=SYSTEM, act="test.change") as edit:
            edit.drop(make_node(1))
        assert recorder.out is not None
        await lab.until(lambda: recorder.out is not None and recorder.out.ending)
        assert len(lab.sessions) == 0


async def test_keep_alive_is_the_exact_bytes_that_clients_know() -> None:
    async with running(1) as lab:
        recorder = await lab.poll(1, compress="")
        await lab.until(lambda: lab.sessions.counters.rounds)
        recorder.messages()
        session = only_session(lab.sessions)
        lab.seconds.now += mapsession.KEEP_ALIVE_S
        lab.sessions._keep_one_alive(session)
        assert recorder.body == b"\x12\x00\x00\x00" + b'{"KeepAlive":true}'


async def test_client_that_reads_nothing_is_ended() -> None:
    async with running(2) as lab:
        recorder = await lab.poll(1)
        recorder.window = 0
        await lab.change(2, home_derp=3)
        await lab.until(lambda: recorder.out is not None and recorder.out.backlog)
        session = only_session(lab.sessions)
        lab.seconds.now += mapsession.STALL_S + 1
        lab.sessions._keep_one_alive(session)
        assert recorder.was_reset
        assert lab.sessions.counters.stalled == 1
        assert len(lab.sessions) == 0


async def test_posted_ping_waits_behind_a_backlog() -> None:
    async with running(1) as lab:
        recorder = await lab.poll(1, compress="")
        await lab.until(lambda: lab.sessions.counters.rounds)
        recorder.messages()
        ping = tailcfg.MapResponse(ping_request=tailcfg.PingRequest(url="https://unused/x"))
        recorder.window = 0
        assert lab.sessions.post(NodeID(1), ping)
        assert lab.sessions.post(NodeID(1), ping)
        assert not lab.sessions.post(NodeID(9), ping)
        assert recorder.out is not None
        recorder.take(recorder.out, 1 << 20)
        assert len(recorder.messages()) == 2


async def test_mailbox_is_bounded() -> None:
    async with running(1) as lab:
        recorder = await lab.poll(1)
        await lab.until(lambda: lab.sessions.counters.rounds)
        recorder.window = 0
        ping = tailcfg.MapResponse(ping_request=tailcfg.PingRequest(url="https://unused/x"))
        taken = sum(lab.sessions.post(NodeID(1), ping) for _ in range(100))
        assert taken == 1 + mapsession.MAX_MAILBOX


def only_session(sessions: MapSessions) -> MapSession:
    (session,) = sessions._sessions.values()
    return session
