"""One node's connection: Noise records below, HTTP/2 in the middle, exchanges above.

Not for the upgrade that leads here (``ts2021``) and not for what requests mean (the handler). It is
the sink of a stream: bytes come in, are opened, parsed and handed over as exchanges; answers are
framed, sealed and written, as far as the client's windows and the socket allow. What they do not
allow waits as references, in the order of the streams' turns.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from typing import TYPE_CHECKING, Protocol

from appliance.control.exchange import TEXT, Exchange, Handler, Header, OutStream
from appliance.control.http2 import (
    BODY_TIMEOUT_S,
    ENHANCE_YOUR_CALM,
    FRAME_HEAD_BYTES,
    MAX_FRAME_BYTES,
    MAX_STREAMS,
    Request,
    Reset,
)
from appliance.wire.controlbase import MAX_PLAINTEXT_BYTES
from appliance.wire.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable, Iterable, Sequence

    from appliance.control.http2 import Http2Server
    from appliance.front.stream import Stream
    from appliance.wire.keys import MachineKey

log = logging.getLogger(__name__)

WRITE_PIECE_BYTES = 4 * MAX_PLAINTEXT_BYTES
"""Plain bytes sealed and written at a time: four full Noise records are exactly one of TLS (16 KiB).
TLS buffers never shrink again, so this is memory per node: 37 KB less than with pieces of 60 KiB, at
no measurable cost."""
DATA_BYTES = WRITE_PIECE_BYTES - FRAME_HEAD_BYTES
"""Body in one DATA frame of a long answer, so that the frame fills such a piece."""
TURN_BYTES = 4 * DATA_BYTES
"""What one stream may send before the next one of the same link has its turn."""
TAKE_BYTES = 16 * 1024
"""What is taken of one read before others have their turn: forty requests at 0.2 ms, or a third of
the largest Hostinfo."""
STALL_TIMEOUT_S = 120.0
"""An answer that makes no progress for this long: the client itself gives a map up after 120 s."""
MAX_BACKLOG_BYTES = 64 << 20
"""All waiting answers of one link; eight full maps of 10,000 peers. They are references mostly."""
MANY_BYTES = MAX_BACKLOG_BYTES // MAX_STREAMS
"""The sum is only worth making when one answer has its share."""
STRANGER_IDLE_S = 60.0
"""A link without any open request that nobody has vouched for is closed after this."""


class Cipher(Protocol):
    """The Noise session (``wire.controlbase.Session``)."""

    def feed(self, data: bytes) -> bytes:
        """Give the plain bytes of the records that are complete. Raises ProtocolError."""

    def seal(self, data: bytes) -> bytes:
        """Give records around these plain bytes."""


class Owner(Protocol):
    """The door that a link belongs to."""

    def vouched(self, link: Link) -> None:
        """Take note that the link's machine key is known."""

    def hoards(self, link: Link, held_bytes: int) -> None:
        """Take note what unfinished requests of a stranger hold; close some if it is too much."""

    def closed(self, link: Link, reason: str) -> None:
        """Forget the link; ``reason`` is one of a few words, for counting."""

    @property
    def clock(self) -> Callable[[], float]:
        """The time that deadlines are measured with."""

    def call_soon(self, call: Callable[[], None], /) -> object:
        """Call in the next round of the event loop."""


