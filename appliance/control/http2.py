"""The HTTP/2 server inside a Noise link, as narrow as this program needs it.

Not for sockets, Noise or handlers (``link``), and not a general HTTP/2 server: no push, no
priorities, no trailers. ``Http2Server`` is the face; ``http2_h2`` and ``http2_ngh2`` are the two
implementations behind it and behind the same tests. What both share lives here: the gate that
bounds floods before any parser sees them, and the intake that joins bodies within limits.
Source: RFC 9113; docs/protocol/http2.md.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING, Protocol

from appliance.ratelimit import TokenBucket
from appliance.wire.errors import ProtocolError

if TYPE_CHECKING:
    from appliance.control.exchange import Header

log = logging.getLogger(__name__)

# What RFC 9113 says.
PREFACE = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n"
FRAME_HEAD_BYTES = 9
MAX_FRAME_BYTES = 16_384
MAX_WINDOW = 2**31 - 1
NO_ERROR, PROTOCOL_ERROR, INTERNAL_ERROR = 0x0, 0x1, 0x2
REFUSED_STREAM, CANCEL, ENHANCE_YOUR_CALM = 0x7, 0x8, 0xB
DATA, HEADERS, PRIORITY, RST_STREAM, SETTINGS = range(5)
PUSH_PROMISE, PING, GOAWAY, WINDOW_UPDATE, CONTINUATION = range(5, 10)
END_STREAM, END_HEADERS = 0x1, 0x4

# Ours, each with its reason.
MAX_STREAMS = 200
"""Go clients assume 100 before they read our SETTINGS; one node holds two or three for hours."""
MAX_HEADER_LIST_BYTES = 4_096
"""A client's request has ten fields, which count as 600 bytes. Every field costs some 7 us, and one
byte is enough to refer to a field that was sent before, so this bounds what such bytes cost."""
MAX_HEADER_BLOCK_BYTES = MAX_HEADER_LIST_BYTES
"""HEADERS and its CONTINUATIONs together; compressed, so never longer than the list."""
MAX_BODY_BYTES = 1 << 20
"""The largest true body is a Hostinfo with many services or a lock sync: some 100 KiB."""
MAX_UNFINISHED_BYTES = 4 << 20
"""All bodies of one link that are still arriving; a client sends one or two at a time."""
BODY_TIMEOUT_S = 30.0
"""A body of some KiB needs one round trip, even on a bad line."""

CONTROL_BURST = 4_000.0
"""Cheap frames that may come at once: a client answers a large map by hundreds of WINDOW_UPDATEs."""
CONTROL_PER_S = 100.0
"""Cheap frames in the long run; a node at rest sends one PING in 30 s."""
STRANGER_BURST = 400.0
"""What a machine that nobody knows may send of them: its opening takes 60, and then some 7 requests
are plenty to register. They cost 0.1 ms each, and strangers come in any number."""
STRANGER_PER_S = 1.0
"""In the long run a stranger has to come again, which is bounded by source."""
REQUEST_TOKENS = 30
"""What a request costs beside its fields: a node asks a few things at once when it starts, and then
some times a minute."""
BLOCK_BYTES_PER_TOKEN = 16
"""Bytes of a header block that cost one token more: a first request has 200, later ones 40."""
BYTES_PER_CREDIT = 2_048
"""Sent bytes that allow one more cheap frame: Go updates each of two windows every 4 KiB."""
SMALL_DATA_BYTES = 1_024
"""A DATA frame below this that does not end its stream counts as cheap frame."""
_WEIGHTS = {
    HEADERS: REQUEST_TOKENS,
    PRIORITY: 1,
    RST_STREAM: 10,
    SETTINGS: 20,
    PING: 5,
    WINDOW_UPDATE: 1,
    CONTINUATION: 5,
}
_OTHER_WEIGHT = 5


class Request:
    """A whole request: what the intake gives once the client has ended its stream."""

    __slots__ = ("body", "headers", "method", "stream_id", "target")

    def __init__(
        self, stream_id: int, method: str, target: str, headers: Sequence[Header], body: bytes
    ) -> None:
        self.stream_id = stream_id
        self.method = method
        self.target = target
        self.headers = headers
        self.body = body


class Reset:
    """The client has broken the stream off, or it was broken off for the client's mistake."""

    __slots__ = ("stream_id",)

    def __init__(self, stream_id: int) -> None:
        self.stream_id = stream_id


