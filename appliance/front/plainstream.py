"""Byte streams: the one face that TCP and TLS connections show to everything above them.

For carrying bytes both ways with bounds; not for what the bytes mean (a ``Sink`` knows) and not for
opening or accepting connections (``stream`` does). Sits directly on asyncio's and uvloop's
transports; ``tlsstream`` adds TLS.

All streams of the process read into the same two buffers, so an idle connection owns none. That
is safe because one event loop runs one callback at a time and a sink must not keep what it is
shown. It also is the reason why writes copy: a transport may hold on to what it is given.
"""

from __future__ import annotations

import asyncio
import logging
from abc import ABC, abstractmethod
from typing import TYPE_CHECKING, Protocol, cast

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

log = logging.getLogger(__name__)

# -- our own limits --

RECEIVE_BYTES = 64 * 1024
"""What one read may take from the kernel: enough for 46 full relay packets, small enough that the
TLS input buffer of a connection, which never shrinks, stays small after a burst."""

MAX_KEPT_BYTES = 96 * 1024
"""What a sink may leave unconsumed: the largest relay frame (64 KiB and two keys) with room. A
sink that wants more than this at once must consume as it goes."""

READ_ROOM_BYTES = RECEIVE_BYTES + 32 * 1024
"""What one read can become at most: what it took, and the TLS record that it completes."""

PLAIN_BYTES = MAX_KEPT_BYTES + 2 * READ_ROOM_BYTES
"""Room for what a sink may keep, a read that came while it paused, and one more."""

WRITE_PIECE_BYTES = 64 * 1024
"""Larger writes are cut: a TLS output buffer never shrinks, and joining large pieces halves the
throughput."""

HIGH_WATER_BYTES = 256 * 1024
"""Above this the sink is told to pause. uvloop counts what this round of the loop has written but
not yet offered to the kernel, so a lower mark would refuse traffic that the kernel has room for."""

LOW_WATER_BYTES = 64 * 1024
"""Below this the sink is told to resume."""

MAX_BUFFERED_BYTES = 16 * 1024 * 1024
"""A sink that ignores ``paused`` loses its connection here; a full map of 10,000 nodes fits."""

WRITE_STALL_S = 15.0
"""A peer that takes nothing for this long while the write buffer is over the mark is gone."""

CLOSE_FLUSH_S = 10.0
"""What ``close`` grants the peer to take the rest."""

# The shared receive buffers (see the module's docstring).
_received = bytearray(RECEIVE_BYTES)
RECEIVED = memoryview(_received)
PLAIN = bytearray(PLAIN_BYTES)
PLAIN_VIEW = memoryview(PLAIN)
_PLAIN_FIRST = PLAIN_VIEW[:RECEIVE_BYTES]


class Sink(Protocol):
    """What sits on a stream and takes its bytes."""

    def connected(self, stream: Stream, /) -> None:
        """Learn the stream; called once, first, also after ``hand_over``."""

    def received(self, buffer: bytearray, view: memoryview, end: int, /) -> int:
        """Take from ``buffer[0:end]`` and tell how many bytes were consumed.

        Buffer and view are shared by all streams and valid during the call only; they may be
        overwritten in place. What is not consumed is shown again in front of the next bytes.
        """

    def ended(self) -> None:
        """Learn that the peer will send no more; writing still works until ``close``."""

    def paused(self) -> None:
        """Learn that the write buffer is over its high mark: stop writing, or drop."""

    def resumed(self) -> None:
        """Learn that the write buffer is under its low mark again."""

    def lost(self, error: Exception | None, /) -> None:
        """Learn that the connection is gone; called once, last. Not after handing over."""


class Stream(ABC):
    """One accepted or dialled connection, over TCP or TLS."""

    __slots__ = ("peer", "server_name", "tls", "tls_version")

    peer: tuple[str, int] | None
    """The remote address; the front may replace it with what a trusted proxy says."""
    tls: bool
    tls_version: str | None
    """``TLSv1.3`` or ``TLSv1.2``; None without TLS."""
    server_name: str | None
    """The name that the client asked for in its TLS hello; None without."""

    def rename(self, peer: tuple[str, int]) -> bool:
        """Take note who the peer really is; False if that source has too many streams already."""
        self.peer = peer
        return True

    @abstractmethod
    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; copies what it must before returning, never blocks, silent after the end."""

    @abstractmethod
    def write_many(self, parts: Sequence[bytes]) -> None:
        """Send all parts in order, joined into pieces of at most 64 KiB."""

    @abstractmethod
    def buffered(self) -> int:
        """Count the bytes that the kernel has not taken yet."""

    @abstractmethod
    def close(self) -> None:
        """Send what is buffered, then close; nothing more is received."""

    @abstractmethod
    def abort(self) -> None:
        """Close at once; what is buffered is lost."""

    @abstractmethod
    def is_closing(self) -> bool:
        """Tell whether ``close`` or ``abort`` was called or the connection is gone."""

    @abstractmethod
    def pause_reading(self) -> None:
        """Stop taking bytes from the peer, so that it feels back-pressure."""

    @abstractmethod
    def resume_reading(self) -> None:
        """Take bytes again; what was left unconsumed is shown soon, without waiting for more."""

    @abstractmethod
    def set_write_limits(self, high: int, low: int) -> None:
        """Move the marks at which the sink hears ``paused`` and ``resumed``."""

    @abstractmethod
    def hand_over(self, sink: Sink) -> None:
        """Replace the sink: the old one hears nothing more, the new one hears ``connected`` and is
        shown at once what the old one has not consumed.

        May be called inside ``received``, which then returns what the old sink consumed.
        """


class Owner(Protocol):
    """Who made a stream (a listener or a dial) and wants to know of its life."""

    def stream_opened(self, stream: SocketStream, /) -> Sink | None:
        """Take note of a usable stream and give its sink; None refuses it."""

    def stream_renamed(self, stream: SocketStream, /) -> bool:
        """Take note that a stream's peer is another than it seemed; False refuses it."""

    def stream_closed(self, stream: SocketStream, error: Exception | None, /) -> None:
        """Take note of the end; also called for a stream that never became usable."""

    def write_stalled(self) -> None:
        """Count a peer that does not read."""


