"""The first reader of a connection: heads, limits, hand-overs, quick answers, replay."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

import pytest

from appliance.front.dispatch import (
    ANSWER_TIMEOUT_S,
    BODY_TIMEOUT_S,
    HEAD_TIMEOUT_S,
    IDLE_TIMEOUT_S,
    MAX_AT_ONCE,
    Answer,
    Front,
    Head,
    Route,
    redirect_to_https,
)
from appliance.front.proxy import networks
from appliance.front.stream import Sink, Stream
from appliance.wire.http1 import MAX_HEAD_BYTES
from tests.support.memorystream import Alarms, MemoryStream
from tests.support.proxyheaders import encode_v1, encode_v2

PEER = ("192.0.2.1", 4000)


WEB = b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nweb "
"""The answer of the fake web."""


class Taker:
    """A door that keeps what it is shown."""

    def __init__(self, hello: bytes = b"hello ") -> None:
        self.hello = hello
        self.data = b""
        self.events: list[str] = []

    def connected(self, stream: Stream) -> None:
        self.events.append("connected")
        stream.write(self.hello)

    def received(self, _buffer: bytearray, view: memoryview, end: int) -> int:
        self.data += bytes(view[:end])
        return end

    def ended(self) -> None:
        self.events.append("ended")

    def paused(self) -> None:
        self.events.append("paused")

    def resumed(self) -> None:
        self.events.append("resumed")

    def lost(self, _error: Exception | None) -> None:
        self.events.append("lost")


class FakeWeb(asyncio.Protocol):
    """Stands for aiohttp: answers every request at once, unless told not to."""

    made: list[FakeWeb]

    def __init__(self) -> None:
        self.data = b""
        self.events: list[str] = []
        self.silent = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self.transport = transport

    def data_received(self, data: bytes) -> None:
        self.data += data
        if not self.silent:
            self.transport.write(WEB)

    def eof_received(self) -> None:
        self.events.append("eof")

    def pause_writing(self) -> None:
        self.events.append("pause")

    def resume_writing(self) -> None:
        self.events.append("resume")

    def connection_lost(self, _exc: Exception | None) -> None:
        self.events.append("lost")
        self.transport.close()


class Door:
    """A front with a few routes, one connection and a fake web behind it."""

    def __init__(self, *, web: bool = True, routes: Mapping[str, Route] | None = None) -> None:
        self.alarms = Alarms()
        self.taker = Taker()
        self.webs: list[FakeWeb] = []
        self.heads: list[Head] = []
        given: dict[str, Route] = {
            "/take": self._take,
            "/quick": self._quick,
            "/none": lambda _head, _stream: None,
            "/boom": self._boom,
        }
        self.front = Front(
            routes if routes is not None else given,
            web=self._make_web if web else None,
            trusted=networks(["10.0.0.0/8"]),
            max_body_bytes=1000,
            max_waiting=3,
            call_later=self.alarms.call_later,
        )

    def _make_web(self) -> asyncio.Protocol:
        self.webs.append(FakeWeb())
        return self.webs[-1]

    def _take(self, head: Head, _stream: Stream) -> Sink:
        self.heads.append(head)
        return self.taker

    def _quick(self, head: Head, _stream: Stream) -> Answer:
        self.heads.append(head)
        return Answer(200, b"quick")

    def _boom(self, _head: Head, _stream: Stream) -> Answer:
        raise ValueError("a bug")

    def connect(self, peer: tuple[str, int] = PEER) -> MemoryStream:
        return MemoryStream(self.front.sink(), peer=peer)


@pytest.fixture
def door() -> Door:
    return Door()


def get(path: str, *fields: str, method: str = "GET") -> bytes:
    return "\r\n".join((f"{method} {path} HTTP/1.1", "Host: x", *fields, "", "")).encode()


def test_door_gets_the_bytes_behind_the_head(door: Door) -> None:
    stream = door.connect()
    stream.deliver(get("/take?a=b", "Upgrade: derp") + b"behind")
    stream.deliver(b" and after")
    assert door.taker.data == b"behind and after"
    assert door.heads[0].query == "a=b"
    assert stream.take() == b"hello "
    stream.lose()
    assert door.taker.events == ["connected", "lost"]
    assert door.front.counters.handed_over == 1
    assert door.front.waiting == 0


def test_byte_by_byte(door: Door) -> None:
    stream = door.connect()
    stream.deliver_slowly(get("/take") + b"behind")
    assert door.taker.data == b"behind"


def test_quick_answers_keep_the_connection(door: Door) -> None:
    stream = door.connect()
    stream.deliver(get("/quick") * 3)
    assert stream.take().count(b"quick") == 3
    stream.deliver(get("/quick", method="HEAD"))
    assert b"quick" not in stream.take()
    stream.deliver(get("/take"))
    assert stream.take() == b"hello "


@pytest.mark.parametrize("fields", [["Connection: close"], ["Content-Length: 5"]])
def test_quick_answer_closes_when_it_must(door: Door, fields: list[str]) -> None:
    stream = door.connect()
    stream.deliver(get("/quick", *fields) + b"GET /")
    assert stream.take().endswith(b"Connection: close\r\n\r\nquick")
    assert stream.closed


def test_other_requests_are_passed_on_normalised(door: Door) -> None:
    """H1: nothing of the connection or the body's coding reaches aiohttp."""
    stream = door.connect()
    about_us = (
        "Upgrade: websocket",
        "Connection: keep-alive, Upgrade, X-Odd",
        "Keep-Alive: timeout=5",
        "TE: trailers",
        "Trailer: X-Sum",
        "HTTP2-Settings: AAMAAABkAAQAAP__",
        "Expect: 100-continue",
    )
    stream.deliver_slowly(
        get("/page", "X-Odd:   spaces  ", *about_us)
        + get("http://y:80/none?\xff", *about_us, "Content-Length: 3", method="PUT")
        + b"abc"
        + get("/page", "Transfer-Encoding: Chunked", "Connection: close", method="POST")
        + b"2;x=y\r\nab\r\n1\r\nc\r\n0\r\nX-Sum: 1\r\n\r\n"
    )
    (web,) = door.webs
    assert web.data == (
        b"GET /page HTTP/1.1\r\nhost: x\r\nx-odd: spaces\r\n\r\n"
        b"PUT /none?%C3%BF HTTP/1.1\r\nhost: y:80\r\ncontent-length: 3\r\n\r\nabc"
        b"POST /page HTTP/1.1\r\nhost: x\r\ncontent-length: 3\r\nconnection: close\r\n\r\nabc"
    )
    assert stream.take().replace(b"HTTP/1.1 100 Continue\r\n\r\n", b"") == WEB * 3
    assert stream.closed
    stream.lose()
    assert web.events == ["lost"]
    assert door.front.counters.replayed == 3


