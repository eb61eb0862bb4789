"""Where messages end: bodies of requests, taken out of their coding, and answers, followed as they pass.

Not for heads (``wire.http1``) and not for deadlines (``dispatch``). Requests come from strangers, so
the chunked coding is read as its grammar says and not a byte more laxly: what a proxy in front of us
could read differently is refused. Answers are our own; following them says when the next request may
have its turn.
Source: RFC 9112 sections 6.3, 7.1.
"""

from __future__ import annotations

import re
from typing import TYPE_CHECKING

from appliance.wire.errors import ProtocolError

if TYPE_CHECKING:
    from appliance.wire.http1 import Head

# -- our own limits --

MAX_LINE_BYTES = 256
"""A chunk's size line (extensions included) or a trailer line; no client of ours sends long ones."""
MAX_TRAILERS = 16
"""Trailers are dropped; more than this is only work."""
MAX_FRAMING_BYTES = 64 * 1024
"""Size lines and trailers of one body: a megabyte in chunks of 64 bytes has less. Else single-byte
chunks cost 6 bytes of traffic and 2 us of parsing for each byte that counts."""
MAX_ANSWER_HEAD_BYTES = 64 * 1024
"""An answer of our own whose head is longer is not followed any further."""

# -- the grammar of RFC 9112 section 7.1 --

_TOKEN = rb"[!#$%&'*+\-.^_`|~0-9A-Za-z]+"
_SIZE_LINE = re.compile(
    rb"([0-9A-Fa-f]{1,8})(?:;" + _TOKEN + rb"(?:=(?:" + _TOKEN + rb'|"[ !#-\[\]-~]*"))?)*'
)
_TRAILER = re.compile(rb"(" + _TOKEN + rb"):[^\x00-\x08\x0a-\x1f\x7f]*")
_FRAMING_FIELDS = frozenset(
    {b"content-length", b"transfer-encoding", b"host", b"trailer", b"content-encoding"}
)
"""A trailer of this name would change what the message is; RFC 9110 section 6.5.1 forbids it."""

_SIZE, _DATA, _DATA_END, _TRAILERS = range(4)


class Body:
    """Collects the body of one request; ``done`` once its last byte has been taken.

    ``content`` then is the body without its coding. Raises ProtocolError out of ``take`` for what is
    not the chunked coding, and for more than ``limit`` bytes; it is not usable afterwards.
    """

    __slots__ = (
        "_chunked",
        "_framing",
        "_left",
        "_limit",
        "_line",
        "_state",
        "_trailers",
        "content",
        "done",
    )

    def __init__(self, head: Head, limit: int) -> None:
        self._chunked = head.chunked
        self._left = head.length or 0
        self._limit = limit
        self._framing = 0
        self._line = b""
        self._state = _SIZE
        self._trailers = 0
        self.content = bytearray()
        self.done = not head.has_body

    def take(self, data: memoryview) -> int:
        """Take what belongs to this body; return how many bytes that were. Raises ProtocolError."""
        if not self._chunked:
            used = min(self._left, len(data))
            self._copy(data[:used])
            self.done = self._left == 0
            return used
        at = 0
        while at < len(data) and not self.done:
            if self._state == _DATA:
                used = min(self._left, len(data) - at)
                self._copy(data[at : at + used])
                at += used
                if not self._left:
                    self._state = _DATA_END
            else:
                at += self._take_line(bytes(data[at : at + MAX_LINE_BYTES]))
        return at

    def _copy(self, data: memoryview) -> None:
        self.content += data
        self._left -= len(data)

    def _take_line(self, data: bytes) -> int:
        """Collect up to the end of a line, then act on it."""
        end = data.find(b"\n")
        used = end + 1 if end >= 0 else len(data)
        self._line += data[:used]
        self._framing += used
        if len(self._line) > MAX_LINE_BYTES:
            raise ProtocolError("request body: a line of the chunked coding is too long")
        if self._framing > MAX_FRAMING_BYTES:
            raise ProtocolError("request body: too many small chunks")
        if end >= 0:
            line, self._line = self._line, b""
            if not line.endswith(b"\r\n"):
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
            self._drop_trailer(line)
        else:
            self.done = True

    def _begin_chunk(self, line: bytes) -> None:
        found = _SIZE_LINE.fullmatch(line)
        if found is None:
            raise ProtocolError("request body: a chunk does not begin with its size")
        self._left = int(found[1], 16)
        if len(self.content) + self._left > self._limit:
            raise ProtocolError(f"request body: longer than {self._limit} bytes")
        self._state = _DATA if self._left else _TRAILERS

    def _drop_trailer(self, line: bytes) -> None:
        self._trailers += 1
        found = _TRAILER.fullmatch(line)
        if found is None or self._trailers > MAX_TRAILERS:
            raise ProtocolError("request body: a trailer is malformed, or there are too many")
        if found[1].lower() in _FRAMING_FIELDS:
            raise ProtocolError("request body: a trailer that only a head may have")


