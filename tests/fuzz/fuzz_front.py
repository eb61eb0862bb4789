"""The front against three other readers of HTTP/1: aiohttp's two parsers and h11.

Streams of structured nasty requests, in pieces. What the front hands over must be one whole request
for every reader, with the same body, and the next request must begin right behind it. What it takes
from the wire must not be two requests for another reader, who could be a proxy in front of us.
Whatever else came, the connection was answered with a 4xx and closed, and none outlives its
deadlines.
"""

from __future__ import annotations

import asyncio
import functools
import itertools
import random
import re
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any, cast

import h11
from aiohttp.base_protocol import BaseProtocol
from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.http_parser import HttpRequestParser, HttpRequestParserPy

from appliance.front.dispatch import DEADLINES, Answer, Front
from appliance.wire.http1 import MAX_HEAD_BYTES, Head
from tests.fuzz.harness import main, mutate
from tests.support.memorystream import Alarms, MemoryStream

MAX_BODY_BYTES = 600
ONCE = (b"user-agent", b"content-type")
"""Fields that aiohttp answers with 400 when there are two of them."""
SENTINEL = b"GET /sentinel HTTP/1.1\r\nhost: s\r\n\r\n"
CHUNKED = b"POST / HTTP/1.1\r\nhost: s\r\ntransfer-encoding: chunked\r\n\r\n"
ANSWERED = b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"


@dataclass(frozen=True, slots=True)
class Request:
    """One request as a reader sees it."""

    method: str
    body: bytes
    is_whole: bool


Reader = Callable[[bytes], list[Request] | None]
"""Reads all requests of a stream; None if it refuses any."""


# -- other readers ----------------------------------------------------------------------------------


class _NoLoop:
    """What aiohttp's parsers want of an event loop when nobody waits: nothing."""

    def get_debug(self) -> bool:
        return False


def _by_aiohttp(make: Any, data: bytes) -> list[Request] | None:
    loop = cast(asyncio.AbstractEventLoop, _NoLoop())
    parser = make(
        BaseProtocol(loop),
        loop,
        1 << 24,
        max_line_size=MAX_HEAD_BYTES,
        max_field_size=MAX_HEAD_BYTES,
        auto_decompress=False,
    )
    try:
        messages, _upgraded, tail = parser.feed_data(data)
    except HttpProcessingError:
        return None
    found = []
    for message, payload in messages:
        if payload.exception() is not None:
            return None
        whole = payload.is_eof() or payload._eof
        found.append(Request(message.method, payload.read_nowait(), whole))
    if tail:
        found.append(Request("", tail, is_whole=False))
    return found


def by_h11(data: bytes) -> list[Request] | None:
    """Read with h11 as a server does that answers every request at once."""
    reader = h11.Connection(h11.SERVER, max_incomplete_event_size=1 << 17)
    reader.receive_data(data)
    found: list[Request] = []
    method, body = "", b""
    try:
        while True:
            event = reader.next_event()
            if isinstance(event, h11.Request):
                method, body = event.method.decode(), b""
            elif isinstance(event, h11.Data):
                body += event.data
            elif isinstance(event, h11.EndOfMessage):
                found.append(Request(method, body, is_whole=True))
                method = ""
                reader.send(h11.Response(status_code=200, headers=[("content-length", "0")]))
                reader.send(h11.EndOfMessage())
                if reader.our_state is h11.MUST_CLOSE:
                    return found
                reader.start_next_cycle()
            else:
                break
    except h11.RemoteProtocolError:
        return None
    if method or reader.trailing_data[0]:
        found.append(Request(method, body, is_whole=False))
    return found


READERS: dict[str, Reader] = {
    "aiohttp, C": functools.partial(_by_aiohttp, HttpRequestParser),
    "aiohttp, Python": functools.partial(_by_aiohttp, HttpRequestParserPy),
    "h11": by_h11,
}


# -- nasty requests ---------------------------------------------------------------------------------