class Link:
    """The exchanges of one connection; implements ``exchange.Carrier`` and ``stream.Sink``."""

    __slots__ = (
        "_corked",
        "_greeting",
        "_handler",
        "_http",
        "_open",
        "_owner",
        "_paused",
        "_pumping",
        "_reason",
        "_recognised",
        "_session",
        "_stalled_since",
        "_stream",
        "_tasks",
        "_waiting",
        "known",
        "last_used",
        "machine_key",
        "peer",
        "version",
    )

    def __init__(
        self,
        owner: Owner,
        handler: Handler,
        session: Cipher,
        http: Http2Server,
        *,
        machine_key: MachineKey,
        version: int,
        head: bytes,
        early: bytes = b"",
        recognised: bool = False,
    ) -> None:
        self.machine_key = machine_key
        self.version = version
        self.peer: tuple[str, int] | None = None
        self.known = False
        """Somebody has vouched for the machine key."""
        self.last_used = owner.clock()
        self._owner = owner
        self._handler = handler
        self._session = session
        self._http = http
        self._greeting: tuple[bytes, bytes] | None = (head, early)
        self._stream: Stream | None = None
        self._open: dict[int, Exchange | OutStream] = {}
        self._tasks: dict[int, asyncio.Task[None]] = {}
        self._waiting: dict[int, OutStream] = {}
        self._corked = False
        self._paused = False
        self._pumping = False
        self._recognised = recognised
        self._stalled_since = 0.0
        self._reason = "left"

    # -- the sink's face ------------------------------------------------------------------------

    def connected(self, stream: Stream) -> None:
        """Greet in one write: the head as it is, then sealed the early payload and SETTINGS."""
        self._stream = stream
        self.peer = stream.peer
        if self._greeting is None:
            raise RuntimeError("a link was connected twice")
        head, early = self._greeting
        self._greeting = None
        stream.write(head + self._session.seal(early + b"".join(self._http.take())))

    def received(self, _buffer: bytearray, view: memoryview, end: int) -> int:
        """Take Noise records, in any pieces (the session keeps what is incomplete)."""
        if end <= TAKE_BYTES:
            self.feed(bytes(view[:end]))
            return end
        self.feed(bytes(view[:TAKE_BYTES]))
        if self._stream is not None:
            self._stream.pause_reading()
            self._owner.call_soon(self._go_on)
        return TAKE_BYTES

    def ended(self) -> None:
        """Close: a client that sends no more cannot open windows either."""
        if self._stream is not None:
            self._stream.close()

    def _go_on(self) -> None:
        if self._stream is not None and not self._paused:
            self._stream.resume_reading()

    def feed(self, data: bytes) -> None:
        """Take bytes of the Noise connection."""
        if self._stream is None or self._stream.is_closing():
            return
        now = self.last_used = self._owner.clock()
        self._corked = True
        leaving = False
        try:
            plain = self._session.feed(data)
            if plain and self._recognised:
                # Only now: an initiation can be recorded and sent again, a record cannot be made.
                self._recognised = False
                self.vouch()
            events = self._http.receive(plain, now) if plain else ()
            for event in events:
                if isinstance(event, Request):
                    self._begin(event)
                elif isinstance(event, Reset):
                    self._drop(event.stream_id)
                else:
                    leaving = True
        except ProtocolError as error:
            self._corked = False
            self._give_up("protocol", error)
            return
        self._corked = False
        self._pump()
        if not self.known:
            self._owner.hoards(self, self._http.unfinished_bytes)
        if leaving and self._stream is not None:
            self._stream.close()

    def paused(self) -> None:
        """Stop sending, and stop reading: what cannot be answered shall not be asked."""
        self._paused = True
        if self._stream is not None:
            self._stream.pause_reading()

    def resumed(self) -> None:
        """Go on."""
        self._paused = False
        if self._stream is not None:
            self._stream.resume_reading()
        self._pump()

    def lost(self, error: Exception | None) -> None:
        """End everything that this connection carried."""
        self._stream = None
        if error is not None and self._reason == "left":
            self._reason = "protocol" if isinstance(error, ProtocolError) else "broken"
        open_ones, self._open = self._open, {}
        self._waiting.clear()
        for one in open_ones.values():
            self._guard(one.lose)
        for task in self._tasks.values():
            task.cancel()
        self._owner.closed(self, self._reason)

    # -- the exchange's face --------------------------------------------------------------------

    def answer(self, stream_id: int, status: int, headers: Sequence[Header], body: bytes) -> None:
        """Send a whole answer."""
        if self._open.pop(stream_id, None) is None:
            return
        if not self._http.headers(stream_id, status, headers, end=not body) or not body:
            self._flush()
        elif len(body) <= MAX_FRAME_BYTES and len(body) <= self._http.window(stream_id):
            self._http.data(stream_id, body, end=True)
            self._flush()
        else:
            out = OutStream(self, stream_id)
            self._open[stream_id] = out
            out.write((body,))
            out.close()

    def begin(self, stream_id: int, status: int, headers: Sequence[Header]) -> OutStream:
        """Send the head of an answer; give the stream that its body goes to."""
        out = OutStream(self, stream_id)
        if self._open.pop(stream_id, None) is None:
            out.closed = True
            return out
        if self._http.headers(stream_id, status, headers, end=False):
            self._open[stream_id] = out
        else:
            out.closed = True
        self._flush()
        return out

    def send(self, out: OutStream, parts: Sequence[bytes]) -> None:
        """Send what the windows and the socket take now, queue references to the rest."""
        data = parts[0] if len(parts) == 1 else b"".join(parts) if _is_small(parts) else b""
        if data and out.queue is None and not self._paused:
            size = len(data)
            if size <= MAX_FRAME_BYTES and size <= self._http.window(out.stream_id):
                self._http.data(out.stream_id, data)
                self._flush()
                return
        if out.queue is None:
            out.queue = deque()
            self._waiting[out.stream_id] = out
            if len(self._waiting) == 1:
                self._stalled_since = self._owner.clock()
        out.queue.extend(part for part in parts if part)
        out.backlog += sum(map(len, parts))
        self._pump(out)
        if out.backlog > MANY_BYTES and self._backlog() > MAX_BACKLOG_BYTES:
            self._give_up("backlog", None)

    def finish(self, out: OutStream) -> None:
        """End the stream behind what is queued."""
        if out.queue is None:
            self._end(out)
            self._flush()

    def reset(self, stream_id: int) -> None:
        """Break the stream off; what is queued is forgotten."""
        self._waiting.pop(stream_id, None)
        if self._open.pop(stream_id, None) is not None:
            self._http.reset(stream_id)
            self._flush()

    def vouch(self) -> None:
        """Take the link out of the bounded set of strangers."""
        if not self.known and self._stream is not None:
            self.known = True
            self._http.trust()
            self._owner.vouched(self)

    # -- the door's face ------------------------------------------------------------------------

    @property
    def streams(self) -> int:
        """How many requests are open or being answered."""
        return len(self._open)

    @property
    def tasks(self) -> Iterable[asyncio.Task[None]]:
        """The handlers that still run."""
        return self._tasks.values()

    def sweep(self, now: float) -> None:
        """Check the deadlines; the door calls this every few seconds."""
        begun = self._http.unfinished_since
        if begun is not None and now - begun > BODY_TIMEOUT_S:
            self._give_up("slow-body", None)
        elif self._waiting and now - self._stalled_since > STALL_TIMEOUT_S:
            self._give_up("stalled", None)
        elif not self.known and not self._open and now - self.last_used > STRANGER_IDLE_S:
            self._give_up("idle", None)

    def close(self, reason: str) -> None:
        """Say goodbye (GOAWAY), then close."""
        self._reason = reason
        if self._stream is not None:
            self._http.goaway()
            self._flush()
            self._stream.close()

    def abandon(self) -> None:
        """Break the connection off without a word: a bug has hit the link."""
        self._reason = "broken"
        if self._stream is not None:
            self._stream.abort()

    # -- inside ---------------------------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        exchange = Exchange(
            self,
            request.stream_id,
            request.method,
            request.target,
            request.headers,
            request.body,
        )
        self._open[request.stream_id] = exchange
        try:
            result = self._handler(exchange)
        except Exception as error:  # noqa: BLE001 - a bug, caught at the link's loop
            self._failed(exchange, error)
            return
        if result is not None:
            # The handler's own coroutine, not one around it: a task that is cancelled before its
            # first step closes its coroutine, and never gets to one inside.
            name = f"{exchange.method} {exchange.path}"
            task = asyncio.get_running_loop().create_task(result, name=name)
            self._tasks[request.stream_id] = task
            task.add_done_callback(lambda task: self._handled(exchange, task))

    def _handled(self, exchange: Exchange, task: asyncio.Task[None]) -> None:
        """Take note that a handler's task is over, in whatever way it ended."""
        self._tasks.pop(exchange.stream_id, None)
        if task.cancelled():
            return
        error = task.exception()
        if isinstance(error, Exception):
            self._failed(exchange, error)
        elif not exchange.answered and not exchange.closed:
            self._failed(exchange, RuntimeError("the handler returned without an answer"))

    def _failed(self, exchange: Exchange, error: Exception) -> None:
        log.error(
            "request failed",
            exc_info=error,
            extra={"machine_key": self.machine_key.short, "capver": self.version},
        )
        if exchange.closed:
            return
        if not exchange.answered:
            exchange.respond(500, b"internal error\n", content_type=TEXT)
            return
        out = self._open.get(exchange.stream_id)
        if isinstance(out, OutStream):
            out.abort()

    def _drop(self, stream_id: int) -> None:
        """Forget a stream that the client has reset."""
        self._waiting.pop(stream_id, None)
        one = self._open.pop(stream_id, None)
        if one is not None:
            self._guard(one.lose)
        task = self._tasks.get(stream_id)
        if task is not None:
            task.cancel()

    def _guard(self, call: Callable[[], None]) -> None:
        """Run a callback of the application; its bug must not end the others' streams."""
        try:
            call()
        except Exception:
            log.exception("a stream's callback failed")

    def _pump(self, only: OutStream | None = None) -> None:
        """Send what waits, turn by turn, until windows or socket say stop.

        ``only`` is the stream that has just begun to wait: the others cannot move either.
        """
        if self._pumping:
            return
        self._pumping = True
        try:
            moved = True
            while moved and self._waiting:
                moved = False
                turns = list(self._waiting.values()) if only is None else (only,)
                only = None
                for out in turns:
                    if self._may_write() and not out.closed and self._turn(out):
                        moved = True
                if moved:
                    self._stalled_since = self._owner.clock()
        finally:
            self._pumping = False
        self._flush()

    def _may_write(self) -> bool:
        return not self._paused and self._stream is not None

    def _turn(self, out: OutStream) -> bool:
        """Send up to TURN_BYTES of one stream; tell whether anything moved."""
        queue = out.queue
        sent = 0
        while queue and sent < TURN_BYTES:
            room = min(self._http.window(out.stream_id), DATA_BYTES)
            if not room:
                break
            part = queue.popleft()
            if len(part) > room:
                whole = memoryview(part)
                queue.appendleft(whole[room:])
                part = whole[:room]
            self._http.data(out.stream_id, part)
            sent += len(part)
        out.backlog -= sent
        if queue is not None and not queue:
            del self._waiting[out.stream_id]
            if out.ending:
                out.queue = None
                self._end(out)
            else:
                self._guard(out.drain_reached)
        elif sent:  # to the end of the line
            self._waiting[out.stream_id] = self._waiting.pop(out.stream_id)
        if sent:
            self._write()
        return sent > 0

    def _end(self, out: OutStream) -> None:
        self._open.pop(out.stream_id, None)
        out.closed = True
        self._http.data(out.stream_id, b"", end=True)

    def _backlog(self) -> int:
        return sum(out.backlog for out in self._waiting.values())

    def _flush(self) -> None:
        if not self._corked and not self._pumping:
            self._write()

    def _write(self) -> None:
        """Seal and write what HTTP/2 wants to say, in pieces."""
        parts = self._http.take()
        stream = self._stream
        if not parts or stream is None:
            return
        piece: list[bytes | memoryview] = []
        size = 0
        for part in parts:
            if size + len(part) > WRITE_PIECE_BYTES and piece:
                self._write_piece(stream, b"".join(piece))
                piece.clear()
                size = 0
            piece.append(part)
            size += len(part)
        self._write_piece(stream, b"".join(piece))

    def _write_piece(self, stream: Stream, plain: bytes) -> None:
        stream.write(self._session.seal(plain))

    def _give_up(self, reason: str, error: Exception | None) -> None:
        log.debug(
            "link closed",
            extra={"machine_key": self.machine_key.short, "reason": str(error or reason)},
        )
        self._reason = reason
        stream = self._stream
        if stream is None:
            return
        if error is None:
            self._http.goaway(ENHANCE_YOUR_CALM)
        self._write()
        stream.close()


def _is_small(parts: Sequence[bytes]) -> bool:
    size = 0
    for part in parts:
        size += len(part)
    return size <= MAX_FRAME_BYTES
