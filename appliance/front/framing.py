"""Where the body of a request ends: counting for a stated length, scanning for chunks.

Not for taking bodies apart (aiohttp does): the bytes pass through unchanged, and this only finds
the first byte of the next request. Stricter than it must be, because two readers of the same bytes
that disagree are a smuggled request.
Source: RFC 9112 sections 6.3, 7.1.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Self

from appliance.wire.errors import ProtocolError

if TYPE_CHECKING:
    from appliance.wire.http1 import Head

MAX_LENGTH = 1 << 62
MAX_LINE_BYTES = 256
"""A chunk's size line (extensions included) or a trailer line; nobody of ours sends either long."""
MAX_TRAILERS = 16
_HEX = frozenset(b"0123456789abcdefABCDEF")

_SIZE, _DATA, _DATA_END, _TRAILER = range(4)


class BodyFraming:
    """Follows one body; ``done`` once its last byte has passed."""

    __slots__ = (
        "_chunked",
        "_left",
        "_limit",
        "_line",
        "_state",
        "_total",
        "_trailers",
        "done",
        "limited",
    )

    def __init__(self, *, chunked: bool, length: int, limit: int) -> None:
        self._chunked = chunked
        self._left = length
        self._limit = limit
        self._line = b""
        self._state = _SIZE
        self._total = 0
        self._trailers = 0
        self.done = not chunked and length == 0
        self.limited = chunked or length < MAX_LENGTH
        """False for a connection that became something else (WebSocket): it has no end."""

    @classmethod
    def of(cls, head: Head, limit: int) -> Self | None:
        """Follow the body behind this head; None if there is none."""
        if "upgrade" in head.tokens("connection") and head.tokens("upgrade") & {"websocket", "tcp"}:
            return cls(chunked=False, length=MAX_LENGTH, limit=MAX_LENGTH)
        if not head.has_body:
            return None
        return cls(chunked=head.chunked, length=head.length or 0, limit=limit)

    def advance(self, data: memoryview) -> int:
        """Pass bytes; tell how many of them belong to this body. Raises ProtocolError."""
        if not self._chunked:
            used = min(self._left, len(data))
            self._left -= used
            self.done = self._left == 0
            return used
        at = 0
        while at < len(data) and not self.done:
            if self._state == _DATA:
                used = min(self._left, len(data) - at)
                self._left -= used
                at += used
                if not self._left:
                    self._state = _DATA_END
            else:
                at += self._take_line(bytes(data[at : at + MAX_LINE_BYTES]))
        return at

    def _take_line(self, data: bytes) -> int:
        """Collect up to the end of a line, then act on it."""
        end = data.find(b"\n")
        used = end + 1 if end >= 0 else len(data)
        self._line += data[:used]
        if len(self._line) > MAX_LINE_BYTES:
            raise ProtocolError("request body: a line of the chunked coding is too long")
        if end >= 0:
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n") or b"\r" in line[:-2]:
                raise ProtocolError("request body: a line does not end in CR LF")
            self._act(line[:-2])
        return used

    def _act(self, line: bytes) -> None:
        if self._state == _SIZE:
            self._begin_chunk(line)
        elif self._state == _DATA_END:
            if line:
                raise ProtocolError("request body: bytes behind a chunk")
            self._state = _SIZE
        elif line:
            self._trailers += 1
            if self._trailers > MAX_TRAILERS:
                raise ProtocolError("request body: too many trailers")
        else:
            self.done = True

    def _begin_chunk(self, line: bytes) -> None:
        digits = line.partition(b";")[0].rstrip(b" \t")
        if not digits or len(digits) > 8 or not _HEX.issuperset(digits):
            raise ProtocolError("request body: a chunk's size is not hexadecimal")
        self._left = int(digits, 16)
        self._total += self._left
        if self._total > self._limit:
            raise ProtocolError("request body: longer than the limit")
        self._state = _DATA if self._left else _TRAILER
