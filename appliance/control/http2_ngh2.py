"""HTTP/2 by ``ngh2`` (libnghttp2): the implementation of ``http2.Http2Server`` where it is installed.

Not the only one (``http2_h2``): the binding is young, and not packaged everywhere. It handles a small
request in 4 µs instead of 100 (docs/decisions/0017-http2-by-ngh2-where-it-is-there.md).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import ngh2

from appliance.control.http2 import (
    CANCEL,
    ENHANCE_YOUR_CALM,
    MAX_HEADER_LIST_BYTES,
    MAX_STREAMS,
    NO_ERROR,
    PROTOCOL_ERROR,
    BodyTooLargeError,
    Event,
    FrameGate,
    Goodbye,
    Intake,
    Reset,
)
from appliance.wire.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from appliance.control.exchange import Header

_STATUS = {code: b"%d" % code for code in range(100, 600)}
_CONFIG = ngh2.Configuration(
    max_inbound_header_list_size=MAX_HEADER_LIST_BYTES, max_inbound_header_count=200
)
_SETTINGS = {
    ngh2.Setting.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
    ngh2.Setting.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST_BYTES,
}


class Ngh2Server:
    """The server side of one connection; see ``http2.Http2Server``."""

    __slots__ = ("_conn", "_gate", "_intake", "_is_stale", "_now", "_out")

    def __init__(self, now: float) -> None:
        self._conn = ngh2.Connection(ngh2.Role.SERVER, _CONFIG)
        self._gate = FrameGate(now)
        self._intake = Intake()
        self._now = now
        self._out: list[bytes | memoryview] = []
        self._is_stale = True
        """The library may have something to say. Asking it costs as much as writing a delta."""
        self._conn.initiate_connection(_SETTINGS)

    @property
    def unfinished_since(self) -> float | None:
        """When the oldest request that is still arriving began."""
        return self._intake.since

    @property
    def unfinished_bytes(self) -> int:
        """What all requests that are still arriving hold."""
        return self._intake.held_bytes

    def trust(self) -> None:
        """Allow what a known machine may do: strangers have little."""
        self._gate.trust()

    def receive(self, data: bytes, now: float) -> list[Event]:
        """Take bytes of the client. Raises ProtocolError if the connection cannot go on."""
        self._now = now
        self._is_stale = True
        try:
            self._gate.check(data, now)
        except ProtocolError:
            self.goaway(ENHANCE_YOUR_CALM)
            raise
        events: list[Event] = []
        try:
            self._conn.receive_data(data)
            for event in self._conn.events():
                self._take_in(event, events)
        except ngh2.NGH2Error as error:
            self.goaway(PROTOCOL_ERROR)
            raise ProtocolError(f"http2: {error}") from error
        except ProtocolError:
            self.goaway(PROTOCOL_ERROR)
            raise
        # After a broken rule the library says goodbye by itself and ignores everything.
        self._drain()
        if not self._conn.want_read and not any(isinstance(each, Goodbye) for each in events):
            raise ProtocolError("http2: the library has ended the connection")
        return events

    def headers(self, stream_id: int, status: int, headers: Sequence[Header], *, end: bool) -> bool:
        """Send the head of an answer; ``end`` if there is no body. False: the stream is gone."""
        fields = [(b":status", _STATUS[status]), *headers]
        self._is_stale = True
        try:
            self._conn.send_response(stream_id, fields, end_stream=end)
        except ngh2.NGH2Error:
            return False
        return True

    def window(self, stream_id: int) -> int:
        """Give the bytes that the stream's and the connection's window allow now."""
        try:
            room = self._conn.stream_remote_window_size(stream_id)
        except ngh2.NGH2Error:
            return 0
        return max(min(room, self._conn.remote_window_size), 0)

    def data(self, stream_id: int, data: bytes | memoryview, *, end: bool = False) -> None:
        """Send at most ``window()`` and at most ``MAX_FRAME_BYTES`` bytes of body."""
        try:
            self._conn.send_data(stream_id, data, end_stream=end)
        except ngh2.NGH2Error:
            return
        self._gate.credit(len(data))
        self._drain()  # only what has left the library counts against the windows

    def reset(self, stream_id: int, code: int = CANCEL) -> None:
        """Break a stream off; unknown streams are ignored."""
        self._intake.drop(stream_id)
        self._is_stale = True
        try:
            self._conn.reset_stream(stream_id, code)
        except ngh2.NGH2Error:
            return

    def goaway(self, code: int = NO_ERROR) -> None:
        """Say that no new request will be answered."""
        self._is_stale = True
        try:
            self._conn.send_goaway(code)
        except ngh2.NGH2Error:
            return

    def take(self) -> list[bytes | memoryview]:
        """Give, and forget, everything that must be sent, in order."""
        if self._is_stale:
            self._drain()
        out, self._out = self._out, []
        return out

    def _drain(self) -> None:
        self._is_stale = False
        try:
            data = self._conn.data_to_send()
        except ngh2.NGH2Error:
            return
        if data:
            self._out.append(data)

    def _take_in(self, event: ngh2.Event, events: list[Event]) -> None:
        if isinstance(event, ngh2.RequestReceived):
            self._intake.open(event.stream_id, event.headers, self._now)
            ended = event.end_stream
        elif isinstance(event, ngh2.DataReceived):
            self._body(event)
            ended = event.end_stream
        elif isinstance(event, ngh2.TrailersReceived):
            ended = True
        elif isinstance(event, ngh2.StreamReset):
            self._intake.drop(event.stream_id)
            events.append(Reset(event.stream_id))
            return
        elif isinstance(event, ngh2.GoAwayReceived):
            events.append(Goodbye())
            return
        else:
            return
        if ended:
            request = self._intake.end(event.stream_id)
            if request is not None:
                events.append(request)

    def _body(self, event: ngh2.DataReceived) -> None:
        try:
            self._intake.add(event.stream_id, event.data)
        except BodyTooLargeError:
            head = [(b":status", b"413"), (b"content-length", b"0")]
            self._conn.send_response(event.stream_id, head, end_stream=True)
            self._drain()  # or the reset overtakes the answer
            self._conn.reset_stream(event.stream_id, NO_ERROR)
            self._is_stale = True