def test_body_reaches_the_web_only_as_a_whole(door: Door) -> None:
    """H2: whoever sends half a body costs its bytes, and no task of a handler."""
    stream = door.connect()
    stream.deliver(get("/page", "Content-Length: 8", method="POST") + b"1234567")
    assert not door.webs
    assert door.front.bodies_bytes == 7
    stream.deliver(b"8")
    assert door.webs[0].data.endswith(b"\r\n\r\n12345678")
    assert door.front.bodies_bytes == 0


def test_upgrade_on_a_kept_connection_is_taken(door: Door) -> None:
    """Proxies reuse their connections to us for the next client's upgrade."""
    stream = door.connect()
    stream.deliver(get("/page"))
    stream.deliver(
        get("/page", "Transfer-Encoding: chunked", method="POST") + b"2\r\nab\r\n0\r\n\r\n"
    )
    assert stream.take() == WEB * 2
    stream.deliver(get("/take") + b"behind")
    (web,) = door.webs
    assert web.events == ["lost"]
    assert web.transport.is_closing()
    web.transport.write(b"too late")
    assert stream.take() == b"hello "
    assert not stream.closed
    assert door.taker.data == b"behind"
    stream.lose()
    assert door.taker.events == ["connected", "lost"]
    assert web.events == ["lost"]


