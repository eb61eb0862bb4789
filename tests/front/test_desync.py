"""One opinion about who owns the next byte: the dispatcher and aiohttp behind it never differ.

The real aiohttp, a stream in memory, and a clock that the test moves.
"""

from __future__ import annotations

import asyncio
import gzip
import logging
from collections.abc import AsyncIterator, Callable

import pytest
from aiohttp import web

from appliance.front.dispatch import (
    ANSWER_TIMEOUT_S,
    BODY_TIMEOUT_S,
    DEADLINES,
    HEAD_TIMEOUT_S,
    IDLE_TIMEOUT_S,
    Front,
    Head,
)
from appliance.front.http import start_web
from appliance.front.stream import Stream
from tests.front.test_dispatch import Taker
from tests.support.memorystream import Alarms, MemoryStream
from tests.support.polling import until

PEER = ("192.0.2.1", 4000)
MAX_BODY_BYTES = 4096
ALL_DEADLINES_S = sum(DEADLINES.values())


class House:
    """aiohttp with a few handlers, two doors that take upgrades, and the front before them."""

    def __init__(self, server: Callable[[], asyncio.Protocol]) -> None:
        self.alarms = Alarms()
        self.takers: list[Taker] = []
        self.front = Front(
            {"/ts2021": self._take, "/derp": self._take},
            web=server,
            max_body_bytes=MAX_BODY_BYTES,
            max_bodies_bytes=4 * MAX_BODY_BYTES,
            call_later=self.alarms.call_later,
        )

    def _take(self, _head: Head, _stream: Stream) -> Taker:
        self.takers.append(Taker(b"101 "))
        return self.takers[-1]

    def connect(self) -> MemoryStream:
        return MemoryStream(self.front.sink(), peer=PEER)


async def version(_request: web.Request) -> web.Response:
    return web.Response(text="version")


async def verify(request: web.Request) -> web.Response:
    body = await request.read()
    return web.Response(text=f"verified {len(body)}")


async def hang(_request: web.Request) -> web.Response:
    await asyncio.Event().wait()
    return web.Response()


async def drip(request: web.Request) -> web.StreamResponse:
    response = web.StreamResponse()
    await response.prepare(request)
    await response.write(b"first")
    await asyncio.Event().wait()
    return response


@pytest.fixture
async def house() -> AsyncIterator[House]:
    app = web.Application()
    app.router.add_get("/version", version)
    app.router.add_post("/verify", verify)
    app.router.add_get("/hang", hang)
    app.router.add_get("/drip", drip)
    runner = await start_web(app, shutdown_s=0.1)
    assert runner.server is not None
    yield House(runner.server)
    await runner.cleanup()


def message(line: str, *fields: str, body: bytes = b"") -> bytes:
    return "\r\n".join((f"{line} HTTP/1.1", "Host: x", *fields, "", "")).encode() + body


async def answers(stream: MemoryStream, count: int = 1) -> bytes:
    """Wait until so many answers are whole, or the stream is closed; return what was written."""

    def are_there() -> bool:
        stream.deliver(b"")  # a real stream shows again what was left
        seen = stream.written.count(b"HTTP/1.1 ") + stream.written.count(b"101 ")
        return stream.closed or seen >= count

    await until(are_there)
    await asyncio.sleep(0)
    return stream.take()


UPGRADES = [
    ("Connection: Upgrade", "Upgrade: websocket"),
    ("Connection: Upgrade", "Upgrade: tcp"),
    ("Connection: Upgrade", "Upgrade: h2c", "Upgrade: websocket"),
    ("Connection: Upgrade", "Upgrade: websocket", "Upgrade: h2c"),
    ("Connection: keep-alive, Upgrade", "Upgrade: h2c, websocket"),
    ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQAAP__"),
    (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    ),
]
upgrades = pytest.mark.parametrize("fields", UPGRADES, ids=lambda fields: " ".join(fields)[:60])


@upgrades
async def test_declined_upgrade_is_an_ordinary_request(
    house: House, fields: tuple[str, ...]
) -> None:
    """H1: the connection's next request is read, bounded and routed as every other."""
    stream = house.connect()
    stream.deliver(message("GET /version", *fields))
    assert (await answers(stream)).endswith(b"version")
    bomb = gzip.compress(bytes(1 << 16))
    lines = ("Content-Encoding: gzip", f"Content-Length: {len(bomb)}")
    stream.deliver(message("GET /version", *lines, body=bomb))
    assert stream.take().startswith(b"HTTP/1.1 415 ")
    assert stream.closed


@upgrades
async def test_body_behind_a_declined_upgrade_has_its_limits(
    house: House, fields: tuple[str, ...]
) -> None:
    """H1 a, b: length and time of bodies are bounded behind a declined upgrade too."""
    long, slow = house.connect(), house.connect()
    for stream in (long, slow):
        stream.deliver(message("GET /version", *fields))
        await answers(stream)
    long.deliver(message("POST /verify", f"Content-Length: {MAX_BODY_BYTES + 1}"))
    assert long.take().startswith(b"HTTP/1.1 413 ")
    slow.deliver(message("POST /verify", "Content-Length: 100", body=b"abc"))
    house.alarms.advance(BODY_TIMEOUT_S)
    assert slow.take().startswith(b"HTTP/1.1 408 ")
    assert slow.closed


