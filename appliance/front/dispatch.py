"""The first reader of every connection: request head in, the right door out.

One ``Dispatcher`` sits on each accepted stream. It reads every request head itself, gives upgrades
to the doors that asked for their paths (bytes behind the head included), answers small hot GETs at
once, and replays everything else, byte for byte, into aiohttp. It stays in between, so that the
tenth request of a kept connection may be an upgrade too: proxies reuse connections that way.
Not for what any path means, and not for TLS (``stream``).
Source: RFC 9112 sections 6.3, 7.1, 9.3.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Protocol

from appliance.front.framing import BodyFraming
from appliance.front.http import WebTransport
from appliance.front.proxy import V2_MAGIC, Networks, client_address, decode_preamble, is_trusted
from appliance.front.stream import Sink, Stream
from appliance.wire.errors import ProtocolError
from appliance.wire.http1 import MAX_HEAD_BYTES, Answer, Head, decode_head, encode_answer

log = logging.getLogger(__name__)

__all__ = ["Answer", "Dispatcher", "Front", "FrontCounters", "Head", "Route", "redirect_to_https"]

Route = Callable[[Head, Stream], Sink | Answer | None]
"""Decides about one request: a sink takes the connection over (the head is consumed), an answer is
sent, None leaves the request to aiohttp. Called inside ``received``; must not wait."""


class Timer(Protocol):
    """What ``loop.call_later`` gives."""

    def cancel(self) -> None:
        """Do not call."""


CallLater = Callable[[float, Callable[[], None]], Timer]
"""``loop.call_later``, or a clock that a test moves."""

HEAD_TIMEOUT_S = 10.0
"""From the connection, or from the first byte of a later head, until the head is complete."""
BODY_TIMEOUT_S = 60.0
"""From the end of the head until the body is complete; bodies are at most 1 MiB."""
IDLE_TIMEOUT_S = 75.0
"""Between requests, while no application of aiohttp watches the connection itself."""
MAX_WAITING = 4_096
"""Connections without a complete first head, at about 20 KB each; the oldest makes room. A storm of
reconnecting nodes passes through here, so it is not small."""
MAX_AT_ONCE = 32
"""Heads and pieces of body taken before others have their turn: at some 20 us each, a read full of
small requests would hold up everybody for 30 ms."""
END = b"\r\n\r\n"


class FrontCounters:
    """What happened at the front door, for the metrics."""

    __slots__ = ("answered", "crowded", "handed_over", "late", "refused", "replayed")

    def __init__(self) -> None:
        self.handed_over = 0
        self.answered = 0
        """By a route, at once."""
        self.replayed = 0
        """Requests that aiohttp got."""
        self.refused = 0
        """Malformed or oversized heads, and answers of ours that say so."""
        self.late = 0
        """Heads and bodies that took too long."""
        self.crowded = 0
        """Connections closed before their first head, to make room."""


class Front:
    """What all connections of one listener share: routes, limits, counters.

    ``routes`` are exact paths; ``web`` makes aiohttp's protocols (``AppRunner.server``), or
    ``fallback`` answers what no route takes. ``trusted`` proxies may name the client in
    ``X-Forwarded-For``; with ``proxy_protocol`` every connection of theirs begins with that header.
    """

    def __init__(
        self,
        routes: Mapping[str, Route],
        *,
        web: Callable[[], asyncio.Protocol] | None = None,
        fallback: Route | None = None,
        trusted: Networks = (),
        proxy_protocol: bool = False,
        max_body_bytes: int = 1 << 20,
        max_waiting: int = MAX_WAITING,
        call_later: CallLater | None = None,
    ) -> None:
        self.routes = routes
        self.web = web
        self.fallback = fallback or _not_found
        self.trusted = trusted
        self.proxy_protocol = proxy_protocol
        self.max_body_bytes = max_body_bytes
        self.counters = FrontCounters()
        self.call_later = call_later or _on_the_loop
        self._max_waiting = max_waiting
        self._waiting: dict[Dispatcher, None] = {}

    def sink(self) -> Sink:
        """Make the sink of a new connection (the listener's factory)."""
        return Dispatcher(self)

    @property
    def waiting(self) -> int:
        """How many connections have not sent a whole head yet."""
        return len(self._waiting)

    def arrived(self, dispatcher: Dispatcher) -> None:
        """Count a connection that has not sent its head; make room if there are too many."""
        self._waiting[dispatcher] = None
        if len(self._waiting) > self._max_waiting:
            oldest = next(iter(self._waiting))
            self.counters.crowded += 1
            self.passed(oldest)
            oldest.give_up()

    def passed(self, dispatcher: Dispatcher) -> None:
        """Forget a connection that has sent its head or is gone."""
        self._waiting.pop(dispatcher, None)


class Dispatcher:
    """The sink of one connection until a door takes it."""

    __slots__ = (
        "_body",
        "_direct_peer",
        "_front",
        "_gone",
        "_heads",
        "_paused",
        "_preamble",
        "_stream",
        "_timer",
        "_transport",
        "_web",
    )
    _stream: Stream

    def __init__(self, front: Front) -> None:
        self._front = front
        self._body: BodyFraming | None = None
        self._direct_peer: tuple[str, int] | None = None
        self._gone = False
        self._heads = 0
        self._paused = False
        self._preamble = front.proxy_protocol
        self._timer: Timer | None = None
        self._transport: WebTransport | None = None
        self._web: asyncio.Protocol | None = None

    # -- the sink's face ------------------------------------------------------------------------

    def connected(self, stream: Stream) -> None:
        """Begin to wait for the first head."""
        self._stream = stream
        self._direct_peer = stream.peer
        if self._preamble:
            self._preamble = stream.peer is None or is_trusted(stream.peer[0], self._front.trusted)
        self._arm(HEAD_TIMEOUT_S)
        self._front.arrived(self)

    def received(self, buffer: bytearray, view: memoryview, end: int) -> int:
        """Take heads and bodies in turn."""
        at = taken = 0
        while at < end and not self._gone and not self._held():
            if taken == MAX_AT_ONCE:
                self._go_on_later()
                break
            taken += 1
            if self._body is not None:
                used = self._take_body(view, at, end)
            elif self._preamble:
                used = self._take_preamble(view, end)
            else:
                used = self._take_head(buffer, view, at, end)
            if not used:
                break
            at += used
        return end if self._gone and self._stream.is_closing() else at

    def ended(self) -> None:
        """Close: whoever asks must also listen."""
        if self._web is not None:
            self._web.eof_received()
        self._stream.close()

    def paused(self) -> None:
        """Pass back-pressure on, and take no further request."""
        self._paused = True
        if self._web is not None and self._transport is not None:
            self._web.pause_writing()
            self._transport.block()
        else:
            self._stream.pause_reading()

    def resumed(self) -> None:
        """Go on."""
        self._paused = False
        if self._web is not None and self._transport is not None:
            self._web.resume_writing()
            self._transport.unblock()
        else:
            self._stream.resume_reading()

    def lost(self, error: Exception | None) -> None:
        """Tell aiohttp, which counts its connections."""
        self._gone = True
        self._disarm()
        self._front.passed(self)
        if self._transport is not None:
            self._transport.detach()
        if self._web is not None:
            web, self._web = self._web, None
            web.connection_lost(error)

    def give_up(self) -> None:
        """Close without a word: somebody else needs the room, or time is over."""
        self._gone = True
        self._disarm()
        self._stream.abort()

    def _go_on_later(self) -> None:
        """Take nothing more in this round of the event loop."""
        self._stream.pause_reading()
        self._front.call_later(0.0, self._go_on)

    def _go_on(self) -> None:
        if not self._gone and not self._held():
            self._stream.resume_reading()

    # -- inside: pieces of what arrives ---------------------------------------------------------

    def _held(self) -> bool:
        """Tell whether nothing more may be taken now; the stream shows it again later."""
        if self._transport is not None:
            return not self._transport.is_reading()
        return self._paused

    def _take_preamble(self, view: memoryview, end: int) -> int:
        try:
            preamble = decode_preamble(view[:end])
        except ProtocolError as error:
            self._refuse(400, str(error))
            return 0
        if preamble is None:
            return 0
        self._preamble = False
        if preamble.peer is not None:
            self._direct_peer = self._stream.peer = preamble.peer
        return preamble.size

    def _take_head(self, buffer: bytearray, view: memoryview, at: int, end: int) -> int:
        if buffer[at] == 13 and end - at > 1 and buffer[at + 1] == 10:
            return 2  # an empty line before the request; RFC 9112 section 2.2
        stop = buffer.find(END, at, end)
        size = (stop if stop >= 0 else end) - at
        if size > MAX_HEAD_BYTES:
            self._refuse(431, f"the request head is longer than {MAX_HEAD_BYTES} bytes")
            return 0
        if stop < 0:
            if not _may_begin(buffer, at, end):
                self._refuse(400, "this is not HTTP/1")
            elif self._heads and self._timer is None:
                self._arm(HEAD_TIMEOUT_S)
            return 0
        whole = bytes(view[at : stop + len(END)])
        try:
            head = decode_head(whole)
        except ProtocolError as error:
            self._refuse(400, str(error))
            return 0
        self._disarm()
        if not self._heads:
            self._front.passed(self)
        self._heads += 1
        self._name_client(head)
        self._route(head, whole)
        return len(whole)

    def _take_body(self, view: memoryview, at: int, end: int) -> int:
        body = self._body
        assert body is not None  # noqa: S101 - the caller has looked
        try:
            used = body.advance(view[at:end])
        except ProtocolError as error:
            log.debug("body refused", extra={"reason": str(error)})
            self._front.counters.refused += 1
            self._gone = True
            self._stream.close()
            return 0
        if self._web is not None:
            self._web.data_received(bytes(view[at : at + used]))
        if body.done:
            self._body = None
            self._disarm()
        return used

    # -- inside: decisions ----------------------------------------------------------------------

    def _name_client(self, head: Head) -> None:
        peer = self._direct_peer
        if peer is None or not self._front.trusted:
            return
        client = client_address(peer[0], head.all("x-forwarded-for"), self._front.trusted)
        self._stream.peer = peer if client == peer[0] else (client, 0)

    def _route(self, head: Head, whole: bytes) -> None:
        if head.method == "CONNECT":
            self._refuse(405, "this is not a proxy")
            return
        route = self._front.routes.get(head.path)
        if route is not None and self._transport is not None and not self._transport.wrote:
            self._refuse(400, "this request must wait for the answer to the one before it")
            return
        try:
            result = route(head, self._stream) if route is not None else None
            if result is None and self._front.web is None:
                result = self._front.fallback(head, self._stream)
        except Exception:
            log.exception("a route failed", extra={"reason": head.path})
            result = Answer(500, b"internal error\n", close=True)
        if result is None:
            self._replay(head, whole)
        elif isinstance(result, Answer):
            self._answer(head, result)
        else:
            self._hand_over(result)

    def _answer(self, head: Head, answer: Answer) -> None:
        self._front.counters.answered += 1
        keep = head.keep_alive and not head.has_body and not answer.close
        self._stream.write(encode_answer(answer, keep_alive=keep, head_only=head.method == "HEAD"))
        if not keep:
            self._gone = True
            self._stream.close()
        elif self._web is None:
            self._arm(IDLE_TIMEOUT_S)

    def _hand_over(self, sink: Sink) -> None:
        self._front.counters.handed_over += 1
        self._gone = True
        if self._transport is not None:
            self._transport.detach()
        if self._web is not None:
            web, self._web = self._web, None
            web.connection_lost(None)
        self._stream.hand_over(sink)

    def _replay(self, head: Head, whole: bytes) -> None:
        if head.length is not None and head.length > self._front.max_body_bytes:
            self._refuse(413, f"the body is longer than {self._front.max_body_bytes} bytes")
            return
        if head.get("content-encoding") is not None:
            # aiohttp would unpack it, and some bytes become as many megabytes.
            self._refuse(415, "compressed bodies are not taken")
            return
        self._front.counters.replayed += 1
        if self._web is None and self._front.web is not None:
            self._web = self._front.web()
            self._transport = WebTransport(self._stream, self._web)
            self._web.connection_made(self._transport)
        if self._web is None or self._transport is None:
            return
        self._transport.wrote = False
        self._body = BodyFraming.of(head, self._front.max_body_bytes)
        if self._body is not None and self._body.limited:
            self._arm(BODY_TIMEOUT_S)
        self._web.data_received(whole)

    def _refuse(self, status: int, sentence: str) -> None:
        self._front.counters.refused += 1
        self._front.passed(self)
        self._disarm()
        self._gone = True
        if self._transport is None or self._transport.wrote:
            answer = Answer(status, sentence.encode() + b"\n", close=True)
            self._stream.write(encode_answer(answer, keep_alive=False))
        self._stream.close()

    # -- inside: time ---------------------------------------------------------------------------

    def _arm(self, seconds: float) -> None:
        self._disarm()
        self._timer = self._front.call_later(seconds, self._late)

    def _disarm(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None

    def _late(self) -> None:
        self._timer = None
        self._front.counters.late += 1
        self._front.passed(self)
        self._gone = True
        self._stream.close()


def redirect_to_https(port: int = 443) -> Route:
    """Make the fallback of a plain listener: everything a browser asks for moves to https."""
    suffix = "" if port == 443 else f":{port}"

    def route(head: Head, _stream: Stream) -> Answer:
        if head.method not in ("GET", "HEAD"):
            return Answer(400, b"use https\n", close=True)
        host = (head.get("host") or "").rpartition("@")[2]
        name = host.partition("]")[0] + "]" if host.startswith("[") else host.partition(":")[0]
        if not name:
            return Answer(400, b"no host\n", close=True)
        target = head.path + (f"?{head.query}" if head.query else "")
        return Answer(302, headers={"Location": f"https://{name}{suffix}{target}"})

    return route


def _on_the_loop(seconds: float, call: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(seconds, call)


def _not_found(_head: Head, _stream: Stream) -> Answer:
    return Answer(404, b"not found\n")


def _may_begin(buffer: bytearray, at: int, end: int) -> bool:
    """Tell whether bytes without an end of head can still become one (no TLS, no bare line ends)."""
    if buffer.startswith(V2_MAGIC, at, end):
        return False
    first = buffer[at]
    return (65 <= first <= 90 or first in b"\r\nabcdefghijklmnopqrstuvwxyz") and buffer.find(
        b"\n\n", at, end
    ) < 0
