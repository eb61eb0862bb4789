"""The storm valve: who is told to come again, who never is, and that every place is given back."""

from __future__ import annotations

import asyncio
from random import Random

import pytest

from appliance.control.machine import MachineDoor
from appliance.control.mapsession import MapSessions
from appliance.control.valve import (
    MAP_OBEYS,
    REGISTER_OBEYS,
    SOONEST_S,
    SPREAD_S,
    Valve,
)
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnets
from appliance.netmap.encoded import Encoder
from appliance.wire import tailcfg
from tests.control.recorder import Recorder
from tests.control.tailnets import machine_key, make_live, node_key
from tests.support.cancelling import Interruption, at_every_await
from tests.support.waitinglogins import logins_of

MOST = 2


class House:
    """A door whose valve closes at two, before a tailnet whose commits wait until it runs."""

    def __init__(self) -> None:
        self.live = make_live(9)
        encoder = Encoder()
        sessions = MapSessions(self.live, encoder, clock=lambda: 0.0, jitter=lambda: 0.0)
        self.door = MachineDoor(
            LiveTailnets([self.live]),
            {self.live.id: sessions},
            {self.live.id: encoder},
            SSHChecks(Random(2).randbytes),
            logins_of(LiveTailnets([self.live])),
            rng=Random(1),
            most_waiting=MOST,
        )

    def ask(self, path: str, number: int, version: int) -> tuple[Recorder, asyncio.Task[None]]:
        recorder = Recorder(machine_key(number), version=version)
        body: tailcfg.RegisterRequest | tailcfg.MapRequest = tailcfg.RegisterRequest(
            version=130, node_key=node_key(number), hostinfo=tailcfg.Hostinfo(hostname="new")
        )
        if path == "/machine/map":
            body = tailcfg.MapRequest(version=130, node_key=node_key(number), stream=True)
        work = self.door.handle(recorder.request(path, tailcfg.encode(body)))
        assert work is not None
        return recorder, asyncio.create_task(work)


@pytest.mark.parametrize(
    ("path", "obeys"), [("/machine/register", REGISTER_OBEYS), ("/machine/map", MAP_OBEYS)]
)
async def test_who_obeys_is_sent_away_when_too_many_wait_and_others_never(
    path: str, obeys: int
) -> None:
    """B9: 429 with Retry-After from 137 on for registrations, from 147 on for maps."""
    house = House()
    async with house.live._lock:  # a draft that takes its time: nobody gets on
        asked = [house.ask(path, number, obeys) for number in range(1, MOST + 1)]
        await asyncio.sleep(0)
        late, late_task = house.ask(path, 3, obeys)
        older, older_task = house.ask(path, 4, obeys - 1)
        await late_task
        assert late.status == 429
        assert SOONEST_S <= int(late.headers[b"retry-after"]) <= SOONEST_S + SPREAD_S
        assert not older_task.done()
    running = asyncio.create_task(house.live.run())
    await asyncio.gather(*(task for _, task in asked), older_task)
    assert [recorder.status for recorder, _ in asked] == [200, 200]
    assert older.status == 200, "a client that does not know 429 is never sent away"
    again, task = house.ask(path, 5, obeys)
    await task
    assert again.status == 200
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)


async def test_place_is_given_back_wherever_a_request_is_cancelled() -> None:
    valve = Valve(REGISTER_OBEYS, jitter=lambda: 0.0)

    async def request() -> None:
        with valve.turn():
            await asyncio.sleep(0)
            await asyncio.sleep(0)

    async def trial(interruption: Interruption) -> None:
        task = asyncio.create_task(interruption(request()))
        interruption.act = task.cancel
        await asyncio.gather(task, return_exceptions=True)
        assert valve.waiting == 0

    assert await at_every_await(trial) >= 4


def test_those_who_are_sent_away_come_back_one_by_one() -> None:
    rng = Random(3)
    valve = Valve(REGISTER_OBEYS, jitter=rng.random, most=0)
    told = set()
    for _ in range(500):
        recorder = Recorder(machine_key(1), version=REGISTER_OBEYS)
        assert valve.defers(recorder.request("/machine/register"))
        told.add(int(recorder.headers[b"retry-after"]))
    assert len(told) > SPREAD_S * 0.8
    assert valve.deferred == 500