class Goodbye:
    """The client will ask nothing more on this connection and reads nothing more."""

    __slots__ = ()


Event = Request | Reset | Goodbye


class Http2Server(Protocol):
    """One side of one connection, without any I/O.

    After a ``ProtocolError`` from ``receive`` only ``take`` may be called (it gives the GOAWAY, if the library can still say one).
    """

    @property
    def unfinished_since(self) -> float | None:
        """When the oldest request that is still arriving began, or None."""

    @property
    def unfinished_bytes(self) -> int:
        """What all requests that are still arriving hold."""

    def trust(self) -> None:
        """Allow what a known machine may do: strangers have little."""

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes of the client. Raises ProtocolError if the connection cannot go on."""

    def headers(self, stream_id: int, status: int, headers: Sequence[Header], *, end: bool) -> bool:
        """Send the head of an answer; ``end`` if there is no body. False: the stream is gone."""

    def window(self, stream_id: int) -> int:
        """Give the bytes that the stream's and the connection's window allow now (0 if gone)."""

    def data(self, stream_id: int, data: bytes | memoryview, *, end: bool = False) -> None:
        """Send at most ``window()`` and at most ``MAX_FRAME_BYTES`` bytes of body.

        Ignored if the stream is gone meanwhile.
        """

    def reset(self, stream_id: int, code: int = CANCEL) -> None:
        """Break a stream off; unknown streams are ignored."""

    def goaway(self, code: int = NO_ERROR) -> None:
        """Say that no new request will be answered."""

    def take(self) -> list[bytes | memoryview]:
        """Give, and forget, everything that must be sent, in order."""


Http2Factory = Callable[[float], Http2Server]
"""Makes the server side of one connection; the argument is the time now."""


def engine(name: str = "auto") -> Http2Factory:
    """Give the factory of an implementation: ``h2``, ``ngh2``, or the better one that works here.

    Raises ImportError if ngh2 is asked for and missing.
    """
    if name not in ("auto", "h2", "ngh2"):
        raise ValueError(f"unknown HTTP/2 engine {name!r}; there are auto, h2 and ngh2")
    if name != "h2":
        try:
            return _ngh2()
        except ImportError as error:
            if name == "ngh2":
                raise
            log.debug("http2 by h2", extra={"reason": str(error)})
    from appliance.control.http2_h2 import H2Server

    return H2Server


def _ngh2() -> Http2Factory:
    """Import the binding and let it speak once: one that was built for another library must not
    be found out by the first client. Raises ImportError."""
    from appliance.control.http2_ngh2 import Ngh2Server

    try:
        said = b"".join(Ngh2Server(0.0).take())
    except Exception as error:
        raise ImportError(f"ngh2 does not work here: {error}") from error
    if said[3:4] != bytes((SETTINGS,)):
        raise ImportError("ngh2 does not work here: it begins without SETTINGS")
    return Ngh2Server


class FrameGate:
    """Looks at the frame heads of everything that arrives, before the parser does.

    Requests and every cheap-to-send frame cost tokens, which come back with time and with bytes
    that we send; whoever runs out is flooding. Strangers have few. Header blocks and frames are bounded here too, so that a parser
    never buffers more than one frame.
    """

    __slots__ = ("_block", "_bucket", "_head", "_skip")

    def __init__(self, now: float) -> None:
        self._skip = len(PREFACE)
        self._head = b""
        self._block = 0
        self._bucket = TokenBucket(STRANGER_BURST, STRANGER_PER_S, now)

    def trust(self) -> None:
        """Grant what a known machine has."""
        self._bucket.widen(CONTROL_BURST, CONTROL_PER_S)

    @property
    def is_between_frames(self) -> bool:
        """Tell whether the next byte begins a frame, and none that must follow the one before."""
        return not (self._skip or self._head or self._block)

    def credit(self, sent_bytes: int) -> None:
        """Allow the window updates that answer these bytes."""
        self._bucket.grant(sent_bytes / BYTES_PER_CREDIT)

    def check(self, data: bytes, now: float) -> None:
        """Look at the next bytes. Raises ProtocolError for a flood or an oversized frame."""
        if self._head:
            data = self._head + data
            self._head = b""
        at = self._skip
        end = len(data)
        spent = 0
        while at + FRAME_HEAD_BYTES <= end:
            length = (data[at] << 16) | (data[at + 1] << 8) | data[at + 2]
            if length > MAX_FRAME_BYTES:
                raise ProtocolError(f"http2: a frame of {length} bytes")
            spent += self._weigh(data[at + 3], data[at + 4], length)
            at += FRAME_HEAD_BYTES + length
        if at < end:
            self._head = data[at:]
            self._skip = 0
        else:
            self._skip = at - end
        if spent and self._bucket.spend(spent, now) < 0:
            raise ProtocolError("http2: a flood of control frames")

    def _weigh(self, kind: int, flags: int, length: int) -> int:
        if kind == DATA:
            return 1 if length < SMALL_DATA_BYTES and not flags & END_STREAM else 0
        if kind in (HEADERS, CONTINUATION):
            self._block += length
            if self._block > MAX_HEADER_BLOCK_BYTES:
                raise ProtocolError("http2: a header block that does not end")
            if flags & END_HEADERS:
                self._block = 0
            return _WEIGHTS[kind] + length // BLOCK_BYTES_PER_TOKEN
        return _WEIGHTS.get(kind, _OTHER_WEIGHT)


class BodyTooLargeError(Exception):
    """A request's body, or all unfinished ones together, exceed the limit: answer 413."""


