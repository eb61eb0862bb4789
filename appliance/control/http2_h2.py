"""HTTP/2 by the ``h2`` library: the default implementation of ``http2.Http2Server``.

Not the only one (``http2_ngh2``). The library keeps the states, settings and windows; only DATA
frames on an open stream are written here by hand, because a delta to a thousand nodes is a thousand
of them (0.6 µs instead of 8) and because a large map then is sliced, not copied.
"""

from __future__ import annotations

import struct
from typing import TYPE_CHECKING

import h2.config
import h2.connection
import h2.errors
import h2.events
import h2.exceptions
import h2.settings

from appliance.control.http2 import (
    CANCEL,
    DATA,
    ENHANCE_YOUR_CALM,
    MAX_HEADER_LIST_BYTES,
    MAX_STREAMS,
    MAX_WINDOW,
    NO_ERROR,
    PROTOCOL_ERROR,
    WINDOW_UPDATE,
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

_HEAD = struct.Struct(">BHBBI").pack
_UPDATE = struct.Struct(">xHHII")  # a window update is shorter than 64 KiB: the first byte is 0
_UPDATE_BEGIN = bytes((0, 0, 4, WINDOW_UPDATE))
_STATUS = {code: b"%d" % code for code in range(100, 600)}
_CONFIG = h2.config.H2Configuration(
    client_side=False,
    header_encoding=None,
    # Nobody behind this passes headers on, and the intake takes what it needs or refuses; the
    # library's checks are a quarter of what a request costs.
    validate_inbound_headers=False,
    normalize_inbound_headers=False,
    validate_outbound_headers=False,  # ours are right by construction
    normalize_outbound_headers=False,
)
_SETTINGS: dict[h2.settings.SettingCodes | int, int] = {
    h2.settings.SettingCodes.MAX_CONCURRENT_STREAMS: MAX_STREAMS,
    h2.settings.SettingCodes.MAX_HEADER_LIST_SIZE: MAX_HEADER_LIST_BYTES,
}


class _Connection(h2.connection.H2Connection):
    MAX_CLOSED_STREAMS = 64  # the library remembers 65,536 per connection; late frames are rare


class H2Server:
    """The server side of one connection; see ``http2.Http2Server``."""

    __slots__ = ("_conn", "_gate", "_intake", "_now", "_out")

    def __init__(self, now: float) -> None:
        self._conn = conn = _Connection(_CONFIG)
        self._gate = FrameGate(now)
        self._intake = Intake()
        self._now = now
        conn.local_settings.update(_SETTINGS)
        conn.local_settings.acknowledge()
        conn.decoder.max_header_list_size = MAX_HEADER_LIST_BYTES
        conn.initiate_connection()
        self._out: list[bytes | memoryview] = [conn.data_to_send()]

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
        may_be_simple = self._gate.is_between_frames
        try:
            self._gate.check(data, now)
        except ProtocolError:
            self.goaway(ENHANCE_YOUR_CALM)
            raise
        if may_be_simple and self._take_window_updates(data):
            return []
        events: list[Event] = []
        try:
            for event in self._conn.receive_data(data):
                self._take_in(event, events)
        except h2.exceptions.H2Error as error:
            raise ProtocolError(f"http2: {error}") from error
        except ProtocolError:
            self.goaway(PROTOCOL_ERROR)
            raise
        finally:
            self._drain()
        return events

    def headers(self, stream_id: int, status: int, headers: Sequence[Header], *, end: bool) -> bool:
        """Send the head of an answer; ``end`` if there is no body. False: the stream is gone."""
        fields = [(b":status", _STATUS[status]), *headers]
        try:
            self._conn.send_headers(stream_id, fields, end_stream=end)
        except h2.exceptions.ProtocolError:
            return False
        self._drain()
        if end:
            self._sweep()
        return True

    def window(self, stream_id: int) -> int:
        """Give the bytes that the stream's and the connection's window allow now."""
        stream = self._conn.streams.get(stream_id)
        if stream is None:
            return 0
        room = min(stream.outbound_flow_control_window, self._conn.outbound_flow_control_window)
        return max(room, 0)

    def data(self, stream_id: int, data: bytes | memoryview, *, end: bool = False) -> None:
        """Send at most ``window()`` and at most ``MAX_FRAME_BYTES`` bytes of body."""
        if end:
            self._last(stream_id, data)
            return
        conn = self._conn
        stream = conn.streams.get(stream_id)
        if stream is None:
            return
        size = len(data)
        stream.outbound_flow_control_window -= size
        conn.outbound_flow_control_window -= size
        self._gate.credit(size)
        out = self._out
        out.append(_HEAD(size >> 16, size & 0xFFFF, DATA, 0, stream_id))
        out.append(data)

    def reset(self, stream_id: int, code: int = CANCEL) -> None:
        """Break a stream off; unknown streams are ignored."""
        self._intake.drop(stream_id)
        try:
            self._conn.reset_stream(stream_id, code)
        except h2.exceptions.ProtocolError:
            return
        self._drain()
        self._sweep()

    def goaway(self, code: int = NO_ERROR) -> None:
        """Say that no new request will be answered."""
        self._conn.close_connection(code)
        self._drain()

    def take(self) -> list[bytes | memoryview]:
        """Give, and forget, everything that must be sent, in order."""
        out, self._out = self._out, []
        return out

    def _take_window_updates(self, data: bytes) -> bool:
        """Take bytes that are window updates for open streams and nothing else.

        That is what a client sends while it reads a map, a pair for every few KiB; the library
        needs 25 µs for each. Whatever is unusual about them is left to it.
        """
        if len(data) % _UPDATE.size or data[:4] != _UPDATE_BEGIN:
            return False
        conn = self._conn
        windows: dict[int, int] = {}
        for length, kind_and_flags, stream_id, increment in _UPDATE.iter_unpack(data):
            if length != 4 or kind_and_flags != WINDOW_UPDATE << 8 or not increment:
                return False
            owner = conn.streams.get(stream_id) if stream_id else conn
            if owner is None:
                return False
            window = windows.get(stream_id, owner.outbound_flow_control_window) + increment
            if window > MAX_WINDOW:
                return False
            windows[stream_id] = window
        for stream_id, window in windows.items():
            (conn.streams[stream_id] if stream_id else conn).outbound_flow_control_window = window
        return True

    def _last(self, stream_id: int, data: bytes | memoryview) -> None:
        try:
            self._conn.send_data(stream_id, data, end_stream=True)
        except h2.exceptions.ProtocolError:
            return
        self._drain()
        self._sweep()

    def _drain(self) -> None:
        data = self._conn.data_to_send()
        if data:
            self._out.append(data)

    def _sweep(self) -> None:
        """Let the library forget closed streams now: it only does when it counts the open ones."""
        self._conn.open_inbound_streams  # noqa: B018 - reading it is what sweeps

    def _take_in(self, event: h2.events.Event, events: list[Event]) -> None:
        match event:
            case h2.events.RequestReceived():
                self._intake.open(event.stream_id, event.headers, self._now)
            case h2.events.DataReceived():
                self._body(event)
            case h2.events.StreamEnded():
                request = self._intake.end(event.stream_id)
                if request is not None:
                    events.append(request)
            case h2.events.StreamReset():
                self._intake.drop(event.stream_id)
                events.append(Reset(event.stream_id))
            case h2.events.ConnectionTerminated():
                events.append(Goodbye())
            case _:
                pass

    def _body(self, event: h2.events.DataReceived) -> None:
        stream_id = event.stream_id
        self._conn.acknowledge_received_data(event.flow_controlled_length, stream_id)
        try:
            self._intake.add(stream_id, event.data)
        except BodyTooLargeError:
            self._conn.send_headers(
                stream_id, [(b":status", b"413"), (b"content-length", b"0")], end_stream=True
            )
            self._conn.reset_stream(stream_id, NO_ERROR)
