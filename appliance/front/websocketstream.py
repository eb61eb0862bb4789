"""A stream inside WebSocket messages, with the face of every other stream.

For control and relay, whose links then need not know how they were reached; not for the opening
handshake (``wire.websocket`` answers it). Sits as a sink on a stream and below another sink.
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from appliance.front.plainstream import MAX_KEPT_BYTES, NO_SINK, READ_ROOM_BYTES, Sink, Stream
from appliance.wire import websocket
from appliance.wire.websocket import CloseCode, Data, Ping, WebSocketError

if TYPE_CHECKING:
    from collections.abc import Sequence

log = logging.getLogger(__name__)

MAX_PONGS_BEHIND_BYTES = 64 * 1024
"""Pings are not answered while more than this waits to be sent: a ping flood must not grow it."""


class WebSocketStream(Stream):
    """The bytes inside the binary messages of a WebSocket connection, as server.

    Use: ``stream.hand_over(WebSocketStream(sink, answer_handshake(...)))``.
    """

    __slots__ = (
        "_answer",
        "_below",
        "_closing",
        "_ended",
        "_error",
        "_feeding",
        "_kept",
        "_reader",
        "_reading",
        "_sink",
    )

    def __init__(self, sink: Sink, answer: bytes = b"") -> None:
        self._answer = answer
        self._sink: Sink = sink
        self._reader = websocket.FrameReader(masked=True)
        self._kept = b""
        self._closing = False
        self._ended = False
        self._error: WebSocketError | None = None
        self._feeding = False
        self._reading = True

    # -- the stream below --

    def connected(self, stream: Stream) -> None:
        """Learn the stream below and answer the handshake; the sink above hears of it too."""
        self._below = stream
        if self._answer:
            stream.write(self._answer)
            self._answer = b""
        self.peer = stream.peer
        self.tls = stream.tls
        self.tls_version = stream.tls_version
        self.server_name = stream.server_name
        self._sink.connected(self)

    def received(self, _buffer: bytearray, view: memoryview, end: int) -> int:
        """Unwrap what came and show it to the sink; everything counts as consumed."""
        if self._closing or self._ended:
            return end
        try:
            events = self._reader.feed(view[:end])
        except WebSocketError as error:
            log.debug("websocket peer broke a rule", extra={"reason": str(error)})
            self._error = error
            self._finish(error.code)
            return end
        plain = b"".join([event.payload for event in events if isinstance(event, Data)])
        for event in events:
            if isinstance(event, Ping) and self._below.buffered() < MAX_PONGS_BEHIND_BYTES:
                self._below.write(websocket.encode_frame(websocket.Opcode.PONG, event.payload))
        if plain:
            self._feed(bytearray(self._kept + plain))
        if events and isinstance(events[-1], websocket.Close):
            self.ended()
        return end

    def ended(self) -> None:
        """Pass it on: the peer closed the WebSocket or what is below it."""
        if not self._closing and not self._ended:
            self._ended = True
            self._sink.ended()

    def paused(self) -> None:
        """Pass it on."""
        if not self._closing:
            self._sink.paused()

    def resumed(self) -> None:
        """Pass it on."""
        if not self._closing:
            self._sink.resumed()

    def lost(self, error: Exception | None) -> None:
        """Pass it on, once; a broken rule of WebSocket is the reason that counts."""
        self._closing = True
        sink, self._sink = self._sink, NO_SINK
        sink.lost(self._error or error)

    # -- the sink above --

    def write(self, data: bytes | bytearray | memoryview) -> None:
        """Send as binary messages of bounded size."""
        if not self._closing and data:
            self._below.write(websocket.encode_stream(memoryview(data)))

    def write_many(self, parts: Sequence[bytes]) -> None:
        """Send all parts in order."""
        if not self._closing:
            self._below.write_many([websocket.encode_stream(part) for part in parts if part])

    def buffered(self) -> int:
        """Count the bytes that the kernel has not taken yet."""
        return self._below.buffered()

    def close(self) -> None:
        """Send what is buffered and a close frame, then close."""
        self._finish(CloseCode.NORMAL)

    def abort(self) -> None:
        """Close at once."""
        self._closing = True
        self._below.abort()

    def is_closing(self) -> bool:
        """Tell whether the end has begun."""
        return self._closing

    def pause_reading(self) -> None:
        """Stop taking bytes."""
        self._reading = False
        self._below.pause_reading()

    def resume_reading(self) -> None:
        """Take bytes again; what was left unconsumed is shown now."""
        if self._reading or self._closing:
            return
        self._reading = True
        self._below.resume_reading()
        if self._kept and not self._feeding:
            self._feed(bytearray(self._kept))

    def set_write_limits(self, high: int, low: int) -> None:
        """Move the marks of the stream below."""
        self._below.set_write_limits(high, low)

    def hand_over(self, sink: Sink) -> None:
        """Replace the sink; see ``Stream.hand_over``."""
        self._sink = sink
        sink.connected(self)
        if self._kept and not self._feeding:
            self._feed(bytearray(self._kept))

    # -- inside --

    def _feed(self, plain: bytearray) -> None:
        self._feeding = True
        try:
            while plain and not self._closing:
                sink = self._sink
                used = sink.received(plain, memoryview(plain), len(plain))
                plain = plain[used:]
                if self._sink is sink:
                    break
        finally:
            self._feeding = False
        self._kept = bytes(plain)
        if len(plain) > MAX_KEPT_BYTES + READ_ROOM_BYTES:
            log.error(
                "a sink left too much unconsumed", extra={"reason": type(self._sink).__name__}
            )
            self.abort()

    def _finish(self, code: CloseCode) -> None:
        if self._closing:
            return
        self._closing = True
        self._below.write(websocket.encode_close(code))
        self._below.close()
