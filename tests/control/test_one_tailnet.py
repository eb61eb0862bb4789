"""A node key stands in one tailnet of the server, whatever asks at once; what is loaded otherwise
is put in order."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path
from random import Random

import pytest

from appliance.control.machine import MachineDoor
from appliance.control.mapsession import MapSessions
from appliance.identity.principals import SYSTEM
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnet, LiveTailnets
from appliance.netmap.encoded import Encoder
from appliance.records import Node, UserID
from appliance.tailnet import keys, users
from appliance.tailnet.snapshot import Edit, Sequences
from appliance.wire import tailcfg
from appliance.wire.keys import NodeKey
from tests.control.recorder import Recorder
from tests.control.tailnets import machine_key, make_node
from tests.control.tailnets import node_key as key_number
from tests.serve.test_server import plan
from tests.serve.test_server import running as serving
from tests.support.builder import build
from tests.support.clock import NOON, Clock
from tests.support.livehouse import FakeStore
from tests.support.polling import until
from tests.support.waitinglogins import logins_of

KEY = key_number(77)


class Server:
    """Two tailnets, a reusable auth key of each, and the nodes' door before them."""

    def __init__(self, texts: tuple[str, str] = ("alice: laptop", "bob: phone")) -> None:
        self.clock = Clock()
        self.store = FakeStore()
        ids = Sequences()
        self.lives = [
            LiveTailnet(build(text, ids=ids, tailnet_id=n), self.store, ids, clock=self.clock)
            for n, text in enumerate(texts, 1)
        ]
        self.tailnets = LiveTailnets(self.lives)
        encoders = {live.id: Encoder() for live in self.lives}
        self.sessions = {
            live.id: MapSessions(live, encoders[live.id], clock=lambda: 0.0, jitter=lambda: 0.0)
            for live in self.lives
        }
        checks = SSHChecks(Random(2).randbytes)
        self.door = MachineDoor(
            self.tailnets, self.sessions, encoders, checks, logins_of(self.tailnets), rng=Random(1)
        )
        self.keys: list[str] = []

    async def new_keys(self) -> None:
        for number, live in enumerate(self.lives):
            async with live.edit(by=SYSTEM, act="test.change") as edit:
                user_id = next(iter(edit.users))
                _record, text = keys.create_auth_key(
                    edit,
                    user_id=UserID(user_id),
                    now=NOON,
                    random_bytes=Random(number).randbytes,
                    reusable=True,
                )
            self.keys.append(text)

    async def ask(self, machine: int, path: str, body: bytes) -> Recorder:
        recorder = Recorder(machine_key(machine))
        work = self.door.handle(recorder.request(path, body))
        if work is not None:
            await work
        return recorder

    async def register(
        self, machine: int, tailnet: int, key: NodeKey = KEY, old: NodeKey | None = None
    ) -> tailcfg.RegisterResponse:
        request = tailcfg.RegisterRequest(
            version=130,
            node_key=key,
            old_node_key=old or NodeKey.zero(),
            auth=tailcfg.RegisterResponseAuth(auth_key=self.keys[tailnet]),
            hostinfo=tailcfg.Hostinfo(hostname=f"host{machine}"),
        )
        recorder = await self.ask(machine, "/machine/register", tailcfg.encode(request))
        assert recorder.status == 200
        return tailcfg.decode_register_response(recorder.body)

    def holders(self, key: NodeKey = KEY) -> list[LiveTailnet]:
        return [live for live in self.lives if live.snapshot.node_of(key) is not None]


@asynccontextmanager
async def running(server: Server | None = None) -> AsyncIterator[Server]:
    server = server or Server()
    work = [server.tailnets.run(), *(each.run() for each in server.sessions.values())]
    tasks = [asyncio.create_task(one) for one in work]
    await server.new_keys()
    try:
        yield server
    finally:
        server.store.gate.set()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


@pytest.mark.parametrize("machines", [(50, 50), (50, 51)], ids=["one-machine", "two-machines"])
@pytest.mark.parametrize("order", [(0, 1), (1, 0)])
@pytest.mark.parametrize("lead", range(6))
async def test_node_key_that_two_registrations_bring_at_once_stands_in_one_tailnet(
    machines: tuple[int, int], order: tuple[int, int], lead: int
) -> None:
    """H6. ``lead`` is how many turns of the event loop the first is ahead."""
    async with running() as server:
        first = asyncio.create_task(server.register(machines[0], order[0]))
        for _ in range(lead):
            await asyncio.sleep(0)
        second = asyncio.create_task(server.register(machines[1], order[1]))
        answers = await asyncio.gather(first, second)
        assert len(server.holders()) == 1
        errors = [answer.error for answer in answers if answer.error]
        assert len(errors) == len(set(machines)) - 1
        assert all("another machine" in error for error in errors)