@pytest.mark.parametrize("first", [0, 1, len(WEB) - 1])
def test_nothing_overtakes_an_answer(door: Door, first: int) -> None:
    """Also not between the first byte of an answer and its last."""
    stream = door.connect()
    stream.deliver(get("/page"))
    (web,) = door.webs
    web.silent = True
    stream.take()
    stream.deliver(get("/slow") + get("/quick") + get("/take"))
    held = not stream.reading
    web.transport.write(WEB[:first])
    stream.deliver(b"")
    assert stream.take() == WEB[:first]
    web.transport.write(WEB[first:])
    assert held
    assert stream.reading
    stream.deliver(b"")
    assert stream.take().partition(WEB[first:])[2].endswith(b"quickhello ")
    assert not stream.closed
    assert door.taker.events == ["connected"]


def test_quick_path_inside_a_body_is_not_a_request(door: Door) -> None:
    stream = door.connect()
    inner = get("/take")
    stream.deliver(get("/page", f"Content-Length: {len(inner)}", method="POST") + inner)
    assert not door.taker.events
    assert door.webs[0].data.endswith(inner)


def test_declined_upgrade_is_no_tunnel(door: Door) -> None:
    """H1: it was passed to aiohttp without an end, and without a deadline."""
    stream = door.connect()
    stream.deliver(get("/live", "Connection: Upgrade", "Upgrade: websocket"))
    assert b"pgrade" not in door.webs[0].data
    stream.deliver(get("/take"))
    assert door.taker.events == ["connected"]


def test_back_pressure_reaches_the_web(door: Door) -> None:
    stream = door.connect()
    stream.deliver(get("/page"))
    (web,) = door.webs
    stream.block()
    held = not stream.reading
    stream.unblock()
    assert held
    assert stream.reading
    assert web.events == ["pause", "resume"]