class SocketStream(Stream, asyncio.BufferedProtocol):
    """What plain and TLS streams share: sink, kept bytes, flow control, end."""

    __slots__ = (
        "_closing",
        "_ended",
        "_error",
        "_feeding",
        "_kept",
        "_owner",
        "_paused",
        "_raw",
        "_reading",
        "_sink",
        "_stall_size",
        "_timer",
        "_unread",
        "_write_raw",
    )

    def __init__(self, owner: Owner) -> None:
        self.peer = None
        self.tls = False
        self.tls_version = None
        self.server_name = None
        self._owner = owner
        self._sink: Sink = NO_SINK
        self._kept = b""
        self._closing = False
        self._ended = False
        self._error: Exception | None = None
        self._feeding = False
        self._paused = False
        self._reading = True
        self._stall_size = 0
        self._timer: asyncio.TimerHandle | None = None

    # -- the transport's side --

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport from the event loop."""
        raw = cast(asyncio.Transport, transport)  # loops promise only the base class
        self._raw = raw
        self._write_raw: Callable[[bytes], None] = raw.write
        self._unread: Callable[[], int] = raw.get_write_buffer_size
        name = raw.get_extra_info("peername")
        if isinstance(name, tuple) and len(name) >= 2:
            self.peer = (str(name[0]), int(name[1]))
        raw.set_write_buffer_limits(HIGH_WATER_BYTES, LOW_WATER_BYTES)

    def eof_received(self) -> bool:
        """Tell the sink, which decides when to close."""
        self._end()
        return not self._closing

    def pause_writing(self) -> None:
        """Pass the news to the sink and watch for a peer that does not read."""
        self._paused = True
        if not self._closing:
            self._watch_stall()
            self._sink.paused()

    def resume_writing(self) -> None:
        """Pass the news to the sink."""
        self._paused = False
        if not self._closing:
            self._stop_timer()
            self._sink.resumed()

    def connection_lost(self, exc: Exception | None) -> None:
        """End the stream: the sink hears it once."""
        self._closing = True
        self._stop_timer()
        self._kept = b""
        sink, self._sink = self._sink, NO_SINK
        error = exc or self._error
        self._owner.stream_closed(self, error)
        sink.lost(error)

    # -- the user's side --

    def write_many(self, parts: Sequence[bytes]) -> None:
        """Send all parts in order, joined into pieces of at most 64 KiB."""
        piece: list[bytes] = []
        size = 0
        for part in parts:
            if size + len(part) > WRITE_PIECE_BYTES and piece:
                self.write(piece[0] if len(piece) == 1 else b"".join(piece))
                piece.clear()
                size = 0
            piece.append(part)
            size += len(part)
        if piece:
            self.write(piece[0] if len(piece) == 1 else b"".join(piece))

    def buffered(self) -> int:
        """Count the bytes that the kernel has not taken yet."""
        return self._unread()

    def close(self) -> None:
        """Send what is buffered, then close; nothing more is received."""
        if self._closing:
            return
        self._closing = True
        self._say_goodbye()
        self._stop_timer()
        if self._unread():
            loop = asyncio.get_running_loop()
            self._timer = loop.call_later(CLOSE_FLUSH_S, self._raw.abort)
        self._raw.close()

    def abort(self) -> None:
        """Close at once; what is buffered is lost."""
        self._closing = True
        self._raw.abort()

    def is_closing(self) -> bool:
        """Tell whether ``close`` or ``abort`` was called or the connection is gone."""
        return self._closing

    def pause_reading(self) -> None:
        """Stop taking bytes from the peer, so that it feels back-pressure."""
        if self._reading and not self._closing:
            self._reading = False
            if not self._ended and not self._raw.is_closing():
                self._raw.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes again; what was left unconsumed is shown soon, without waiting for more."""
        if self._reading or self._closing:
            return
        self._reading = True
        if self._kept:
            # Before anything new: else a sink that takes a little each time hoards the rest.
            asyncio.get_running_loop().call_soon(self._show_kept)
        else:
            self._read_on()

    def rename(self, peer: tuple[str, int]) -> bool:
        """Take note who the peer really is; False if that source has too many streams already."""
        self.peer = peer
        return self._owner.stream_renamed(self)

    def set_write_limits(self, high: int, low: int) -> None:
        """Move the marks at which the sink hears ``paused`` and ``resumed``."""
        self._raw.set_write_buffer_limits(high, low)

    def hand_over(self, sink: Sink) -> None:
        """Replace the sink; see ``Stream.hand_over``."""
        self._sink = sink
        sink.connected(self)
        if self._closing:
            return
        if self._paused:
            sink.paused()
        if not self._feeding:
            self._show_kept()
            if self._ended and self._sink is sink:
                sink.ended()

    # -- inside --

    def _open(self) -> None:
        sink = self._owner.stream_opened(self)
        if sink is None:
            self.abort()
            return
        self._sink = sink
        sink.connected(self)

    def _feed(self, end: int) -> None:
        """Show ``PLAIN[0:end]`` to the sink, and what it leaves to those that it hands over to."""
        sink = self._sink
        self._feeding = True
        used = sink.received(PLAIN, PLAIN_VIEW, end)
        self._feeding = False
        if used == end:
            self._kept = b""
        else:
            self._leave(sink, used, end)

    def _leave(self, sink: Sink, used: int, end: int) -> None:
        """Keep what a sink did not consume, or show it to the one that it handed over to."""
        while sink is not self._sink and not self._closing:
            end -= used
            PLAIN[:end] = PLAIN[used : used + end]
            sink = self._sink
            self._feeding = True
            used = sink.received(PLAIN, PLAIN_VIEW, end)
            self._feeding = False
            if used == end:
                break
        self._keep(bytes(PLAIN_VIEW[used:end]))

    def _show_kept(self) -> None:
        """Show kept bytes outside a read, in a buffer of their own: the shared one may be busy."""
        while self._kept and not self._closing and self._reading:
            own = bytearray(self._kept)
            sink = self._sink
            self._feeding = True
            try:
                used = sink.received(own, memoryview(own), len(own))
            finally:
                self._feeding = False
            self._keep(bytes(own[used:]))
            if self._sink is sink:
                break
        self._read_on()

    def _read_on(self) -> None:
        if self._reading and not self._closing and not self._ended and not self._raw.is_closing():
            self._raw.resume_reading()

    def _keep(self, rest: bytes) -> None:
        self._kept = rest
        if len(rest) > MAX_KEPT_BYTES + READ_ROOM_BYTES and not self._closing:
            log.error(
                "a sink left too much unconsumed", extra={"reason": type(self._sink).__name__}
            )
            self.abort()

    def _say_goodbye(self) -> None:
        """Send the last words of the layer (TLS)."""

    def _end(self) -> None:
        if self._ended:
            return
        self._ended = True
        if not self._closing:
            self._sink.ended()

    def _watch_stall(self) -> None:
        self._stop_timer()
        self._stall_size = self._unread()
        loop = asyncio.get_running_loop()
        self._timer = loop.call_later(WRITE_STALL_S, self._check_stall)

    def _check_stall(self) -> None:
        self._timer = None
        if self._closing:
            return
        if self._unread() >= self._stall_size:
            log.debug("peer does not read", extra={"reason": "write-stall"})
            self._owner.write_stalled()
            self.abort()
        else:
            self._watch_stall()

    def _stop_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None


