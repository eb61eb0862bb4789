"""A client that goes away at any moment leaves nothing behind: no presence, task, stream or lock.

Every request of the nodes' door is interrupted at every await, by a reset stream, by a lost
connection and by the server's stop, with a commit under way meanwhile.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random

import h2.exceptions
import pytest

from appliance.control.exchange import Answering, Exchange
from appliance.control.machine import MachineDoor
from appliance.control.mapsession import MapSessions
from appliance.control.ts2021 import Ts2021
from appliance.front.dispatch import Front
from appliance.identity.principals import SYSTEM
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnet, LiveTailnets
from appliance.netmap.encoded import Encoder
from appliance.records import Node, NodeID, UserID
from appliance.tailnet import keys
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey, PrivateKey
from tests.control.tailnets import make_live, node_key
from tests.support.cancelling import Interruption, at_every_await
from tests.support.clock import Clock
from tests.support.controlclient import Answer, ControlClient
from tests.support.livehouse import FakeStore
from tests.support.memorystream import Alarms, MemoryStream
from tests.support.pace import patience
from tests.support.polling import until
from tests.support.waitinglogins import logins_of

TURNS = 40
"""Rounds of the event loop after which nothing of ours still moves."""


class Connection:
    """A client's link and the bytes on it."""

    def __init__(self, world: World, machine: PrivateKey) -> None:
        self.world = world
        self.stream_id = 0
        self.client = ControlClient(world.public, version=130, machine=machine)
        self.stream = MemoryStream(world.front.sink(), peer=("192.0.2.1", 4000))
        self.stream.deliver(self.client.upgrade())
        self.carry()

    def carry(self) -> None:
        """Carry bytes until both are silent."""
        for _ in range(20):
            down = self.stream.take()
            if down:
                self.client.receive(down)
            up = self.client.take() if self.client.session else b""
            if up and not self.stream.is_closing():
                self.stream.deliver(up)
            if not (up or down):
                return

    def send(self, path: str, body: bytes = b"{}", method: str = "POST") -> None:
        self.stream_id = self.client.request(path, body, method=method)
        self.stream.deliver(self.client.take())

    def reset(self) -> None:
        """Let the client break its last request off."""
        try:
            self.client.http.reset_stream(self.stream_id)
        except h2.exceptions.StreamClosedError:
            return  # the answer was quicker
        self.stream.deliver(self.client.take())

    def lost(self) -> None:
        """Cut the connection."""
        self.stream.lose()

    def stopping(self) -> None:
        """Let the server cancel its handlers first, as it does when it stops."""
        for task in [task for link in self.world.door.links for task in link.tasks]:
            task.cancel()
        self.stream.lose()

    async def ask(self, path: str, body: bytes = b"{}") -> Answer:
        """Ask and wait for the head of the answer."""
        self.send(path, body)
        answer = self.client.answers[self.stream_id]
        async with asyncio.timeout(patience(10)):
            while not answer.status:
                await asyncio.sleep(0)
                self.carry()
        return answer


