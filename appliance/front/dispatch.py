"""The first reader of every connection: request head in, the right door out.

One ``Dispatcher`` sits on each accepted stream. It reads every request head and body itself, gives
upgrades to the doors that asked for their paths (bytes behind the head included), answers small hot
GETs at once, and hands everything else to aiohttp, normalised: without what concerns the connection
and the coding of the body, with the whole body and its length. So no second parser can have another
opinion about who owns the next byte, and a declined upgrade is an ordinary request. One request is
under way at a time; the next waits in the stream. It stays in between, so that the tenth request of
a kept connection may be an upgrade too: proxies reuse connections that way.

Deadlines: one timer, armed by state, from the first byte of a connection to its last (``DEADLINES``).
Not for what any path means, and not for TLS (``stream``).
Source: RFC 9112 sections 6.3, 7.1, 9.3; RFC 9110 section 10.1.1.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping
from enum import IntEnum, auto
from typing import Protocol

from appliance.front.framing import Body
from appliance.front.http import WebTransport
from appliance.front.proxy import V2_MAGIC, Networks, client_address, decode_preamble, is_trusted
from appliance.front.source import Crowd, source_of
from appliance.front.stream import Sink, Stream
from appliance.wire.errors import ProtocolError
from appliance.wire.http1 import (
    MAX_HEAD_BYTES,
    METHODS,
    Answer,
    Head,
    decode_head,
    encode_answer,
    encode_normalised,
)

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
ANSWER_TIMEOUT_S = 60.0
"""From the end of the request to the first byte of the answer, and from one write of the answer to
the next: a handler that hangs, and a peer that reads so slowly that nothing more can be written."""
IDLE_TIMEOUT_S = 75.0
"""Between requests. Longer than the 60 s after which common proxies drop an idle connection
themselves."""
MAX_WAITING = 4_096
"""Connections without a complete first head, at about 20 KB each; when there are more, the source
with most of them loses its oldest. A storm of reconnecting nodes passes through here, so it is not
small."""
MAX_BODIES_BYTES = 32 << 20
"""Unfinished bodies of all connections together; the oldest one makes room. A true body is a round
trip or two under way."""
MAX_AT_ONCE = 32
"""Heads and pieces of body taken before others have their turn: at some 20 us each, a read full of
small requests would hold up everybody for 30 ms."""
END = b"\r\n\r\n"
CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


class State(IntEnum):
    """Whose turn it is on a connection."""

    OPENING = auto()
    """The peer's: nothing of a head has come, or not even the PROXY header."""
    HEAD = auto()
    """The peer's: a head has begun."""
    BODY = auto()
    """The peer's: the body is under way."""
    ANSWER = auto()
    """aiohttp's: the request is whole, the answer is not."""
    IDLE = auto()
    """The peer's: it may ask again."""
    OVER = auto()
    """Nobody's here: handed over, refused or closed."""


# An attribute of an enumeration costs 50 ns, and every request looks at a dozen of them.
_OPENING, _HEAD, _BODY, _ANSWER, _IDLE, _OVER = State

DEADLINES = {
    State.OPENING: HEAD_TIMEOUT_S,
    State.HEAD: HEAD_TIMEOUT_S,
    State.BODY: BODY_TIMEOUT_S,
    State.ANSWER: ANSWER_TIMEOUT_S,
    State.IDLE: IDLE_TIMEOUT_S,
}
"""How long each state may last; OVER has none, for then the stream or another sink has one."""


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
        """Heads, bodies and answers that took too long."""
        self.crowded = 0
        """Connections closed before their first head or inside a body, to make room."""


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
        max_bodies_bytes: int = MAX_BODIES_BYTES,
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
        self._waiting: Crowd[Dispatcher] = Crowd()
        self._max_bodies_bytes = max_bodies_bytes
        self._bodies: dict[Dispatcher, int] = {}
        self._bodies_bytes = 0

    def sink(self) -> Sink:
        """Make the sink of a new connection (the listener's factory)."""
        return Dispatcher(self)

    @property
    def waiting(self) -> int:
        """How many connections have not sent a whole head yet."""
        return len(self._waiting)

    @property
    def bodies_bytes(self) -> int:
        """How much of unfinished bodies is held."""
        return self._bodies_bytes

    def arrived(self, dispatcher: Dispatcher, source: str | None) -> None:
        """Count a connection that has not sent its head; make room if there are too many."""
        self._waiting.add(dispatcher, source)
        if len(self._waiting) > self._max_waiting:
            victim = self._waiting.oldest_of_the_largest()
            if victim is not None:
                self._make_room(victim)

    def passed(self, dispatcher: Dispatcher) -> None:
        """Forget a connection that has sent its head or is gone."""
        self._waiting.remove(dispatcher)

    def holds(self, dispatcher: Dispatcher, size_bytes: int) -> None:
        """Take note what a connection holds of an unfinished body; make room if it is too much."""
        self._bodies_bytes += size_bytes - self._bodies.get(dispatcher, 0)
        if size_bytes:
            self._bodies[dispatcher] = size_bytes
        else:
            self._bodies.pop(dispatcher, None)
        if self._bodies_bytes > self._max_bodies_bytes:
            self._make_room(next(iter(self._bodies)))

    def _make_room(self, victim: Dispatcher) -> None:
        self.counters.crowded += 1
        victim.give_up()