async def test_node_key_is_taken_while_its_node_is_not_on_disk_yet() -> None:
    """H6, at a slow disk: what waits for its commit counts."""
    async with running() as server:
        server.store.gate.clear()
        first = asyncio.create_task(server.register(50, 1))
        await until(lambda: server.store.writing == 1)
        second = asyncio.create_task(server.register(51, 0))
        for _ in range(20):
            await asyncio.sleep(0)
        server.store.gate.set()
        answers = await asyncio.gather(first, second)
        assert server.holders() == [server.lives[1]]
        assert "another machine" in answers[1].error


async def test_old_node_key_is_looked_up_inside_the_edit() -> None:
    """H6 by way of OldNodeKey: two rotations of one node at once, one with the other's key."""
    async with running() as server:
        old = key_number(70)
        assert not (await server.register(50, 0, old)).error
        await asyncio.gather(server.register(50, 0, KEY, old), server.register(50, 1, KEY, old))
        assert len(server.holders()) == 1
        assert not server.holders(old)


async def _rotate(server: Server, node: Node) -> None:
    async with server.lives[0].edit(by=SYSTEM, act="test.change") as edit:
        edit.put(replace(edit.nodes[node.id], node_key=key_number(78)))


@pytest.mark.parametrize("stream", [True, False])
async def test_map_request_whose_key_was_rotated_meanwhile_changes_nothing(stream: bool) -> None:
    """H6 of map requests: the node is looked up at the request, its state changes later."""
    async with running() as server:
        await server.register(50, 0)
        (node,) = [n for n in server.lives[0].snapshot.nodes.values() if n.node_key == KEY]
        request = tailcfg.MapRequest(
            version=130,
            node_key=KEY,
            stream=stream,
            hostinfo=tailcfg.Hostinfo(hostname="late"),
            omit_peers=True,
        )
        recorder = Recorder(machine_key(50))
        work = server.door.handle(recorder.request("/machine/map", tailcfg.encode(request)))
        assert work is not None
        await _rotate(server, node)
        await work
        if stream:
            (told,) = recorder.messages()
            assert told.node is not None
            assert told.node.expired
        else:
            assert recorder.status == 404, "what it reports must be sent again, with the new key"
        live = server.lives[0]
        assert live.snapshot.nodes[node.id].hostname == "host50"
        await until(lambda: live.snapshot.presence_of(node.id).sessions == 0)


async def test_node_key_that_was_loaded_twice_is_put_in_order_in_words(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """H6 at the start: databases of earlier releases may hold such pairs."""
    server = Server()
    for live in server.lives:
        (node,) = live.snapshot.nodes.values()
        _load(live, replace(node, node_key=KEY))
    async with running(server):
        with caplog.at_level(logging.WARNING):
            await server.tailnets.part_node_keys()
        first, second = (live.snapshot.node_of(KEY) for live in server.lives)
        assert first is not None
        assert second is not None
        assert first.expires_at is None
        assert second.is_expired(server.clock())
        assert second.expires_at == server.clock()
        assert server.lives[1].snapshot.presence_of(second.id).expired
        (line,) = caplog.records
        assert line.levelno == logging.WARNING
        assert line.node == "phone"  # type: ignore[attr-defined]  # by extra
        caplog.clear()
        await server.tailnets.part_node_keys()
        assert not caplog.records, "once in order, it is not said again"


def _load(live: LiveTailnet, node: Node) -> None:
    """Let a tailnet hold a record as a database may have it."""
    edit = Edit(live.snapshot, live._ids)
    edit.put(node)
    live.snapshot = live._tip = edit.finish()[0]


async def test_server_parts_such_a_pair_when_it_starts(tmp_path: Path) -> None:
    """H6 at the start, the whole way: settings, database, restart."""
    other = {"name": "second", "base_domain": "second.example"}
    settings = plan(tmp_path, tailnet={"name": "first"}, tailnets=[other])
    async with serving(settings) as server:
        for live in server.tailnets:
            async with live.edit(by=SYSTEM, act="test.change") as edit:
                user = users.create(edit, "alice", live.clock())
                node = make_node(edit.ids.next_node())
                edit.put(replace(node, node_key=KEY, user_id=user.id))
    async with serving(settings) as server:
        holders = [live.snapshot.node_of(KEY) for live in server.tailnets]
        now = server.tailnets.default.clock()
        assert [node is not None and node.is_expired(now) for node in holders] == [False, True]