def test_reader_that_takes_no_answer_loses_its_connection(door: Door) -> None:
    """H2: an answer that cannot be written has a deadline; one that moves on has it anew."""
    stream = door.connect()
    stream.deliver(get("/page"))
    (web,) = door.webs
    web.silent = True
    stream.deliver(get("/large"))
    web.transport.write(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")
    for _ in range(5):
        door.alarms.advance(ANSWER_TIMEOUT_S - 1)
        web.transport.write(b"x")
    stream.block()
    door.alarms.advance(ANSWER_TIMEOUT_S)
    door.alarms.advance(ANSWER_TIMEOUT_S)
    assert stream.aborted
    assert door.front.counters.late == 1


def test_answers_wait_for_a_reader(door: Door) -> None:
    stream = door.connect()
    stream.deliver(get("/quick"))
    stream.block()
    assert not stream.reading
    stream.deliver(get("/quick"))
    assert stream.take().count(b"quick") == 1
    stream.unblock()
    assert stream.take().count(b"quick") == 1


def test_many_requests_at_once_leave_others_their_turn(door: Door) -> None:
    stream = door.connect()
    stream.deliver(get("/quick") * 100)
    answered = stream.take().count(b"quick")
    assert answered == MAX_AT_ONCE
    assert not stream.reading
    while answered < 100:
        door.alarms.advance(0)
        stream.deliver(b"")
        answered += stream.take().count(b"quick")
    assert answered == 100
    assert not stream.closed


@pytest.mark.parametrize(
    ("data", "status"),
    [
        (b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc", 400),
        (b"GET / HTTP/1.1\nHost: x\n\n", 400),
        (b"GET / HTTP/1.1\r\n\r\n", 400),
        (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n", 400),
        (b"CONNECT x:443 HTTP/1.1\r\nHost: x:443\r\n\r\n", 405),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * MAX_HEAD_BYTES, 431),
        (b"GET / HTTP/1.1\r\nHost: x\r\nA: " + b"a" * MAX_HEAD_BYTES + b"\r\n\r\n", 431),
        (get("/page", "Content-Length: 1001", method="POST"), 413),
        (get("/page", "Content-Length: 1", "Transfer-Encoding: chunked", method="POST"), 400),
        (get("/page", "Content-Encoding: gzip"), 415),
        (get("/page", "Expect: wonders"), 417),
        (get("/page", method="BREW"), 405),
        (get("/page", method="get"), 405),
        (get("*"), 400),
        (get("/page#part"), 400),
        (get("http://user@x/page"), 400),
        (get("http:///page"), 400),
        (b"GET / HTTP/1.1\r\nHost: a/b?c\r\n\r\n", 400),
        (b"\r\n\r\n" + get("/boom"), 500),
    ],
)
def test_refusals_say_why_and_close(
    door: Door, data: bytes, status: int, caplog: pytest.LogCaptureFixture
) -> None:
    stream = door.connect()
    with caplog.at_level(logging.CRITICAL):
        stream.deliver(data)
    assert stream.take().startswith(b"HTTP/1.1 %d " % status)
    assert stream.closed
    assert not any(web.data for web in door.webs)
    stream.lose()
    assert door.front.waiting == 0


def test_endless_head_is_refused_early(door: Door) -> None:
    stream = door.connect()
    stream.deliver(b"GET / HTTP/1.1\r\n")
    for number in range(10_000):
        stream.deliver(b"X-%d: y\r\n" % number)
        if stream.closed:
            break
    assert stream.closed
    assert number * 8 < 2 * MAX_HEAD_BYTES


def test_bad_chunks_close_the_connection(door: Door) -> None:
    stream = door.connect()
    stream.deliver(get("/page", "Transfer-Encoding: chunked", method="POST") + b"zz\r\n")
    assert stream.take().startswith(b"HTTP/1.1 400 ")
    assert stream.closed


def test_slow_heads_and_bodies_time_out(door: Door) -> None:
    silent, slow, body, later = (door.connect() for _ in range(4))
    assert silent.aborted  # only three may wait
    assert not slow.aborted
    slow.deliver(b"GET /")
    body.deliver(get("/page", "Content-Length: 10", method="POST") + b"12345")
    later.deliver(get("/page"))
    later.deliver(b"GET /")
    assert door.front.waiting == 1
    door.alarms.advance(HEAD_TIMEOUT_S)
    assert slow.closed
    assert later.closed
    assert not body.is_closing()
    door.alarms.advance(BODY_TIMEOUT_S - HEAD_TIMEOUT_S)
    assert body.is_closing()
    assert (door.front.counters.late, door.front.counters.crowded) == (3, 1)
    assert door.front.waiting == 0


def test_idle_connection_of_quick_answers_times_out(door: Door) -> None:
    stream = door.connect()
    stream.deliver(get("/quick"))
    door.alarms.advance(IDLE_TIMEOUT_S - 1)
    assert not stream.is_closing()
    door.alarms.advance(1)
    assert stream.is_closing()


def test_idle_connection_of_the_web_times_out_too(door: Door) -> None:
    """H2: aiohttp's own clock is not relied on."""
    stream = door.connect()
    stream.deliver(get("/page"))
    door.alarms.advance(IDLE_TIMEOUT_S - 1)
    assert not stream.is_closing()
    door.alarms.advance(1)
    assert stream.is_closing()


def test_client_that_ends_is_closed(door: Door) -> None:
    stream = door.connect()
    stream.deliver(get("/page"))
    assert stream.sink is not None
    stream.sink.ended()
    assert door.webs[0].events == ["eof"]
    assert stream.closed


def test_client_behind_a_proxy_has_its_own_address(door: Door) -> None:
    stream = door.connect(("10.0.0.1", 999))
    peers: list[tuple[str, int] | None] = []
    routes = dict(door.front.routes)

    def note(_head: Head, stream: Stream) -> Answer:
        peers.append(stream.peer)
        return Answer(204)

    routes["/note"] = note
    door.front.routes = routes
    stream.deliver(get("/note", "X-Forwarded-For: 6.6.6.6, 203.0.113.9"))
    stream.deliver(get("/note", "X-Forwarded-For: 203.0.113.8"))
    stream.deliver(get("/note"))
    assert peers == [("203.0.113.9", 0), ("203.0.113.8", 0), ("10.0.0.1", 999)]
    stranger = door.connect()
    stranger.deliver(get("/note", "X-Forwarded-For: 203.0.113.9"))
    assert peers[-1] == PEER


@pytest.mark.parametrize("encode", [encode_v1, encode_v2])
@pytest.mark.parametrize("slowly", [True, False])
def test_proxy_protocol_names_the_client(
    door: Door, encode: Callable[..., bytes], *, slowly: bool
) -> None:
    door.front.proxy_protocol = True
    stream = door.connect(("10.0.0.1", 999))
    data = encode(("203.0.113.9", 4242), ("10.0.0.2", 443)) + get("/take") + b"behind"
    (stream.deliver_slowly if slowly else stream.deliver)(data)
    assert stream.peer == ("203.0.113.9", 4242)
    assert door.taker.data == b"behind"
    stranger = door.connect()
    stranger.deliver(data)
    assert stranger.take().startswith(b"HTTP/1.1 400")
    broken = door.connect(("10.0.0.1", 999))
    broken.deliver(get("/take"))
    assert broken.take().startswith(b"HTTP/1.1 400")


def test_without_a_web_the_fallback_answers() -> None:
    door = Door(web=False)
    stream = door.connect()
    stream.deliver(get("/page"))
    assert stream.take().startswith(b"HTTP/1.1 404 ")
    stream.deliver(get("/take"))
    assert stream.take() == b"hello "


REDIRECTED = [
    (b"/a?b=c", b"control.test", 443, b"https://control.example/a?b=c"),
    (b"/a?b=c", b"control.test:80", 8443, b"https://control.example:8443/a?b=c"),
    (b"/a", b"evil.example", 443, b"https://control.example/a"),
    (b"http://evil.example/a?b=c", b"evil.example", 443, b"https://control.example/a?b=c"),
    (b"http://evil.example?b", b"", 443, b"https://control.example/?b"),
    (b"//evil.example/a", b"x", 443, b"https://control.example//evil.example/a"),
    (b"/\\evil.example", b"x", 443, b"https://control.example/\\evil.example"),
    (b"/caf\xc3\xa9", b"x", 443, b"https://control.example/caf%C3%A9"),
]


@pytest.mark.parametrize(("target", "host", "port", "location"), REDIRECTED)
def test_plain_listener_redirects_to_the_servers_own_name(
    target: bytes, host: bytes, port: int, location: bytes
) -> None:
    """H13: it went wherever the client's Host said."""
    fallback = redirect_to_https("control.example", port)
    front = Front({}, fallback=fallback, call_later=Alarms().call_later)
    stream = MemoryStream(front.sink(), peer=PEER)
    stream.deliver(b"GET " + target + b" HTTP/1.1\r\nHost: " + host + b"\r\n\r\n")
    answer = stream.take()
    assert answer.startswith(b"HTTP/1.1 302 ")
    assert b"Location: " + location + b"\r\n" in answer
    stream.deliver(b"POST /a HTTP/1.1\r\nHost: x\r\n\r\n")
    assert stream.take().startswith(b"HTTP/1.1 400 ")


@pytest.mark.parametrize(
    "line", [b"GET * HTTP/1.1\r\nHost: x", b"GET / HTTP/1.1\r\nHost: a/b?c#d\\@e"]
)
def test_plain_listener_redirects_no_odd_request(line: bytes) -> None:
    """H13: ``GET *`` led to ``https://a:PORT*``, an odd Host to a host inside of it."""
    front = Front({}, fallback=redirect_to_https("a.test"), call_later=Alarms().call_later)
    stream = MemoryStream(front.sink(), peer=PEER)
    stream.deliver(line + b"\r\n\r\n")
    assert stream.take().startswith(b"HTTP/1.1 400 ")


def test_plain_listener_names_an_address_in_brackets() -> None:
    route = redirect_to_https("2001:db8::1", 8443)
    answer = route(Head("GET", "/", 1, ()), MemoryStream())
    assert isinstance(answer, Answer)
    assert answer.headers["Location"] == "https://[2001:db8::1]:8443/"