METHODS = (b"GET", b"POST", b"POST", b"PUT", b"HEAD", b"OPTIONS", b"DELETE", b"PATCH")
ODD_METHODS = (b"CONNECT", b"TRACE", b"PRI", b"get", b"BREW", b"M-SEARCH", b"", b"G\x00T", b"GET ")
TARGETS = (b"/", b"/a?b=c", b"/page", b"/quick", b"/take", b"http://y/a", b"HTTPS://y:80?b")
ODD_TARGETS = (
    b"*",
    b"//y/a",
    b"/%2e%2e/%00",
    b"/a#b",
    b"/caf\xc3\xa9?\xff",
    b"/a b",
    b"/a\tb",
    b"y:443",
    b"http://u@y/",
    b"http:///a",
    b"http://[::1]:80/",
    b"http://y\\z/",
    b"/" + b"a" * 9000,
    b'/\\{}|^`"<>',
    b"?a",
    b"",
)
VERSIONS = (b"HTTP/1.1",) * 9 + (b"HTTP/1.0",)
ODD_VERSIONS = (b"HTTP/0.9", b"HTTP/2.0", b"HTTP/1.2", b"http/1.1", b"HTTP/1.10", b"HTTP/1.1 ", b"")
ENDS = (b"\r\n",)
ODD_ENDS = (b"\n", b"\r", b"\r\r\n", b"\n\r", b" \r\n", b"\r\n\t", b"\x0b\r\n")
FIELDS = (
    b"Accept: */*",
    b"User-Agent: x",
    b"X-Empty:",
    b"X-Blanks:  \t a \t b \t ",
    b"X-Text: caf\xc3\xa9 \xff",
    b"X-Long: " + b"y" * 9000,
    b"Cookie: a=b; c=d",
    b"Connection: close",
    b"Connection: keep-alive",
    b"Connection: Upgrade",
    b"Connection: Upgrade, HTTP2-Settings",
    b"Connection: X-Text, host, content-length",
    b"Upgrade: websocket",
    b"Upgrade: tcp",
    b"Upgrade: h2c",
    b"Upgrade: h2c, websocket",
    b"HTTP2-Settings: AAMAAABkAAQAAP__",
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
    b"Sec-WebSocket-Version: 13",
    b"Expect: 100-continue",
    b"Keep-Alive: timeout=5",
    b"Proxy-Connection: close",
    b"TE: trailers, chunked",
    b"Trailer: X-Sum",
    b"Content-Type: application/json",
    b"X-Forwarded-For: 1.2.3.4",
)
ODD_FIELDS = (
    b"Content-Encoding: gzip",
    b"Content-Encoding: identity",
    b"Expect: wonders",
    b"Host: other",
    b"Host: a/b?c#d\\@e",
    b" folded: x",
    b"\tfolded",
    b"Blank : x",
    b": x",
    b"no colon",
    b"X-\x00: y",
    b"X-Nul: a\x00b",
    b"X-CR: a\rb",
    b"X-LF: a\nContent-Length: 3",
    b"X-Ctl: a\x0b\x0c\x7f",
    b"X-\xc3\xa9: y",
    b"(x): y",
    b"Content-Length : 3",
    b"Transfer-Encoding : chunked",
    b"Transfer_Encoding: chunked",
    b"Content_Length: 3",
)
LENGTHS = (b"+3", b"-1", b"0x3", b"3, 3", b"3 3", b"", b"03", b"3\t", b"9" * 30, b"\xb2", b"3.0")
CODINGS = (
    b"chunked",
    b"Chunked",
    b"CHUNKED ",
    b"gzip, chunked",
    b"chunked, identity",
    b"chunked, chunked",
    b"xchunked",
    b"\x0bchunked",
    b"identity",
    b"chunked;q=1",
    b'"chunked"',
    b"",
)
EXTENSIONS = (
    b"",
    b"",
    b"",
    b";a",
    b";a=b;c=d",
    b';a="b c"',
    b" ",
    b"\t",
    b";",
    b";a=",
    b';a="',
    b"; a=b",
    b";a b",
    b";\x00",
    b";a\rb",
    b";a\nb",
    b";" + b"x" * 300,
)
SIZES = (
    b"%x",
    b"%x",
    b"%x",
    b"%X",
    b"0%x",
    b"000000000%x",
    b"+%x",
    b"0x%x",
    b"%x ",
    b"1_%x",
    b"-%x",
)
TRAILERS = (
    b"X-Sum: 1",
    b"X-Empty:",
    b"Content-Length: 5",
    b"Transfer-Encoding: chunked",
    b"Host: z",
    b":bad",
    b"X : a",
    b"X",
    b"X\x00: a",
    b" folded",
    b"X: a\rb",
    b"X: a\nGET / HTTP/1.1",
)
TAILS = (b"", b"", b"", b"\r\n", b"\r\n\r\n", b"\n", b"\r", b"\x00", b"GET", b"0\r\n\r\n")
ODDLY = 0.02
"""How often each part of a request is odd: so that many requests are good to their end."""


def _one(rng: random.Random, usual: tuple[bytes, ...], odd: tuple[bytes, ...]) -> bytes:
    return rng.choice(odd if rng.random() < ODDLY else usual)


