"""One request of a node and the answer to it: what a handler of the nodes' door sees.

Not for bytes (``link`` and ``http2`` turn them into exchanges) and not for meaning (``machine``
routes them). Sits between the two: a handler gets an ``Exchange``, answers it whole with
``respond`` or opens an ``OutStream`` and keeps writing to it. Everything here runs on the event
loop's thread; nothing here copies a body, so many streams can share the same bytes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from collections import deque

    from appliance.wire.keys import MachineKey

Header = tuple[bytes, bytes]
"""A header field: lower-case name and value."""

Answering = Coroutine[object, None, None]
"""What is left to do for an answer: not begun yet, and begun by whoever got it."""

Handler = Callable[["Exchange"], Answering | None]
"""Answers one exchange, now or later. What it returns as coroutine runs in a task of the link,
which is cancelled when the client goes away; what it raises is logged and answered with 500."""

JSON = b"application/json"
TEXT = b"text/plain; charset=utf-8"


class Carrier(Protocol):
    """The link below, as an exchange uses it; a test may put a recorder here."""

    machine_key: MachineKey
    version: int
    peer: tuple[str, int] | None

    def answer(self, stream_id: int, status: int, headers: Sequence[Header], body: bytes) -> None:
        """Send a whole answer."""

    def begin(self, stream_id: int, status: int, headers: Sequence[Header]) -> OutStream:
        """Send the head of an answer; give the stream that its body goes to."""

    def send(self, out: OutStream, parts: Sequence[bytes]) -> None:
        """Send what the windows and the socket take now, queue references to the rest."""

    def finish(self, out: OutStream) -> None:
        """End the stream behind what is queued."""

    def reset(self, stream_id: int) -> None:
        """Break the stream off; what is queued is forgotten."""

    def vouch(self) -> None:
        """Take the link out of the bounded set of strangers."""


class OutStream:
    """An answer that goes on: the body of one open HTTP/2 stream.

    ``write`` never blocks and never copies more than the socket takes: what the client's window or
    the socket refuses stays queued as references to the caller's own (immutable, shareable) bytes.
    A caller that minds watches ``backlog`` and continues from ``on_drained``. After the client has
    gone, ``closed`` is true and writing does nothing.
    """

    __slots__ = (
        "_carrier",
        "_closed_call",
        "_drained_call",
        "_waiter",
        "backlog",
        "closed",
        "ending",
        "queue",
        "stream_id",
    )

    def __init__(self, carrier: Carrier, stream_id: int) -> None:
        self._carrier = carrier
        self.stream_id = stream_id
        self.backlog = 0
        """Bytes written but not yet taken by the client's window and the socket."""
        self.closed = False
        self.ending = False
        self.queue: deque[bytes | memoryview] | None = None
        """The link's own: what waits, in order; None while nothing does (an empty deque is 700 bytes)."""
        self._drained_call: Callable[[], None] | None = None
        self._closed_call: Callable[[], None] | None = None
        self._waiter: asyncio.Future[None] | None = None

    def write(self, parts: Sequence[bytes]) -> None:
        """Send the parts in order. They must not change afterwards; they may be shared."""
        if not self.closed and not self.ending:
            self._carrier.send(self, parts)

    def on_drained(self, callback: Callable[[], None] | None) -> None:
        """Call back every time the backlog has gone from something to nothing."""
        self._drained_call = callback

    def on_closed(self, callback: Callable[[], None] | None) -> None:
        """Call back once when the client has ended the stream or the link is lost.

        Not called for our own ``close``. Called at once if it has happened already.
        """
        if self.closed and callback is not None:
            callback()
            return
        self._closed_call = callback

    async def drained(self) -> None:
        """Wait until the backlog is empty or the stream closed. One waiter at a time."""
        if self.closed or not self.backlog:
            return
        self._waiter = asyncio.get_running_loop().create_future()
        try:
            await self._waiter
        finally:
            self._waiter = None

    def close(self) -> None:
        """End the stream; what is queued is still sent."""
        if not self.closed and not self.ending:
            self.ending = True
            self._carrier.finish(self)

    def abort(self) -> None:
        """Reset the stream; what is queued is forgotten."""
        if not self.closed:
            self.lose()
            self._carrier.reset(self.stream_id)

    def drain_reached(self) -> None:
        """Tell the owner that everything is sent (called by the link)."""
        self.queue = None
        self._wake()
        if self._drained_call is not None:
            self._drained_call()

    def lose(self) -> None:
        """Tell the owner that the stream is over (called by the link, or by ``abort``)."""
        if self.closed:
            return
        self.closed = True
        self.queue = None
        self.backlog = 0
        self._wake()
        callback, self._closed_call, self._drained_call = self._closed_call, None, None
        if callback is not None:
            callback()

    def _wake(self) -> None:
        if self._waiter is not None and not self._waiter.done():
            self._waiter.set_result(None)