class Dispatcher:
    """The sink of one connection until a door takes it."""

    __slots__ = (
        "_body",
        "_direct_peer",
        "_front",
        "_head",
        "_heads",
        "_paused",
        "_preamble",
        "_state",
        "_stream",
        "_timer",
        "_transport",
        "_web",
    )
    _stream: Stream

    def __init__(self, front: Front) -> None:
        self._front = front
        self._body: Body | None = None
        self._direct_peer: tuple[str, int] | None = None
        self._head: Head | None = None
        self._heads = 0
        self._paused = False
        self._preamble = front.proxy_protocol
        self._state = _OVER
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
        self._enter(_OPENING)
        self._front.arrived(self, source_of(stream.peer))

    def received(self, buffer: bytearray, view: memoryview, end: int) -> int:
        """Take heads and bodies in turn; leave what must wait for an answer."""
        at = taken = 0
        while at < end and self._may_take():
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
        if at < end and (self._state is _ANSWER or self._paused):
            self._stream.pause_reading()
        return end if self._state is _OVER and self._stream.is_closing() else at

    def ended(self) -> None:
        """Close: whoever asks must also listen."""
        self._leave()
        if self._web is not None:
            self._web.eof_received()
        self._stream.close()

    def paused(self) -> None:
        """Pass back-pressure on, and take no further request."""
        self._paused = True
        if self._web is not None:
            self._web.pause_writing()
        self._stream.pause_reading()

    def resumed(self) -> None:
        """Go on."""
        self._paused = False
        if self._web is not None:
            self._web.resume_writing()
        self._go_on()

    def lost(self, error: Exception | None) -> None:
        """Tell aiohttp, which counts its connections."""
        self._leave()
        self._let_web_go(error)

    def give_up(self) -> None:
        """Close without a word: somebody else needs the room."""
        self._leave()
        self._stream.abort()

    def _may_take(self) -> bool:
        """Return whether the peer may go on; what it sent meanwhile is shown again later."""
        state = self._state
        return not self._paused and state is not _ANSWER and state is not _OVER

    def _go_on_later(self) -> None:
        """Take nothing more in this round of the event loop."""
        self._stream.pause_reading()
        self._front.call_later(0.0, self._go_on)

    def _go_on(self) -> None:
        if self._may_take():
            self._stream.resume_reading()

    # -- inside: pieces of what arrives ---------------------------------------------------------

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
            self._direct_peer = preamble.peer
            self._front.passed(self)
            if not self._stream.rename(preamble.peer):
                self._front.counters.crowded += 1
                self.give_up()
                return 0
            self._front.arrived(self, source_of(preamble.peer))
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
            elif self._state is _IDLE:
                self._enter(_HEAD)
            elif self._state is _OPENING:
                self._state = _HEAD  # with the time that is left
            return 0
        whole = bytes(view[at : stop + len(END)])
        try:
            head = decode_head(whole)
        except ProtocolError as error:
            self._refuse(400, str(error))
            return 0
        if not self._heads:
            self._front.passed(self)
        self._heads += 1
        self._name_client(head)
        self._route(head)
        return len(whole)

    def _take_body(self, view: memoryview, at: int, end: int) -> int:
        body, head = self._body, self._head
        assert body is not None and head is not None  # noqa: S101, PT018 - the caller has looked
        try:
            used = body.take(view[at:end])
        except ProtocolError as error:
            self._refuse(400, str(error))
            return 0
        if body.done:
            self._front.holds(self, 0)
            self._body = self._head = None
            self._replay(head, bytes(body.content))
        else:
            self._front.holds(self, len(body.content))
        return used

    # -- inside: decisions ----------------------------------------------------------------------

    def _name_client(self, head: Head) -> None:
        peer = self._direct_peer
        if peer is None or not self._front.trusted:
            return
        client = client_address(peer[0], head.all("x-forwarded-for"), self._front.trusted)
        self._stream.peer = peer if client == peer[0] else (client, 0)

    def _route(self, head: Head) -> None:
        if head.method == "CONNECT":
            self._refuse(405, "this is not a proxy")
            return
        route = self._front.routes.get(head.path)
        try:
            result = route(head, self._stream) if route is not None else None
            if result is None and self._front.web is None:
                result = self._front.fallback(head, self._stream)
        except Exception:
            log.exception("a route failed", extra={"path": head.path})
            result = Answer(500, b"internal error\n", close=True)
        if result is None:
            self._accept(head)
        elif isinstance(result, Answer):
            self._answer(head, result)
        else:
            self._hand_over(result)

    def _answer(self, head: Head, answer: Answer) -> None:
        self._front.counters.answered += 1
        keep = head.keep_alive and not head.has_body and not answer.close
        self._stream.write(encode_answer(answer, keep_alive=keep, head_only=head.method == "HEAD"))
        if keep:
            self._enter(_IDLE)
        else:
            self._leave()
            self._stream.close()

    def _hand_over(self, sink: Sink) -> None:
        self._front.counters.handed_over += 1
        self._leave()
        self._let_web_go(None)
        self._stream.hand_over(sink)

    def _accept(self, head: Head) -> None:
        """Take a request for aiohttp, unless its head already says why not."""
        refusal = self._why_not(head)
        if refusal is not None:
            self._refuse(*refusal)
        elif head.has_body:
            self._head = head
            self._body = Body(head, self._front.max_body_bytes)
            if head.get("expect") is not None and head.minor == 1:
                self._stream.write(CONTINUE)
            self._enter(_BODY)
        else:
            self._replay(head, b"")

    def _why_not(self, head: Head) -> tuple[int, str] | None:
        most = self._front.max_body_bytes
        if head.method not in METHODS:
            return 405, "this method is not known here"
        if head.length is not None and head.length > most:
            return 413, f"the body is longer than {most} bytes"
        if head.get("content-encoding") is not None:
            # aiohttp would unpack it, and some bytes become as many megabytes.
            return 415, "compressed bodies are not taken"
        if any(value.lower() != "100-continue" for value in head.all("expect")):
            return 417, "nothing but 100-continue can be expected"
        return None

    def _replay(self, head: Head, body: bytes) -> None:
        """Hand one whole request to aiohttp."""
        self._front.counters.replayed += 1
        if self._transport is None and self._front.web is not None:
            self._web = self._front.web()
            self._transport = WebTransport(
                self._stream, self._web, peer=self._direct_peer, answered=self._answered
            )
            self._web.connection_made(self._transport)
        if self._web is None or self._transport is None:
            return
        self._enter(_ANSWER)
        self._transport.expect(head.method, keep_alive=head.keep_alive)
        self._web.data_received(encode_normalised(head, len(body)) + body)

    def _answered(self, keep_alive: bool) -> None:
        """Let the next request have its turn: the answer is whole."""
        if self._state is not _ANSWER:
            return
        if keep_alive:
            self._enter(_IDLE)
            self._go_on()
        else:
            self._leave()
            self._stream.close()

    def _refuse(self, status: int, sentence: str) -> None:
        self._front.counters.refused += 1
        self._leave()
        answer = Answer(status, sentence.encode() + b"\n", close=True)
        self._stream.write(encode_answer(answer, keep_alive=False))
        self._stream.close()

    def _let_web_go(self, error: Exception | None) -> None:
        if self._transport is not None:
            self._transport.detach()
        if self._web is not None:
            web, self._web = self._web, None
            web.connection_lost(error)

    # -- inside: time ---------------------------------------------------------------------------

    def _enter(self, state: State) -> None:
        """Go on to another state, with its deadline."""
        self._state = state
        if self._timer is not None:
            self._timer.cancel()
        self._timer = self._front.call_later(DEADLINES[state], self._late)

    def _leave(self) -> None:
        """Take nothing more; give back what was counted."""
        self._state = _OVER
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        self._front.passed(self)
        if self._body is not None:
            self._body = self._head = None
            self._front.holds(self, 0)

    def _late(self) -> None:
        self._timer = None
        state = self._state
        if state is _ANSWER and self._transport is not None and self._transport.has_moved():
            self._enter(_ANSWER)
            return
        self._front.counters.late += 1
        if state in (_HEAD, _BODY):
            self._say_late(408, "the request took too long")
        elif state is _ANSWER and self._transport is not None:
            if self._transport.begun:
                self._leave()
                self._stream.abort()
            else:
                self._say_late(503, "the answer took too long")
        else:
            self._leave()
            self._stream.close()

    def _say_late(self, status: int, sentence: str) -> None:
        self._leave()
        answer = Answer(status, sentence.encode() + b"\n", close=True)
        self._stream.write(encode_answer(answer, keep_alive=False))
        self._stream.close()


def redirect_to_https(name: str, port: int = 443) -> Route:
    """Make the fallback of a plain listener: everything a browser asks for moves to https.

    ``name`` is the server's own. What the client calls it in Host or in a URL is the client's idea,
    and a cache in between would send others there.
    """
    authority = (f"[{name}]" if ":" in name else name) + ("" if port == 443 else f":{port}")

    def route(head: Head, _stream: Stream) -> Answer:
        if head.method not in ("GET", "HEAD"):
            return Answer(400, b"use https\n", close=True)
        return Answer(302, headers={"Location": f"https://{authority}{head.ascii_target}"})

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
