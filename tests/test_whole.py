"""Nodes of our own making against the whole server: enrol, poll, be told, be stopped."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import ssl
import struct
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from appliance.identity.principals import LOCAL
from appliance.serve.server import Server
from appliance.tailnet import keys, nodes, users
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey, NodeKey, PrivateKey
from tests.serve.test_server import STOP_S, ask, plan, running
from tests.support.controlclient import VERSION, Answer, ControlClient
from tests.support.pace import patience
from tests.support.polling import until

MANY = 200
"""Nodes whose sessions a stop must end."""


async def auth_key(server: Server) -> str:
    """Make a user and a reusable key."""
    live = server.tailnets.default
    async with live.edit(by=LOCAL, act="test.change") as edit:
        user = users.create(edit, "alice", live.clock())
        _, text = keys.create_auth_key(
            edit, user_id=user.id, reusable=True, now=live.clock(), random_bytes=secrets.token_bytes
        )
    return text


class Node:
    """A node with one connection to the server."""

    def __init__(self, client: ControlClient, name: str) -> None:
        self.client = client
        self.name = name
        self.key = NodeKey(PrivateKey.generate(os.urandom).public_raw)
        self.heard: list[dict[str, Any]] = []
        self.poll: Answer | None = None
        self._wire: tuple[asyncio.StreamReader, asyncio.StreamWriter]
        self._read_to = 0

    async def connect(self, host: str, port: int, tls: ssl.SSLContext | None = None) -> None:
        self._wire = await asyncio.open_connection(host, port, ssl=tls)
        self._wire[1].write(self.client.upgrade())
        while self.client.session is None:
            await self._receive()

    async def call(self, path: str, request: tailcfg.Message) -> Any:
        stream = self.client.request(path, tailcfg.encode(request))
        self._send()
        answer = self.client.answers[stream]
        while not answer.ended:
            await self._receive()
        assert answer.status == 200, bytes(answer.body)
        return json.loads(answer.body)

    async def enrol(self, key: str) -> Any:
        return await self.call(
            "/machine/register",
            tailcfg.RegisterRequest(
                version=VERSION,
                node_key=self.key,
                auth=tailcfg.RegisterResponseAuth(auth_key=key),
                hostinfo=tailcfg.Hostinfo(hostname=self.name),
            ),
        )

    async def listen(self) -> None:
        """Open the long poll and wait for the first map."""
        request = tailcfg.MapRequest(
            version=VERSION, node_key=self.key, stream=True, keep_alive=True
        )
        self.poll = self.client.answers[
            self.client.request("/machine/map", tailcfg.encode(request))
        ]
        self._send()
        await self.hear(1)

    async def hear(self, count: int) -> None:
        """Wait until so many messages have come."""
        assert self.poll is not None
        while len(self.heard) < count:
            await self._receive()
            body = self.poll.body
            while len(body) - self._read_to >= 4:
                (size,) = struct.unpack_from("<I", body, self._read_to)
                if len(body) - self._read_to - 4 < size:
                    break
                start = self._read_to + 4
                self.heard.append(json.loads(body[start : start + size]))
                self._read_to = start + size

    async def close(self) -> None:
        self._wire[1].close()
        with contextlib.suppress(OSError):
            await self._wire[1].wait_closed()

    async def _receive(self) -> None:
        data = await self._wire[0].read(65_536)
        assert data, "the server has closed"
        self.client.receive(data)
        self._send()

    def _send(self) -> None:
        if self.client.session is not None:
            self._wire[1].write(self.client.take())


async def server_key(server: Server) -> MachineKey:
    page = await ask(server, "/key?v=130")
    return MachineKey.parse(json.loads(page.splitlines()[-1])["publicKey"])


@asynccontextmanager
async def connected(server: Server, *names: str) -> AsyncIterator[list[Node]]:
    public = await server_key(server)
    host, port = server.listeners[0].addresses[0]
    made = [Node(ControlClient(public), name) for name in names]
    try:
        for node in made:
            await node.connect(host, port)
        yield made
    finally:
        for node in made:
            await node.close()


async def test_nodes_enrol_and_hear_of_each_other(tmp_path: Path) -> None:
    async with asyncio.timeout(30), running(plan(tmp_path)) as server:
        key = await auth_key(server)
        async with connected(server, "one", "two") as (one, two):
            assert (await one.enrol(key))["MachineAuthorized"]
            await one.listen()
            first = one.heard[0]
            assert first["Node"]["Name"] == "one.tailnet.internal."
            assert first["Domain"]
            assert first["DERPMap"]["Regions"]["999"]["Nodes"][0]["IPv4"] == "127.0.0.1"
            await two.enrol(key)
            await two.listen()
            assert [peer["Name"] for peer in two.heard[0]["Peers"]] == ["one.tailnet.internal."]
            while not any("PeersChanged" in message for message in one.heard):
                await one.hear(len(one.heard) + 1)
            live = server.tailnets.default
            async with live.edit(by=LOCAL, act="test.change") as edit:
                nodes.rename(edit, live.snapshot.by_name["two"], "desk")
            while "desk.tailnet.internal." not in str(one.heard):
                await one.hear(len(one.heard) + 1)


async def test_wrong_key_is_refused_in_words(tmp_path: Path) -> None:
    async with asyncio.timeout(30), running(plan(tmp_path)) as server:
        async with connected(server, "one") as (one,):
            answer = await one.enrol("hskey-auth-" + "0" * 12 + "-" + "0" * 64)
        assert "key" in answer["Error"]
        assert not server.tailnets.default.snapshot.nodes


async def test_stop_ends_hundreds_of_sessions_quickly(tmp_path: Path) -> None:
    names = [f"node-{i}" for i in range(MANY)]
    async with asyncio.timeout(60):
        async with running(plan(tmp_path)) as server:
            key = await auth_key(server)
            many = connected(server, *names)
            made = await many.__aenter__()
            for node in made:
                await node.enrol(key)
                await node.listen()
            snapshot = server.tailnets.default.snapshot
            assert sum(presence.online for presence in snapshot.presence.values()) == MANY
            began = time.monotonic()
        took = time.monotonic() - began
        await many.__aexit__(None, None, None)
    print(f"stop with {MANY} map sessions: {took:.2f} s")
    assert took < patience(STOP_S)


async def test_restarted_server_knows_its_nodes(tmp_path: Path) -> None:
    settings = plan(tmp_path)
    async with asyncio.timeout(30), running(settings) as server:
        key = await auth_key(server)
        async with connected(server, "one") as (one,):
            await one.enrol(key)
            await one.listen()
        machine, node_key = one.client.machine, one.key
    async with asyncio.timeout(30), running(settings) as server:
        live = server.tailnets.default
        (record,) = live.snapshot.nodes.values()
        seen = live.snapshot.presence_of(record.id).last_seen
        assert seen is not None
        public = await server_key(server)
        again = Node(ControlClient(public, machine=machine), "one")
        again.key = node_key
        await again.connect(*server.listeners[0].addresses[0])
        await again.listen()
        await until(lambda: live.snapshot.presence_of(record.id).online)
        await again.close()