class PlainStream(SocketStream):
    """A connection without TLS."""

    __slots__ = ()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Take the transport from the event loop; the stream is usable at once."""
        super().connection_made(transport)
        self._open()

    def get_buffer(self, _sizehint: int) -> memoryview:
        """Lend the shared buffer for one read, behind the kept bytes."""
        kept = self._kept
        if kept:
            size = len(kept)
            PLAIN_VIEW[:size] = kept
            return PLAIN_VIEW[size : size + RECEIVE_BYTES]
        return _PLAIN_FIRST

    def buffer_updated(self, nbytes: int) -> None:
        """Show the sink what was read."""
        if not self._closing:
            self._feed(len(self._kept) + nbytes)

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send; copies what it must before returning, never blocks, silent after the end."""
        if self._closing:
            return
        if self._paused and self._unread() > MAX_BUFFERED_BYTES:
            self._owner.write_stalled()
            self.abort()
            return
        # The transport may keep a reference, and buffers are shared: only bytes go in.
        self._write_raw(data if type(data) is bytes else bytes(data))


class _NoSink:
    """Stands where no sink is yet, or any more."""

    def connected(self, _stream: Stream) -> None:
        pass

    def received(self, _buffer: bytearray, _view: memoryview, end: int) -> int:
        return end

    def ended(self) -> None:
        pass

    def paused(self) -> None:
        pass

    def resumed(self) -> None:
        pass

    def lost(self, _error: Exception | None) -> None:
        pass


NO_SINK = _NoSink()