class World:
    """One tailnet, its nodes' door and a member, as the server joins them, without sockets."""

    def __init__(self) -> None:
        self.interruption: Interruption | None = None
        self.clock = Clock()
        self.store = FakeStore()
        self.key = ""
        base = make_live(2)
        self.machine = PrivateKey.generate(os.urandom)
        self.live = LiveTailnet(base.snapshot, self.store, base._ids, clock=self.clock)
        encoder = Encoder()
        self.sessions = MapSessions(self.live, encoder, clock=lambda: 0.0, jitter=lambda: 0.0)
        self.checks = SSHChecks(Random(2).randbytes)
        self.machines = MachineDoor(
            LiveTailnets([self.live]),
            {self.live.id: self.sessions},
            {self.live.id: encoder},
            self.checks,
            logins_of(LiveTailnets([self.live])),
            rng=Random(1),
        )
        server = PrivateKey.generate(os.urandom)
        self.public = MachineKey(server.public_raw)
        self.door = Ts2021(server, self.handle, clock=lambda: 0.0)
        self.front = Front({"/ts2021": self.door.open}, call_later=Alarms().call_later)

    def handle(self, exchange: Exchange) -> Answering | None:
        work = self.machines.handle(exchange)
        if work is None or self.interruption is None:
            return work
        return self.interruption(work)

    @asynccontextmanager
    async def running(self) -> AsyncIterator[World]:
        tasks = [asyncio.create_task(self.live.run()), asyncio.create_task(self.sessions.run())]
        await self.change(1, machine_key=MachineKey(self.machine.public_raw), ephemeral=True)
        async with self.live.edit(by=SYSTEM, act="test.change") as edit:
            _record, self.key = keys.create_auth_key(
                edit,
                user_id=UserID(1),
                now=self.clock(),
                random_bytes=Random(7).randbytes,
                ephemeral=True,
            )
        try:
            yield self
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)

    async def change(self, number: int, **fields: object) -> None:
        async with self.live.edit(by=SYSTEM, act="test.change") as edit:
            edit.put(replace(edit.nodes[NodeID(number)], **fields))  # type: ignore[arg-type]  # field names

    @property
    def node(self) -> Node:
        return self.live.snapshot.nodes[NodeID(1)]

    @asynccontextmanager
    async def slow_disk(self) -> AsyncIterator[None]:
        """Let a commit be under way inside the block."""
        self.store.gate.clear()
        other = asyncio.create_task(self.change(2, home_derp=3))
        await until(lambda: self.store.writing == 1)
        try:
            yield
        finally:
            self.store.gate.set()
            await other

    async def settle(self) -> None:
        for _ in range(TURNS):
            await asyncio.sleep(0)

    async def assert_clean(self) -> None:
        """Nothing of the interrupted request is left, and the next one works."""
        for link in self.door.links:
            assert not link._tasks
            assert link.streams == 0
            assert link._http.unfinished_bytes == 0
        assert not self.machines._turn.locked()
        assert not self.machines.pings._waiting
        presence = self.live.snapshot.presence_of(NodeID(1))
        assert presence.sessions == len(self.sessions) == 0
        async with asyncio.timeout(patience(10)):
            await self.change(2, home_derp=9)
        connection = Connection(self, self.machine)
        poll = tailcfg.MapRequest(version=130, stream=True, node_key=self.node.node_key)
        assert (await connection.ask("/machine/map", tailcfg.encode(poll))).status == 200
        assert self.live.snapshot.presence_of(NodeID(1)).sessions == 1
        connection.stream.lose()
        await until(lambda: not self.live.snapshot.presence_of(NodeID(1)).sessions)
        self.clock.advance(days=30)
        await self.live.tick()
        assert NodeID(1) not in self.live.snapshot.nodes, "an ephemeral node that left is removed"


Ask = Callable[[World, Connection], None]


def _register_new(world: World, connection: Connection) -> None:
    auth = tailcfg.RegisterResponseAuth(auth_key=world.key)
    request = tailcfg.RegisterRequest(version=130, node_key=node_key(77), auth=auth)
    connection.send("/machine/register", tailcfg.encode(request))


def _register_again(world: World, connection: Connection) -> None:
    hostinfo = tailcfg.Hostinfo(hostname="renamed")
    request = tailcfg.RegisterRequest(version=130, node_key=world.node.node_key, hostinfo=hostinfo)
    connection.send("/machine/register", tailcfg.encode(request))


def _check_in(world: World, connection: Connection, **fields: object) -> None:
    request = tailcfg.MapRequest(
        version=130,
        node_key=world.node.node_key,
        hostinfo=tailcfg.Hostinfo(hostname="other"),
        **fields,  # type: ignore[arg-type]  # field names
    )
    connection.send("/machine/map", tailcfg.encode(request))


def _check_in_only(world: World, connection: Connection) -> None:
    _check_in(world, connection, omit_peers=True)


def _one_map(world: World, connection: Connection) -> None:
    _check_in(world, connection)


def _poll(world: World, connection: Connection) -> None:
    _check_in(world, connection, stream=True, keep_alive=True)


def _ssh_question(_world: World, connection: Connection) -> None:
    connection.send("/machine/ssh/action/2/to/1?local_user=root", method="GET")


ASKS: dict[str, Ask] = {
    "register": _register_new,
    "register-again": _register_again,
    "check-in": _check_in_only,
    "one-map": _one_map,
    "poll": _poll,
    "ssh": _ssh_question,
}


@pytest.mark.parametrize("how", ["reset", "lost", "stopping"])
@pytest.mark.parametrize("ask", ASKS)
async def test_request_that_is_interrupted_anywhere_leaves_nothing(ask: str, how: str) -> None:
    """H3, and the coroutine that was never awaited (real clients, 9)."""

    async def trial(interruption: Interruption) -> None:
        async with World().running() as world:
            connection = Connection(world, world.machine)
            interruption.act = getattr(connection, how)
            world.interruption = interruption
            async with world.slow_disk():
                ASKS[ask](world, connection)
                await world.settle()
            await world.settle()
            world.interruption = None
            connection.reset()  # what no interruption reached ends like this
            await world.settle()
            await world.assert_clean()

    assert await at_every_await(trial) >= 4