class Exchange:
    """One request, complete with its body, and the way to answer it exactly once.

    ``version`` is the capability version of the Noise prologue (authenticated, chosen by the
    client); ``machine_key`` is proven, but whether anybody knows it is the handler's question.
    A handler that has recognised it calls ``vouch``.
    """

    __slots__ = (
        "_carrier",
        "_closed_call",
        "answered",
        "body",
        "closed",
        "headers",
        "method",
        "path",
        "query",
        "stream_id",
    )

    def __init__(
        self,
        carrier: Carrier,
        stream_id: int,
        method: str,
        target: str,
        headers: Sequence[Header] = (),
        body: bytes = b"",
    ) -> None:
        self._carrier = carrier
        self.stream_id = stream_id
        self.method = method
        self.path, _, self.query = target.partition("?")
        self.headers = headers
        self.body = body
        self.answered = False
        self.closed = False
        """The client has gone or reset the stream: nobody reads an answer any more."""
        self._closed_call: Callable[[], None] | None = None

    @property
    def machine_key(self) -> MachineKey:
        """The machine key that the Noise handshake proved."""
        return self._carrier.machine_key

    @property
    def version(self) -> int:
        """The capability version that the client mixed into the handshake."""
        return self._carrier.version

    @property
    def peer(self) -> tuple[str, int] | None:
        """The client's address, behind trusted proxies."""
        return self._carrier.peer

    def header(self, name: bytes) -> bytes | None:
        """Give the first field of this (lower-case) name, or None."""
        for field, value in self.headers:
            if field == name:
                return value
        return None

    def vouch(self) -> None:
        """Say that the machine key belongs to a known node: the link no longer is a stranger's."""
        self._carrier.vouch()

    def respond(
        self,
        status: int,
        body: bytes = b"",
        *,
        content_type: bytes = JSON,
        headers: Sequence[Header] = (),
    ) -> None:
        """Answer whole. ``content-length`` and (with a body) ``content-type`` are added."""
        if not self._take():
            return
        head: list[Header] = [(b"content-length", b"%d" % len(body)), *headers]
        if body:
            head.insert(0, (b"content-type", content_type))
        self._carrier.answer(self.stream_id, status, head, b"" if self.method == "HEAD" else body)

    def open_stream(
        self, status: int = 200, *, content_type: bytes = JSON, headers: Sequence[Header] = ()
    ) -> OutStream:
        """Answer with a head now and a body that goes on until ``close`` or the client leaves."""
        if not self._take():
            out = OutStream(self._carrier, self.stream_id)
            out.closed = True
            return out
        head = [(b"content-type", content_type), *headers]
        return self._carrier.begin(self.stream_id, status, head)

    def on_closed(self, callback: Callable[[], None] | None) -> None:
        """Call back once if the client goes away before the answer; at once if it has already."""
        if self.closed and callback is not None:
            callback()
            return
        self._closed_call = callback

    def lose(self) -> None:
        """Tell the owner that the client has gone (called by the link)."""
        if self.closed:
            return
        self.closed = True
        callback, self._closed_call = self._closed_call, None
        if callback is not None:
            callback()

    def _take(self) -> bool:
        if self.answered:
            raise RuntimeError(f"{self.method} {self.path} is answered a second time")
        self.answered = True
        self._closed_call = None
        return not self.closed
