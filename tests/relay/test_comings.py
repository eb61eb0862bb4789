"""Relay clients and mesh links come, are refused, and end at any moment; nothing of them is left.

Logins are interrupted at every await of their admission, mesh links at every await of their life.
"""

from __future__ import annotations

import asyncio
import logging
import os
from collections.abc import Awaitable

import pytest

from appliance.front.dispatch import Front
from appliance.relay.admission import Verifier
from appliance.relay.counters import Refusal
from appliance.relay.door import RelayDoor
from appliance.relay.mesh import Mesh, MeshPeer
from appliance.wire.keys import NodeKey, PrivateKey
from tests.relay.test_alone import MESH, relay, settings
from tests.relay.wireclient import HEAD, MemoryClient, SocketClient, login_frame, new_key
from tests.support.cancelling import Interruption, at_every_await
from tests.support.memorystream import Alarms, MemoryStream
from tests.support.polling import until

AWAITS = 3


class Asked(Verifier):
    """A verifier whose control server needs some turns of the event loop for its yes."""

    def __init__(self) -> None:
        super().__init__("http://control.test/verify")
        self.under_way = 0

    async def _ask(self, key: NodeKey, source: str) -> bool:
        del key, source
        self.under_way += 1
        try:
            for _ in range(AWAITS):
                await asyncio.sleep(0)
        finally:
            self.under_way -= 1
        return True


class LoginWorld:
    """A relay that asks about a client, and the client."""

    def __init__(self, interruption: Interruption) -> None:
        self.verifier = Asked()
        self.interruption: Interruption | None = interruption
        self.door = RelayDoor(PrivateKey.generate(os.urandom), admit=self.admit)
        self.front = Front({"/derp": self.door.route}, call_later=Alarms().call_later)
        self.stream = MemoryStream()

    def admit(self, key: NodeKey, source: str) -> Awaitable[bool | None]:
        work = self.verifier.admit(key, source)
        return work if self.interruption is None else self.interruption(work)

    def log_in(self) -> MemoryClient:
        self.stream = MemoryStream(self.front.sink(), peer=("192.0.2.1", 4000))
        own = new_key()
        self.stream.deliver(HEAD + b"\r\n")
        self.stream.deliver(login_frame(own, self.door.private.public_raw))
        return MemoryClient(self.stream, own)

    # -- how it ends --

    def lost(self) -> None:
        self.stream.lose()

    def late(self) -> None:
        for login in list(self.door._logins):
            login.refuse(Refusal.LATE)
        self.stream.lose()

    def stopping(self) -> None:
        self.door.close()
        self.stream.lose()


@pytest.mark.parametrize("how", ["lost", "late", "stopping"])
async def test_login_that_ends_anywhere_leaves_nothing(how: str) -> None:
    """B2 of the relay: a question whose client has gone is withdrawn, and its place given back."""

    async def trial(interruption: Interruption) -> None:
        world = LoginWorld(interruption)
        interruption.act = getattr(world, how)
        world.log_in()
        for _ in range(4 * AWAITS):
            await asyncio.sleep(0)
        if not interruption.is_reached:
            world.lost()
        assert not world.door._asking
        assert world.door.unfinished_logins == 0
        assert world.door.counters.clients == 0
        assert not any(world.door._wheel)
        assert world.verifier.under_way == 0
        assert not world.verifier._turn.locked()
        if how != "stopping":
            world.interruption = None
            world.log_in()
            await until(lambda: world.door.counters.clients == 1)
        world.door.close()
        world.stream.lose()

    assert await at_every_await(trial) >= AWAITS


async def test_question_is_withdrawn_with_the_connection() -> None:
    """A stranger who asks and leaves, again and again, must not pile up questions."""
    asked: list[asyncio.Event] = []

    async def admit(_key: NodeKey, _source: str) -> bool:
        asked.append(asyncio.Event())
        return await asked[-1].wait()

    door = RelayDoor(PrivateKey.generate(os.urandom), admit=admit)
    front = Front({"/derp": door.route}, call_later=Alarms().call_later)
    for number in range(20):
        stream = MemoryStream(front.sink(), peer=("192.0.2.1", 4000))
        stream.deliver(HEAD + b"\r\n")
        stream.deliver(login_frame(new_key(), door.private.public_raw))
        await until(lambda number=number: len(asked) > number)  # type: ignore[misc]  # bound at once
        stream.lose()
    await until(lambda: not door._asking)
    door.close()


async def test_mesh_link_that_is_cancelled_anywhere_leaves_nothing() -> None:
    """B2 of the mesh: no forwarder, no connection, no gauge."""
    async with relay(settings(mesh_key=MESH)) as far:
        port = far.listeners[0].port
        client = await SocketClient().connect(port)

        async def trial(interruption: Interruption) -> None:
            door = RelayDoor(PrivateKey.generate(os.urandom), mesh_key=MESH)
            mesh = Mesh(door, MESH, (), retry_s=0.0)
            peer = MeshPeer(f"http://127.0.0.1:{port}/derp")
            work = asyncio.create_task(interruption(mesh._keep_up(peer)))
            interruption.act = work.cancel
            await until(lambda: work.done() or bool(door.server._forwarders))
            if not interruption.is_reached or not work.done():
                work.cancel()
            await asyncio.gather(work, return_exceptions=True)
            assert mesh.counters.connected == 0
            assert not door.server._forwarders
            await until(lambda: far.door.counters.mesh_clients == 0)
            door.close()

        assert await at_every_await(trial) >= 4
        assert client.lost_for is None


async def test_client_that_is_refused_again_and_again_is_one_line(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """B5 and real clients 5: a deleted node asks every two seconds, for as long as it runs."""
    door = RelayDoor(PrivateKey.generate(os.urandom), admit=lambda _key, _source: False)
    front = Front({"/derp": door.route}, call_later=Alarms().call_later)
    keys = [new_key(), new_key()]
    with caplog.at_level(logging.INFO):
        for own in keys * 20:
            stream = MemoryStream(front.sink(), peer=("192.0.2.1", 4000))
            stream.deliver(HEAD + b"\r\n")
            stream.deliver(login_frame(own, door.private.public_raw))
            assert stream.is_closing()
    lines = [one for one in caplog.records if "not admitted" in one.getMessage()]
    assert {one.__dict__["node"] for one in lines} == {NodeKey(k.public_raw).short for k in keys}
    assert len(lines) == len(keys)
    assert door.counters.refused[Refusal.NOT_ADMITTED] == 40
    door.close()