_STATUS = slice(9, 12)
_LENGTH = b"\r\ncontent-length: "
_NEVER_ENDS = 1 << 62
"""Left to come of an answer that only the end of the connection ends."""


class AnswerFollower:
    """Follows the bytes of one answer that aiohttp writes; ``done`` behind its last one.

    It trusts them: they are ours. An answer that it cannot follow is never done, and the deadline of
    the connection ends it.
    """

    __slots__ = ("_chunked", "_head", "_left", "_line", "_no_body", "begun", "closes", "done")

    def __init__(self, method: str) -> None:
        self._no_body = method == "HEAD"
        self._chunked = False
        self._head: bytes | None = b""
        self._left = 0
        self._line = b""
        self.begun = False
        self.closes = False
        """The answer says that it is the last one of the connection."""
        self.done = False

    def follow(self, data: bytes | bytearray | memoryview) -> bool:
        """Take note of the next bytes of the answer; return whether they end it."""
        self.begun = True
        if self._head is not None:
            rest = self._follow_head(self._head + bytes(data))
            if rest is None:
                return False
            data = rest
        if self._chunked:
            self._follow_chunks(bytes(data))
        else:
            self._left -= len(data)
            self.done = self._left <= 0
        return self.done

    def _follow_head(self, data: bytes) -> bytes | None:
        """Read the head; return what follows it, None while it is incomplete or provisional."""
        end = data.find(b"\r\n\r\n")
        if end < 0:
            self._head = data[:MAX_ANSWER_HEAD_BYTES]
            return None
        status, head, rest = data[_STATUS], data[: end + 2].lower(), data[end + 4 :]
        if status.startswith(b"1"):
            self._head = b""
            return self._follow_head(rest)
        self._head = None
        self.closes = b"\r\nconnection: close\r\n" in head
        length = head.find(_LENGTH)
        if self._no_body or status in (b"204", b"304"):
            self._left = 0
        elif length >= 0:
            self._left = int(head[length + len(_LENGTH) : head.find(b"\r\n", length + 2)])
        elif b"\r\ntransfer-encoding: chunked\r\n" in head:
            self._chunked = True
        else:
            self._left = _NEVER_ENDS
        return rest

    def _follow_chunks(self, data: bytes) -> None:
        """Walk over chunks: ``_left`` counts data and the line end behind it."""
        at = 0
        while at < len(data) and not self.done:
            if self._left:
                used = min(self._left, len(data) - at)
                self._left -= used
                at += used
                continue
            end = data.find(b"\n", at)
            if end < 0:
                self._line += data[at:]
                return
            line, self._line = self._line + data[at : end + 1], b""
            at = end + 1
            size = int(line.partition(b";")[0], 16)
            if size:
                self._left = size + 2
            else:
                self._chunked, self._left = False, 2 - (len(data) - at)  # the empty line
                self.done = self._left <= 0
                return
