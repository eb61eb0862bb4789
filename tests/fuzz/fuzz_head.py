"""Mutated request heads and bodies at the front door: answered, passed on or closed; never a raise."""

from __future__ import annotations

import asyncio
import random

from appliance.front.dispatch import Answer, Front
from appliance.front.proxy import networks
from appliance.wire.http1 import MAX_HEAD_BYTES, Head
from tests.fuzz.harness import main, mutate, pieces
from tests.support.memorystream import Alarms, MemoryStream
from tests.support.proxyheaders import encode_v1, encode_v2

LINES = [
    b"GET /take HTTP/1.1",
    b"POST /web HTTP/1.1",
    b"GET /quick HTTP/1.0",
    b"CONNECT x:443 HTTP/1.1",
    b"GET http://x/quick HTTP/1.1",
]
FIELDS = [
    b"Host: x",
    b"Content-Length: 5",
    b"Content-Length: 0",
    b"Transfer-Encoding: chunked",
    b"Connection: close",
    b"Connection: Upgrade",
    b"Upgrade: websocket",
    b"X-Forwarded-For: 1.2.3.4, 10.0.0.1",
    b"X-Long: " + b"y" * 3000,
]
BODIES = [b"", b"hello", b"5\r\nhello\r\n0\r\n\r\n", b"\r\n\r\n", b"0\r\nA: b\r\n\r\n"]


class Swallow:
    """A door that takes everything."""

    def connected(self, stream: object) -> None:
        pass

    def received(self, _buffer: bytearray, _view: memoryview, end: int) -> int:
        return end

    def ended(self) -> None:
        pass

    paused = resumed = ended

    def lost(self, _error: Exception | None) -> None:
        pass


class Web(asyncio.Protocol):
    """Swallows what aiohttp would get; answers sometimes."""

    def __init__(self, rng: random.Random) -> None:
        self._rng = rng

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, _data: bytes) -> None:
        if self._rng.random() < 0.7:
            self._transport.write(b"answer")


def case(rng: random.Random) -> None:
    alarms = Alarms()

    def quick(_head: Head, _stream: object) -> Answer:
        return Answer(200, b"ok")

    front = Front(
        {"/take": lambda _head, _stream: Swallow(), "/quick": quick},
        web=lambda: Web(rng),
        trusted=networks(["10.0.0.0/8"]),
        proxy_protocol=rng.random() < 0.3,
        call_later=alarms.call_later,
    )
    data = b""
    if rng.random() < 0.3:
        encode = rng.choice((encode_v1, encode_v2))
        data += encode(("192.0.2.1", 1), ("192.0.2.2", 2))
    for _ in range(rng.randint(1, 4)):
        fields = rng.sample(FIELDS, rng.randint(0, 4))
        if rng.random() < 0.8:
            fields.append(FIELDS[0])
        data += b"\r\n".join([rng.choice(LINES), *fields, b"", b""]) + rng.choice(BODIES)
    if rng.random() < 0.8:
        data = mutate(rng, data)
    stream = MemoryStream(front.sink(), peer=rng.choice((("10.0.0.9", 1), ("192.0.2.9", 1), None)))
    for piece in pieces(rng, data):
        stream.deliver(piece)
        assert len(stream._kept) <= MAX_HEAD_BYTES + len(piece) + 4 or stream.closed
    if rng.random() < 0.5:
        alarms.advance(100)
    stream.lose()
    assert front.waiting == 0


if __name__ == "__main__":
    main(case)
