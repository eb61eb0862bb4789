"""A viewer, a record or a session that a bug hits costs its own session; everything else goes on."""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime

import pytest

from appliance.control.exchange import OutStream
from appliance.control.link import STRANGER_IDLE_S
from appliance.control.mapsession import KEEP_ALIVE_S, MapSessions
from appliance.control.ts2021 import Ts2021
from appliance.front.dispatch import Front
from appliance.identity.principals import SYSTEM
from appliance.netmap.encoded import Encoder
from appliance.records import NodeID
from appliance.tailnet import presence
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey, PrivateKey
from tests.control.recorder import Recorder
from tests.control.tailnets import machine_key, make_live, node_key
from tests.support.controlclient import ControlClient
from tests.support.memorystream import Alarms, MemoryStream
from tests.support.polling import until

POISONED = NodeID(2)


class FlawedEncoder(Encoder):
    """Fails for one viewer while ``flaw`` names the call that does."""

    flaw = ""

    def full(
        self,
        snapshot: Snapshot,
        viewer: NodeID,
        capver: int,
        *,
        zstd: bool,
        now: datetime | None = None,
    ) -> list[bytes]:
        if self.flaw == "full" and viewer == POISONED:
            raise KeyError(viewer)
        return super().full(snapshot, viewer, capver, zstd=zstd, now=now)

    def delta(
        self, old: Snapshot, new: Snapshot, viewer: NodeID, capver: int, *, zstd: bool
    ) -> list[bytes] | None:
        if self.flaw == "delta" and viewer == POISONED:
            raise KeyError(viewer)
        return super().delta(old, new, viewer, capver, zstd=zstd)


class FlawedRecorder(Recorder):
    """Cannot send while ``is_broken``, nor be reset."""

    is_broken = False

    def send(self, out: OutStream, parts: Sequence[bytes]) -> None:
        if self.is_broken:
            raise RuntimeError("no more of this")
        super().send(out, parts)

    def reset(self, stream_id: int) -> None:
        super().reset(stream_id)
        if self.is_broken:
            raise RuntimeError("nor this")


class Lab:
    def __init__(self) -> None:
        self.live = make_live(4)
        self.now = 1000.0
        self.encoder = FlawedEncoder()
        self.sessions = MapSessions(
            self.live,
            self.encoder,
            clock=lambda: self.now,
            jitter=lambda: 0.0,
            coalesce_s=0.0,
            max_gap_s=0.0,
        )

    async def poll(self, number: int) -> FlawedRecorder:
        recorder = FlawedRecorder(machine_key(number))
        request = tailcfg.MapRequest(
            version=130, keep_alive=True, stream=True, node_key=node_key(number)
        )
        await self.sessions.open(recorder.request("/machine/map"), NodeID(number), request)
        return recorder

    async def change(self, number: int, **fields: object) -> None:
        """Change a node and wait until that is handed out."""
        async with self.live.edit(by=SYSTEM, act="test.change") as edit:
            edit.put(replace(edit.nodes[NodeID(number)], **fields))  # type: ignore[arg-type]  # field names
        await until(lambda: self.sessions._distributed is self.live.snapshot)
        rounds = self.sessions.counters.rounds
        await until(lambda: self.sessions.counters.rounds > rounds - 1)

    def sessions_of(self, number: int) -> int:
        return self.live.snapshot.presence_of(NodeID(number)).sessions


@asynccontextmanager
async def running() -> AsyncIterator[Lab]:
    lab = Lab()
    tasks = [asyncio.create_task(lab.live.run()), asyncio.create_task(lab.sessions.run())]
    try:
        yield lab
        assert not any(task.done() for task in tasks), "a loop ended"
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def failures(caplog: pytest.LogCaptureFixture) -> list[logging.LogRecord]:
    found = [one for one in caplog.records if one.levelno >= logging.ERROR]
    assert all(one.exc_info for one in found)
    return found


async def hears(lab: Lab, recorder: Recorder, region: int) -> None:
    """Assert that a change of node 4 reaches this session."""
    heard: list[int] = []
    await lab.change(4, home_derp=region)

    def is_heard() -> bool:
        for message in recorder.messages():
            heard.extend(p.derp_region for p in message.peers_changed_patch or () if p.node_id == 4)
        return region in heard

    await until(is_heard)