class _Arriving:
    __slots__ = ("body", "headers", "method", "since", "size", "target")

    def __init__(self, method: str, target: str, headers: Sequence[Header], since: float) -> None:
        self.method = method
        self.target = target
        self.headers = headers
        self.body: list[bytes] = []
        self.size = 0
        self.since = since


class Intake:
    """Requests that are still arriving: head first, then pieces of body, then the end."""

    __slots__ = ("_arriving", "_size")

    def __init__(self) -> None:
        self._arriving: dict[int, _Arriving] = {}
        self._size = 0

    @property
    def since(self) -> float | None:
        """When the oldest unfinished request began."""
        for first in self._arriving.values():
            return first.since
        return None

    @property
    def held_bytes(self) -> int:
        """What all unfinished requests hold: bodies, and some KiB of fields each."""
        return self._size + len(self._arriving) * MAX_HEADER_LIST_BYTES

    def __contains__(self, stream_id: int) -> bool:
        return stream_id in self._arriving

    def open(self, stream_id: int, fields: Sequence[Header], now: float) -> None:
        """Begin a request. Raises ProtocolError without a method and a path."""
        method = target = None
        headers: list[Header] = []
        for name, value in fields:
            if name[:1] != b":":
                headers.append((name, value))
            elif name == b":method":
                method = value.decode("latin-1")
            elif name == b":path":
                target = value.decode("latin-1")
        if not method or not target:
            raise ProtocolError("http2: a request without method or path")
        self._arriving[stream_id] = _Arriving(method, target, headers, now)

    def add(self, stream_id: int, data: bytes) -> None:
        """Add a piece of body. Raises BodyTooLargeError and forgets the request."""
        request = self._arriving.get(stream_id)
        if request is None:
            return
        request.size += len(data)
        self._size += len(data)
        if request.size > MAX_BODY_BYTES or self._size > MAX_UNFINISHED_BYTES:
            self.drop(stream_id)
            raise BodyTooLargeError
        request.body.append(data)

    def end(self, stream_id: int) -> Request | None:
        """Give the whole request, if it was not forgotten meanwhile."""
        request = self._arriving.pop(stream_id, None)
        if request is None:
            return None
        self._size -= request.size
        body = b"".join(request.body)
        return Request(stream_id, request.method, request.target, request.headers, body)

    def drop(self, stream_id: int) -> None:
        """Forget a request."""
        request = self._arriving.pop(stream_id, None)
        if request is not None:
            self._size -= request.size