async def test_broken_body_behind_a_declined_upgrade_is_not_logged(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    """H1 c: ten bytes of junk were three tracebacks."""
    caplog.set_level(logging.WARNING)
    stream = house.connect()
    stream.deliver(message("GET /version", *UPGRADES[0]))
    await answers(stream)
    lines = ("Content-Encoding: gzip", "Content-Length: 10")
    stream.deliver(message("POST /verify", *lines, body=b"0123456789"))
    await answers(stream)
    assert stream.closed
    assert not caplog.records


@upgrades
@pytest.mark.parametrize("door", ["POST /ts2021", "GET /derp"])
@pytest.mark.parametrize("pipelined", [False, True])
async def test_kept_connection_is_not_poisoned(
    house: House, fields: tuple[str, ...], door: str, *, pipelined: bool
) -> None:
    """H1 d: behind a proxy the next request on the connection is another client's."""
    stream = house.connect()
    first, second = message("GET /version", *fields), message(door, "Upgrade: DERP") + b"behind"
    if pipelined:
        stream.deliver(first + second)
    else:
        stream.deliver(first)
        assert (await answers(stream)).endswith(b"version")
        stream.deliver(second)
    assert (await answers(stream, 2 if pipelined else 1)).endswith(b"101 ")
    assert house.takers[0].data == b"behind"


@pytest.mark.parametrize("door", ["POST /ts2021", "GET /derp"])
async def test_tenth_request_of_a_kept_connection_may_be_an_upgrade(
    house: House, door: str
) -> None:
    """H1 d, with every kind of request before it."""
    stream = house.connect()
    chunked = ("Transfer-Encoding: chunked",)
    before = [
        message("GET /version"),
        message("POST /verify", "Content-Length: 5", body=b"hello"),
        message("POST /verify", *chunked, body=b"5\r\nhello\r\n0\r\n\r\n"),
        message("HEAD /version"),
        message("GET /nothing"),
        message("POST /verify", *chunked, body=b"5;a=b\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n"),
        message("OPTIONS *"),
        message("GET http://x/version", *UPGRADES[0]),
        message("DELETE /verify", "Content-Length: 3", body=b"abc"),
    ]
    for request in before:
        stream.deliver(request)
        answer = await answers(stream)
        assert answer.startswith(b"HTTP/1.1 ")
        assert not stream.closed, request
    stream.deliver(message(door, "Connection: Upgrade", "Upgrade: DERP") + b"behind")
    assert stream.take() == b"101 "
    assert house.takers[0].data == b"behind"


async def test_pipelined_requests_are_answered_in_order(house: House) -> None:
    stream = house.connect()
    stream.deliver(
        message("GET /version")
        + message("POST /verify", "Content-Length: 3", body=b"abc")
        + message("GET /version")
    )
    text = (await answers(stream, 3)).decode()
    assert [text.count(word) for word in ("version", "verified 3")] == [2, 1]
    assert text.index("verified 3") < text.rindex("version")


CHUNKED = "POST /verify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n"
SLOPPY = {
    "blank behind the size": b"1 \r\na\r\n0\r\n\r\n",
    "tab behind the size": b"1\t\r\na\r\n0\r\n\r\n",
    "NUL in an extension": b"1;\0\r\na\r\n0\r\n\r\n",
    "open quote": b'1;a="\r\na\r\n0\r\n\r\n',
    "empty extensions": b"1;a=b;c;;;\r\na\r\n0\r\n\r\n",
    "blank in an extension": b"1;a b\r\na\r\n0\r\n\r\n",
    "empty extension": b"1;\r\na\r\n0\r\n\r\n",
    "bare LF": b"1\na\r\n0\r\n\r\n",
    "bare CR": b"1\r\ra\r\n0\r\n\r\n",
    "no CR LF behind the data": b"1\r\naXX0\r\n\r\n",
    "plus": b"+1\r\na\r\n0\r\n\r\n",
    "0x": b"0x1\r\na\r\n0\r\n\r\n",
    "underscore": b"1_0\r\na\r\n0\r\n\r\n",
    "trailer without a name": b"0\r\n:bad\r\n\r\n",
    "trailer with a blank": b"0\r\nX : a\r\n\r\n",
    "trailer without a colon": b"0\r\nX\r\n\r\n",
    "trailer with NUL": b"0\r\nX\0: a\r\n\r\n",
    "trailer with a bare CR": b"0\r\nX: a\rb\r\n\r\n",
    "folded trailer": b"0\r\nX: a\r\n b\r\n\r\n",
    "trailer that states a length": b"0\r\nContent-Length: 5\r\n\r\n",
    "trailer that states a coding": b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    "trailer that names a host": b"0\r\nHost: y\r\n\r\n",
}


@pytest.mark.parametrize("kind", SLOPPY)
@pytest.mark.parametrize("slowly", [False, True])
async def test_sloppy_chunks_are_refused_at_once(house: House, kind: str, *, slowly: bool) -> None:
    """H2: aiohttp refused them, the front did not, and nobody had a deadline any more."""
    stream = house.connect()
    data = CHUNKED.encode() + SLOPPY[kind]
    (stream.deliver_slowly if slowly else stream.deliver)(data)
    answer = await answers(stream)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert stream.closed


@pytest.mark.parametrize(
    "body",
    [
        b"5\r\nhello\r\n0\r\n\r\n",
        b"0005;name\r\nhello\r\n000\r\n\r\n",
        b'2;a=b;c="d e";f\r\nhe\r\n3\r\nllo\r\n0\r\nX-Checksum: 1\r\nx-other:\r\n\r\n',
    ],
)
async def test_chunks_reach_the_handler_as_one_body(house: House, body: bytes) -> None:
    stream = house.connect()
    stream.deliver_slowly(CHUNKED.encode() + body)
    assert (await answers(stream)).endswith(b"verified 5")
    assert not stream.closed


async def test_every_state_of_a_connection_has_a_deadline(house: House) -> None:
    """H2: whoever's turn it is, the connection ends by itself."""
    begun: dict[str, bytes] = {
        "silent": b"",
        "half a head": b"GET /ver",
        "half a body": message("POST /verify", "Content-Length: 10", body=b"12345"),
        "half a chunk": CHUNKED.encode() + b"5\r\nhe",
        "no last chunk": CHUNKED.encode() + b"5\r\nhello\r\n",
        "no end of trailers": CHUNKED.encode() + b"0\r\nX: y\r\n",
        "no answer": message("GET /hang"),
        "half an answer": message("GET /drip"),
        "idle": message("GET /version"),
        "half a second head": message("GET /version") + b"GET",
        "a lone CR": message("GET /version") + b"\r",
        "behind no answer": message("GET /hang") + message("GET /version"),
    }
    streams = {name: house.connect() for name in begun}
    for name, data in begun.items():
        streams[name].deliver(data)
    await until(lambda: bool(streams["idle"].written and streams["half an answer"].written))
    for stream in streams.values():
        stream.deliver(b"")
    for _ in range(2):
        house.alarms.advance(max(DEADLINES.values()))
    assert [name for name, stream in streams.items() if not stream.closed] == []
    assert streams["half a body"].take().startswith(b"HTTP/1.1 408 ")
    assert streams["no answer"].take().startswith(b"HTTP/1.1 503 ")
    assert house.front.waiting == house.front.bodies_bytes == 0


async def test_deadlines_are_those_that_are_written(house: House) -> None:
    """H2: each deadline counts from where it should, and no byte of the peer's moves it."""
    head, body, wait, idle = (house.connect() for _ in range(4))
    head.deliver(b"GET ")
    body.deliver(message("POST /verify", "Content-Length: 900"))
    wait.deliver(message("GET /hang"))
    idle.deliver(message("GET /version"))
    await answers(idle)
    for second in range(1, 80):
        house.alarms.advance(1)
        for stream, until_s in (
            (head, HEAD_TIMEOUT_S),
            (body, BODY_TIMEOUT_S),
            (wait, ANSWER_TIMEOUT_S),
            (idle, IDLE_TIMEOUT_S),
        ):
            assert stream.closed is (second >= until_s)
        head.deliver(b"a")
        body.deliver(b"a")
        idle.deliver(b"\r\n")


async def test_unfinished_bodies_are_bounded_together(house: House) -> None:
    """H2: what the front holds until bodies are whole does not grow with their number."""
    head = message("POST /verify", f"Content-Length: {MAX_BODY_BYTES}")
    hoards = [house.connect() for _ in range(10)]
    for stream in hoards:
        stream.deliver(head + bytes(MAX_BODY_BYTES - 1))
    assert house.front.bodies_bytes <= 4 * MAX_BODY_BYTES
    assert [stream.closed for stream in hoards] == [True] * 6 + [False] * 4
    honest = house.connect()
    honest.deliver(message("POST /verify", "Content-Length: 5", body=b"hello"))
    assert (await answers(honest)).endswith(b"verified 5")
    for stream in hoards:
        stream.lose()
    assert house.front.bodies_bytes == 0


async def test_expectation_is_met_by_the_front(house: House) -> None:
    stream = house.connect()
    stream.deliver(message("POST /verify", "Expect: 100-continue", "Content-Length: 5"))
    assert stream.take() == b"HTTP/1.1 100 Continue\r\n\r\n"
    stream.deliver(b"hello")
    assert (await answers(stream)).endswith(b"verified 5")
    stream.deliver(message("POST /verify", "Expect: a-miracle", "Content-Length: 5"))
    assert stream.take().startswith(b"HTTP/1.1 417 ")


async def test_nothing_follows_a_last_request(house: House) -> None:
    """RFC 9112 section 9.6: requests behind one that closes are not taken."""
    stream = house.connect()
    stream.deliver(message("GET /version", "Connection: close") + message("POST /ts2021"))
    answer = await answers(stream)
    assert answer.count(b"HTTP/1.1 ") == 1
    assert stream.closed
    assert not house.takers