async def test_viewer_whose_delta_fails_loses_its_session_only(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """D2b."""
    async with running() as lab:
        well, ill = await lab.poll(1), await lab.poll(POISONED)
        await hears(lab, well, 1)
        lab.encoder.flaw = "delta"
        for region in range(2, 8):
            await hears(lab, well, region)
            assert ill.was_reset
            await until(lambda: lab.sessions_of(POISONED) == 0)
            ill = await lab.poll(POISONED)  # the client comes back and gets the full map
            assert ill.messages()
        assert lab.sessions.counters.failed == 6
        (line,) = failures(caplog)
        assert (line.getMessage(), line.node) == ("map session failed", POISONED)  # type: ignore[attr-defined]  # by extra
        lab.encoder.flaw = ""
        await hears(lab, ill, 9)


async def test_viewer_whose_full_map_fails_is_ended_and_logged_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """D2b."""
    async with running() as lab:
        well = await lab.poll(1)
        lab.encoder.flaw = "full"
        for _ in range(5):
            assert (await lab.poll(POISONED)).was_reset
        await until(lambda: lab.sessions_of(POISONED) == 0)
        assert len(lab.sessions) == 1
        assert lab.sessions.counters.failed == len(failures(caplog)) * 5 == 5
        await hears(lab, well, 3)


async def test_session_that_cannot_be_written_nor_reset_is_let_go(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """D2b: a poisoned session."""
    async with running() as lab:
        well, ill = await lab.poll(1), await lab.poll(POISONED)
        await hears(lab, well, 1)
        ill.is_broken = True
        await hears(lab, well, 2)
        assert len(lab.sessions) == 1
        await until(lambda: lab.sessions_of(POISONED) == 0)
        assert [line.getMessage() for line in failures(caplog)] == [
            "map session failed",
            "a failed map session could not be broken off",
        ]


async def test_session_that_cannot_be_kept_alive_does_not_stop_the_others(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """D2b, the other loop."""
    async with running() as lab:
        ill, well = await lab.poll(POISONED), await lab.poll(1)
        await hears(lab, well, 1)
        ill.is_broken = True
        lab.now += KEEP_ALIVE_S
        lab.sessions.keep_alive(range(1000, int(lab.now) + 1))
        assert [message.keep_alive for message in well.messages()] == [True]
        assert len(lab.sessions) == 1
        assert lab.sessions.counters.failed == 1
        assert failures(caplog)


async def test_session_that_fails_when_its_backlog_is_gone_is_ended() -> None:
    """It would else stay behind for good, and nobody would notice."""
    async with running() as lab:
        ill = await lab.poll(POISONED)
        await lab.change(4, home_derp=1)
        ill.window = 0
        await lab.change(4, home_derp=2)
        await lab.change(4, home_derp=3)
        assert ill.out is not None
        assert ill.out.backlog
        lab.encoder.flaw = "delta"
        ill.take(ill.out, 1 << 20)
        assert ill.was_reset
        assert lab.sessions.counters.failed == 1
        assert len(lab.sessions) == 0


async def test_record_that_cannot_be_told_is_logged_once_and_can_be_mended(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """D2b: a poisoned record, which every viewer meets at the same place."""
    async with running() as lab:
        viewers = [await lab.poll(number) for number in (1, 2, 3)]
        await hears(lab, viewers[0], 1)
        good = lab.live.snapshot.nodes[NodeID(4)].ipv6
        await lab.change(4, ipv6=object())
        await until(lambda: len(lab.sessions) == 0)
        assert all(viewer.was_reset for viewer in viewers)
        assert lab.sessions.counters.failed == 3
        for _ in range(4):
            await lab.poll(1)
        assert 1 <= len(failures(caplog)) <= 2, "one for the difference, one for the full map"
        await lab.change(4, ipv6=good)
        await hears(lab, await lab.poll(1), 5)


async def test_leaving_that_a_bug_is_in_the_way_of_keeps_nobody_else_online(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """D2: the third loop of the map sessions."""
    leave: Callable[..., None] = presence.session_closed

    def flawed(edit: object, node_id: NodeID, now: datetime) -> None:
        if node_id == POISONED:
            raise KeyError(node_id)
        leave(edit, node_id, now)

    monkeypatch.setattr(presence, "session_closed", flawed)
    async with running() as lab:
        recorders = [await lab.poll(number) for number in (1, 2, 3)]
        for recorder in recorders:
            assert recorder.out is not None
            recorder.out.lose()
        await until(lambda: not lab.sessions_of(1) and not lab.sessions_of(3))
        await until(lambda: bool(failures(caplog)))
        assert len(failures(caplog)) == 1


def test_link_that_a_bug_hits_at_the_sweep_is_closed_and_the_others_are_swept(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """D2: the loop over the links."""
    now = 1000.0
    key = PrivateKey.generate(os.urandom)
    door = Ts2021(key, lambda _exchange: None, clock=lambda: now)
    front = Front({"/ts2021": door.open}, call_later=Alarms().call_later)
    streams = []
    for _ in range(3):
        client = ControlClient(MachineKey(key.public_raw))
        streams.append(MemoryStream(front.sink(), peer=("192.0.2.1", 4000)))
        streams[-1].deliver(client.upgrade())
    poisoned = next(iter(door.links))
    poisoned.last_used = "yesterday"  # type: ignore[assignment]
    now += STRANGER_IDLE_S + 1
    door.sweep()
    assert all(stream.is_closing() for stream in streams)
    assert len(failures(caplog)) == 1
