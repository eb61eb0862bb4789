"""The nodes' door over real sockets and TLS, on both loops: large answers, slow readers, crowds."""

from __future__ import annotations

import asyncio
import contextlib
import importlib.util
import os
from collections.abc import AsyncIterator

import pytest

from appliance.control.exchange import Exchange, OutStream
from appliance.control.http2 import engine
from appliance.control.ts2021 import Ts2021
from appliance.front.dispatch import Front
from appliance.front.stream import Listener, listen
from appliance.wire.keys import MachineKey, PrivateKey
from tests.support.certificates import client_context, server_context
from tests.support.controlclient import Answer, ControlClient
from tests.support.pace import patience
from tests.support.polling import until

ENGINES = ["h2"] + (["ngh2"] if importlib.util.find_spec("ngh2") else [])
BIG = os.urandom(1 << 16) * 32
HUGE_TIMES = 8
"""Repeats that the kernel's buffers on a loopback connection do not swallow."""
WINDOW = 1 << 26


class House:
    """A door behind TLS; ``/big`` and ``/huge`` stream 2 and 16 MiB, everything else is echoed."""

    def __init__(self, name: str) -> None:
        key = PrivateKey.generate(os.urandom)
        self.public = MachineKey(key.public_raw)
        self.outs: list[OutStream] = []
        self.door = Ts2021(key, self._handle, http2=engine(name), is_known=lambda _key: True)
        self.front = Front({"/ts2021": self.door.open}, max_waiting=100)
        self.listener: Listener

    def _handle(self, exchange: Exchange) -> None:
        if exchange.path in ("/big", "/huge"):
            out = exchange.open_stream()
            self.outs.append(out)
            for _ in range(HUGE_TIMES if exchange.path == "/huge" else 1):
                out.write([BIG[:1_000_000], BIG[1_000_000:]])
            out.close()
        else:
            exchange.respond(200, exchange.body)


@contextlib.asynccontextmanager
async def house(name: str) -> AsyncIterator[House]:
    made = House(name)
    context = server_context()
    made.listener = await listen(made.front.sink, "127.0.0.1", 0, tls=lambda: context)
    try:
        yield made
    finally:
        made.listener.close()
        await made.door.close()
        made.listener.abort_streams()
        await until(lambda: not made.listener.streams)
    assert not made.door.links
    assert made.front.waiting == 0


class Node:
    """A client over a socket."""

    def __init__(self, made: House) -> None:
        self.house = made
        self.client = ControlClient(made.public)

    async def connect(self) -> None:
        self.reader, self.writer = await asyncio.open_connection(
            "127.0.0.1",
            self.house.listener.port,
            ssl=client_context(),
            server_hostname="localhost",
        )
        self.writer.write(self.client.upgrade())
        while self.client.session is None:
            self.client.receive(await self.reader.read(65_536))
        self.client.http.increment_flow_control_window(WINDOW)

    def send(self, path: str, body: bytes = b"") -> Answer:
        stream_id = self.client.request(path, body)
        self.client.http.increment_flow_control_window(WINDOW, stream_id)
        self.writer.write(self.client.take())
        return self.client.answers[stream_id]

    async def hear(self, answer: Answer) -> Answer:
        async with asyncio.timeout(patience(20)):
            while not answer.ended:
                data = await self.reader.read(1 << 18)
                assert data, "the door has closed"
                self.client.receive(data)
                self.writer.write(self.client.take())
        return answer

    async def ask(self, path: str, body: bytes = b"") -> Answer:
        return await self.hear(self.send(path, body))

    async def close(self) -> None:
        self.writer.close()
        with contextlib.suppress(OSError):
            await self.writer.wait_closed()


@pytest.mark.parametrize("name", ENGINES)
async def test_requests_and_large_answers(name: str) -> None:
    async with house(name) as made:
        node = Node(made)
        await node.connect()
        assert (await node.ask("/echo", b"hello")).body == b"hello"
        assert (await node.ask("/big")).body == BIG
        await node.close()
        await until(lambda: not made.door.links)


@pytest.mark.parametrize("name", ENGINES)
async def test_slow_reader_is_waited_for_with_references_only(name: str) -> None:
    async with house(name) as made:
        slow, quick = Node(made), Node(made)
        await slow.connect()
        await quick.connect()
        answer = slow.send("/huge")
        await until(lambda: bool(made.outs))
        assert (await quick.ask("/echo", b"not disturbed")).body == b"not disturbed"
        (out,) = made.outs
        assert out.backlog > 0
        assert (await slow.hear(answer)).body == BIG * HUGE_TIMES
        assert out.backlog == 0
        await slow.close()
        await quick.close()


@pytest.mark.parametrize("name", ENGINES)
async def test_stopping_says_goodbye(name: str) -> None:
    async with house(name) as made:
        node = Node(made)
        await node.connect()
        await node.ask("/echo", b"x")
        await made.door.close()
        while data := await node.reader.read(65_536):
            node.client.receive(data)
        assert node.client.goaway == 0
        await node.close()


async def test_half_open_crowd_is_bounded_and_others_notice_nothing() -> None:
    """Three hundred connections that never finish their request, a hundred of which may wait."""
    async with house("h2") as made:
        node = Node(made)
        await node.connect()
        context = client_context()
        crowd = []
        for _ in range(30):
            crowd += await asyncio.gather(
                *(
                    asyncio.open_connection(
                        "127.0.0.1",
                        made.listener.port,
                        ssl=context,
                        server_hostname="localhost",
                    )
                    for _ in range(10)
                )
            )
            for _, writer in crowd[-10:]:
                writer.write(b"GET / HTTP/1.1\r\nX-Endless: ")
            assert (await node.ask("/echo", b"still here")).body == b"still here"
        await until(lambda: made.front.counters.crowded == 200)
        assert made.front.waiting == 100
        late = Node(made)
        await late.connect()
        assert (await late.ask("/echo", b"me too")).body == b"me too"
        for _, writer in crowd:
            writer.close()
        await asyncio.gather(*(w.wait_closed() for _, w in crowd), return_exceptions=True)
        await until(lambda: made.front.waiting == 0)
        await node.close()
        await late.close()