def _chunked(rng: random.Random) -> bytes:
    out = b""
    for _ in range(rng.randint(0, 4)):
        chunk = rng.choice((b"a", b"hello", b"\r\n0\r\n\r\n", b"GET / HTTP/1.1\r\n", b"z" * 300))
        size = rng.choice(SIZES) if rng.random() < 0.05 else b"%x"
        extension = rng.choice(EXTENSIONS) if rng.random() < 0.1 else b""
        line = size % (len(chunk) + (rng.random() < 0.02)) + extension
        out += line + _one(rng, ENDS, ODD_ENDS) + chunk + _one(rng, ENDS, ODD_ENDS)
    last = rng.choice((b"0", b"0", b"0", b"000", b"0;a", b"00 ", b""))
    out += last + _one(rng, ENDS, ODD_ENDS)
    for _ in range(rng.choice((0, 0, 0, 1, 2))):
        out += rng.choice(TRAILERS) + _one(rng, ENDS, ODD_ENDS)
    return out + _one(rng, ENDS, ODD_ENDS)


def _framing(rng: random.Random) -> tuple[list[bytes], bytes]:
    """Make the fields that frame a body, and a body that may fit."""
    body = rng.choice((b"abc", b"GET /take HTTP/1.1\r\nHost: x\r\n\r\n", b"x" * 599, b"x" * 700))
    length = b"Content-Length: %d" % (len(body) + rng.choice((0, 0, 0, 0, 0, 0, 1, -1)))
    match rng.randrange(12):
        case 0 | 1 | 2 | 3:
            return [], b""
        case 4 | 5 | 6:
            return [length], body
        case 7 | 8 | 9:
            return [b"Transfer-Encoding: " + _one(rng, (b"chunked",), CODINGS)], _chunked(rng)
        case 10 if rng.random() < 0.3:
            return [rng.choice((length, b"Content-Length: " + rng.choice(LENGTHS))), length], body
        case _ if rng.random() > 0.3:
            return [], b""
        case _:
            both = [length, b"Transfer-Encoding: " + rng.choice(CODINGS)]
            rng.shuffle(both)
            return both[: rng.randint(1, 2)], rng.choice((body, _chunked(rng)))


def a_request(rng: random.Random) -> bytes:
    """Make one request, good or odd in any of its parts."""
    line = b" ".join(
        (
            _one(rng, METHODS, ODD_METHODS),
            _one(rng, TARGETS, ODD_TARGETS),
            _one(rng, VERSIONS, ODD_VERSIONS),
        )
    )
    framing, body = _framing(rng)
    fields = [b"Host: x"] * (rng.random() > ODDLY / 2) + framing
    fields += [_one(rng, FIELDS, ODD_FIELDS) for _ in range(rng.choice((0, 0, 1, 2, 3, 5)))]
    rng.shuffle(fields)
    head = b"".join(
        text + _one(rng, ENDS, ODD_ENDS if rng.random() < 0.2 else ENDS) for text in (line, *fields)
    )
    return head + b"\r\n" + body + (rng.choice(TAILS) if rng.random() < ODDLY else b"")


# -- the front with a web behind it -----------------------------------------------------------------


class Web(asyncio.Protocol):
    """Keeps what aiohttp would get; answers at once, in part, with an end, or never."""

    def __init__(self, house: House) -> None:
        self._house = house

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._transport = transport

    def data_received(self, data: bytes) -> None:
        self._house.handed.append(data)
        self._house.note_end(data)
        chance = self._house.rng.random()
        if chance < 0.9:
            self._transport.write(ANSWERED)
        elif chance < 0.93:
            self._transport.write(ANSWERED[: self._house.rng.randrange(1, len(ANSWERED))])
        elif chance < 0.96:
            self._transport.write(ANSWERED.replace(b"\r\n\r\n", b"\r\nConnection: close\r\n\r\n"))
            self._transport.close()


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


class House:
    """One connection to a front, and what became of its requests."""

    def __init__(self, rng: random.Random) -> None:
        self.rng = rng
        self.alarms = Alarms()
        self.handed: list[bytes] = []
        self.ends: list[tuple[int, bytes | None]] = []
        self.is_taken = False
        self._delivered = 0
        self.front = Front(
            {"/quick": self._quick, "/take": self._take},
            web=lambda: Web(self),
            max_body_bytes=MAX_BODY_BYTES,
            call_later=self.alarms.call_later,
        )
        self.stream = MemoryStream(self.front.sink(), peer=("192.0.2.9", 1))

    def _quick(self, _head: Head, _stream: object) -> Answer:
        self.note_end()
        return Answer(200, b"quick")

    def _take(self, _head: Head, _stream: object) -> Swallow:
        self.is_taken = True
        return Swallow()

    def note_end(self, handed: bytes | None = None) -> None:
        """Note how much had been delivered when a request was whole, and what was handed over."""
        self.ends.append((self._delivered, handed))

    def deliver(self, parts: Iterable[bytes]) -> None:
        for part in parts:
            self._delivered += len(part)
            self.stream.deliver(part)
            while self.stream._kept and not self.stream.closed and self._shows_more():
                pass

    def _shows_more(self) -> bool:
        left = len(self.stream._kept)
        self.alarms.advance(0)  # for a front that lets others have their turn
        self.stream.deliver(b"")
        return len(self.stream._kept) < left


# -- what must hold ---------------------------------------------------------------------------------


def check_handed(data: bytes) -> None:
    """Check that every reader finds this one request, and the next one right behind it."""
    head, _, body = data.partition(b"\r\n\r\n")
    method = head.partition(b" ")[0].decode()
    lowered = head.lower()
    for field in (
        b"upgrade",
        b"transfer-encoding",
        b"content-encoding",
        b"expect",
        b"te",
        b"trailer",
    ):
        assert b"\r\n%b:" % field not in lowered, (field, data)
    assert lowered.count(b"\r\nconnection:") <= 1, data
    assert not re.search(rb"[^\r]\n|\r[^\n]|\x00", head), data
    is_last = b"\r\nconnection: close" in lowered
    want = [Request(method, body, is_whole=True)]
    both = want if is_last else [*want, Request("GET", b"", is_whole=True)]
    names = re.findall(rb"\r\n([^:\r]+):", lowered)
    for name, read in READERS.items():
        for text, found in ((data, want), (data + SENTINEL, both)):
            seen = read(text)
            if seen is None and any(names.count(each) > 1 for each in ONCE):
                continue
            if text is not data and (is_last or (name == "h11" and b" HTTP/1.0\r\n" in head)):
                continue  # whatever follows a last request is not read, and h11 keeps none of 1.0
            assert seen == found, (name, text, seen)


def check_taken(raw: bytes, handed: bytes | None) -> None:
    """Check that no reader finds anything but one request in what the front took for one.

    A reader may refuse it, but not all of them, and none may refuse its chunks.
    """
    raw = raw.lstrip(b"\r\n")  # empty lines before a request; h11 takes only one of them
    seen = {name: read(raw) for name, read in READERS.items()}
    assert all(found is None or len(found) <= 1 for found in seen.values()), (raw, seen)
    assert any(found is not None for found in seen.values()), raw
    head, _, coded = raw.partition(b"\r\n\r\n")
    if handed is not None and re.search(rb"\r\ntransfer-encoding:", head, re.IGNORECASE):
        body = handed.partition(b"\r\n\r\n")[2]
        for name, read in READERS.items():
            want = [Request("POST", body, is_whole=True)]
            assert read(CHUNKED + coded) == want, (name, coded, read(CHUNKED + coded))


def check_end(house: House) -> None:
    """Check that the connection ends, whatever it waits for, and that a refusal is a 4xx."""
    refused = house.front.counters.refused
    last = bytes(house.stream.written).rfind(b"HTTP/1.1 ")
    if refused:
        assert house.stream.closed
        assert re.match(rb"HTTP/1\.1 4\d\d ", house.stream.written[last:]), house.stream.written
    for _ in range(4):
        house.alarms.advance(max(DEADLINES.values()))
    assert house.stream.closed or house.is_taken
    house.stream.lose()
    assert house.front.waiting == house.front.bodies_bytes == 0


def case(rng: random.Random) -> None:
    house = House(rng)
    data = b"".join(a_request(rng) for _ in range(rng.choice((1, 2, 3, 5, 8))))
    if rng.random() < 0.2:
        data = mutate(rng, data)
    slowly = len(data) < 800 and rng.random() < 0.06
    cuts = (
        range(len(data))
        if slowly
        else sorted(rng.choices(range(len(data) + 1), k=rng.randint(0, 5)))
    )
    house.deliver(data[a:b] for a, b in itertools.pairwise([0, *cuts, len(data)]))
    for request in house.handed:
        check_handed(request)
    if slowly:
        start = 0
        for end, handed in house.ends:
            check_taken(data[start:end], handed)
            start = end
    check_end(house)


if __name__ == "__main__":
    main(case)
