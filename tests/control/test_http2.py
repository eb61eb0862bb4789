"""Both HTTP/2 implementations behind the same tests, and the gate in front of them."""

from __future__ import annotations

import struct
import sys
from importlib.util import find_spec
from types import ModuleType

import h2.config
import h2.connection
import h2.events
import h2.settings
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.control import http2
from appliance.control.http2 import FrameGate, Goodbye, Http2Server, Request, Reset, engine
from appliance.ratelimit import TokenBucket
from appliance.wire.errors import ProtocolError

ENGINES = [
    "h2",
    pytest.param(
        "ngh2",
        marks=pytest.mark.skipif(find_spec("ngh2") is None, reason="ngh2 is not installed"),
    ),
]
FIELDS = [
    (":method", "POST"),
    (":scheme", "https"),
    (":authority", "unused"),
    (":path", "/machine/map?x=1"),
    ("ts-lb", "one"),
    ("ts-lb", "two"),
]


class Pair:
    """A server under test and a client by the h2 library, with every byte in between."""

    def __init__(self, name: str) -> None:
        self.server: Http2Server = engine(name)(0.0)
        self.client = h2.connection.H2Connection(h2.config.H2Configuration(client_side=True))
        self.client.initiate_connection()
        self.seen: list[http2.Event] = []
        self.heard: list[h2.events.Event] = []
        self.now = 0.0

    def run(self) -> None:
        """Carry bytes until both are silent."""
        for _ in range(10):
            up = self.client.data_to_send()
            if up:
                self.seen += self.server.receive(up, self.now)
            down = self.take()
            if down:
                self.heard += self.client.receive_data(down)
            if not up and not down:
                return
        raise AssertionError("the two do not come to rest")

    def is_waiting(self) -> bool:
        return self.server.unfinished_since is not None

    def take(self) -> bytes:
        return b"".join(self.server.take())

    def ask(self, body: bytes = b"", *, end: bool = True, method: str = "POST") -> int:
        stream_id = self.client.get_next_available_stream_id()
        self.client.send_headers(
            stream_id, [(":method", method), *FIELDS[1:]], end_stream=end and not body
        )
        for at in range(0, len(body), 16_384):
            piece = body[at : at + 16_384]
            self.client.send_data(stream_id, piece, end_stream=end and at + 16_384 >= len(body))
            self.run()
        self.run()
        return stream_id

    def data(self, stream_id: int) -> bytes:
        return b"".join(
            event.data
            for event in self.heard
            if isinstance(event, h2.events.DataReceived) and event.stream_id == stream_id
        )


@pytest.fixture(params=ENGINES)
def pair(request: pytest.FixtureRequest) -> Pair:
    pair = Pair(request.param)
    pair.run()
    return pair


def frame(kind: int, flags: int, stream_id: int, payload: bytes = b"") -> bytes:
    return (
        struct.pack(">I", len(payload))[1:]
        + struct.pack(">BBI", kind, flags, stream_id)
        + (payload)
    )


def test_settings_come_unasked_and_name_the_limits(pair: Pair) -> None:
    remote = pair.client.remote_settings
    assert remote.max_concurrent_streams == http2.MAX_STREAMS
    assert 100 <= http2.MAX_STREAMS <= 250
    assert remote.max_header_list_size == http2.MAX_HEADER_LIST_BYTES


@pytest.mark.parametrize("method", ["POST", "GET", "PATCH"])
def test_request_arrives_whole_with_its_body(pair: Pair, method: str) -> None:
    stream_id = pair.ask(b"b" * 100_000, method=method)
    (request,) = pair.seen
    assert isinstance(request, Request)
    assert (request.stream_id, request.method, request.target, request.body) == (
        stream_id,
        method,
        "/machine/map?x=1",
        b"b" * 100_000,
    )
    assert [value for name, value in request.headers if name == b"ts-lb"] == [b"one", b"two"]
    assert not pair.is_waiting()


def test_answers_have_head_and_body(pair: Pair) -> None:
    one, two, three = pair.ask(), pair.ask(), pair.ask()
    assert pair.server.headers(one, 200, [(b"content-type", b"a/b")], end=False)
    pair.server.data(one, b"first")
    pair.server.data(one, b"last", end=True)
    assert pair.server.headers(two, 404, [], end=True)
    assert pair.server.headers(three, 200, [], end=False)
    pair.server.data(three, b"", end=True)
    pair.run()
    assert pair.data(one) == b"firstlast"
    ended = [e.stream_id for e in pair.heard if isinstance(e, h2.events.StreamEnded)]
    assert sorted(ended) == [one, two, three]
    statuses = [
        dict(e.headers or ())[b":status"]
        for e in pair.heard
        if isinstance(e, h2.events.ResponseReceived)
    ]
    assert statuses == [b"200", b"404", b"200"]


def test_windows_are_counted_as_the_client_counts_them(pair: Pair) -> None:
    """The hand-made DATA frames of the h2 implementation must not lose count."""
    stream_id = pair.ask()
    pair.server.headers(stream_id, 200, [], end=False)
    assert pair.server.window(stream_id) == 65_535
    total = 0
    while room := min(pair.server.window(stream_id), http2.MAX_FRAME_BYTES):
        pair.server.data(stream_id, memoryview(bytes(room)))
        total += room
    assert total == 65_535
    pair.run()
    assert len(pair.data(stream_id)) == total
    pair.client.increment_flow_control_window(10_000, stream_id)
    pair.run()
    assert pair.server.window(stream_id) == 0
    pair.client.increment_flow_control_window(5_000)
    pair.run()
    assert pair.server.window(stream_id) == 5_000
    pair.client.update_settings({h2.settings.SettingCodes.INITIAL_WINDOW_SIZE: 0})
    pair.run()
    assert pair.server.window(stream_id) == 0
    assert pair.server.window(99) == 0


def test_window_updates_alone_count_like_those_among_others(pair: Pair) -> None:
    """The h2 implementation takes them itself when nothing else comes with them."""
    stream_id = pair.ask()
    pair.server.headers(stream_id, 200, [], end=False)
    pair.server.data(stream_id, bytes(16_000))
    pair.run()

    def update(stream: int, size: int) -> bytes:
        return frame(http2.WINDOW_UPDATE, 0, stream, size.to_bytes(4, "big"))

    assert pair.server.receive(update(0, 1000) + update(stream_id, 500), 0.0) == []
    assert pair.server.window(stream_id) == 65_535 - 16_000 + 500
    half = update(stream_id, 100)
    assert pair.server.receive(half[:5], 0.0) == []
    assert pair.server.receive(half[5:], 0.0) == []
    assert pair.server.window(stream_id) == 65_535 - 16_000 + 600
    pair.server.receive(update(stream_id, 7) + frame(http2.PING, 0, 0, bytes(8)), 0.0)
    assert pair.server.window(stream_id) == 65_535 - 16_000 + 607


@pytest.mark.parametrize(
    ("stream", "size"),
    [(0, 0), (0, 2**31 - 1), (0, 2**31 + 1), (1, 0), (1, 2**31 - 1), (77, 5)],
)
def test_window_updates_that_break_the_rules_are_not_taken(
    pair: Pair, stream: int, size: int
) -> None:
    """Nothing, more than a window can hold, and a stream that never was (RFC 9113, 6.9)."""
    stream_id = pair.ask()
    pair.server.headers(stream_id, 200, [], end=False)
    pair.run()
    payload = size.to_bytes(4, "big")
    try:
        pair.server.receive(frame(http2.WINDOW_UPDATE, 0, stream, payload), 0.0)
    except ProtocolError:
        return
    told = kinds(pair.take())
    if size == 2**31 + 1:  # the reserved bit counts for nothing
        assert pair.server.window(stream_id) == 65_535
    else:
        assert {http2.GOAWAY, http2.RST_STREAM} & told


def test_reset_streams_are_told_and_forgotten(pair: Pair) -> None:
    one = pair.ask(b"half", end=False)
    assert pair.is_waiting()
    pair.client.reset_stream(one)
    two = pair.ask()
    pair.client.reset_stream(two)
    pair.run()
    assert [type(event) for event in pair.seen] == [Reset, Request, Reset]
    assert not pair.is_waiting()
    assert not pair.server.headers(two, 200, [], end=False)
    pair.server.data(two, b"nobody reads this")
    pair.server.data(two, b"", end=True)
    pair.server.reset(two)
    pair.server.reset(99)
    pair.run()
    three = pair.ask()
    assert pair.server.headers(three, 200, [], end=True)


def test_our_reset_reaches_the_client(pair: Pair) -> None:
    stream_id = pair.ask()
    pair.server.headers(stream_id, 200, [], end=False)
    pair.server.reset(stream_id)
    pair.run()
    (reset,) = [e for e in pair.heard if isinstance(e, h2.events.StreamReset)]
    assert (reset.stream_id, reset.error_code) == (stream_id, http2.CANCEL)


def test_goodbyes_go_both_ways(pair: Pair) -> None:
    pair.server.goaway()
    pair.run()
    assert any(isinstance(e, h2.events.ConnectionTerminated) for e in pair.heard)


def test_client_goodbye_is_an_event(pair: Pair) -> None:
    pair.client.close_connection()
    pair.seen += pair.server.receive(pair.client.data_to_send(), 0.0)
    assert [type(event) for event in pair.seen] == [Goodbye]


def test_body_over_the_limit_is_answered_413(pair: Pair) -> None:
    stream_id = pair.ask(end=False)
    sent = 0
    while sent <= http2.MAX_BODY_BYTES and stream_id in pair.client.streams:
        room = min(pair.client.local_flow_control_window(stream_id), 16_384)
        pair.client.send_data(stream_id, bytes(room))
        sent += room
        pair.run()
        if any(isinstance(e, h2.events.ResponseReceived) for e in pair.heard):
            break
    (answer,) = [e for e in pair.heard if isinstance(e, h2.events.ResponseReceived)]
    assert (b":status", b"413") in (answer.headers or ())
    assert not pair.seen
    assert not pair.is_waiting()
    assert pair.server.headers(pair.ask(), 200, [], end=True)  # the others live on


def test_many_unfinished_bodies_are_bounded_together(pair: Pair) -> None:
    streams = [pair.ask(end=False) for _ in range(6)]
    for _ in range(70):
        for stream_id in streams:
            try:
                pair.client.send_data(stream_id, bytes(16_000))
            except h2.exceptions.ProtocolError:
                continue
            pair.run()
    refused = [e for e in pair.heard if isinstance(e, h2.events.ResponseReceived)]
    assert len(refused) >= 2


def test_more_streams_than_allowed_end_the_connection_or_the_stream(pair: Pair) -> None:
    gate: FrameGate = pair.server._gate  # type: ignore[attr-defined]  # both have one
    gate._bucket = TokenBucket(1e9, 0.0, 0.0)
    for _ in range(http2.MAX_STREAMS):
        pair.ask()
    assert len(pair.seen) == http2.MAX_STREAMS
    pair.client.remote_settings.max_concurrent_streams = 10_000
    pair.client.remote_settings.acknowledge()
    pair.client.send_headers(pair.client.get_next_available_stream_id(), FIELDS, end_stream=True)
    try:
        pair.run()
    except ProtocolError:
        pair.take()  # a GOAWAY, where the library can still say it
        return
    assert len(pair.seen) == http2.MAX_STREAMS
    ends = (h2.events.StreamReset, h2.events.ConnectionTerminated)
    assert any(isinstance(e, ends) for e in pair.heard)


def test_oversized_header_list_is_refused(pair: Pair) -> None:
    """Small on the wire by HPACK's table, large when unpacked."""
    big = ("x-big", "v" * 3_000)
    try:
        for _ in range(3):
            stream_id = pair.client.get_next_available_stream_id()
            pair.client.send_headers(stream_id, [*FIELDS, *[big] * 8], end_stream=True)
            pair.run()
    except ProtocolError:
        pair.take()  # a GOAWAY, where the library can still say it
    assert not pair.seen


@pytest.mark.parametrize("name", ENGINES)
def test_byte_by_byte_is_the_same(name: str) -> None:
    pair = Pair(name)
    stream_id = pair.client.get_next_available_stream_id()
    pair.client.send_headers(stream_id, FIELDS)
    pair.client.send_data(stream_id, b"hello", end_stream=True)
    for byte in pair.client.data_to_send():
        pair.seen += pair.server.receive(bytes([byte]), 0.0)
    (request,) = pair.seen
    assert isinstance(request, Request)
    assert request.body == b"hello"


@pytest.mark.parametrize("name", ENGINES)
@pytest.mark.parametrize(
    "garbage",
    [
        b"GET / HTTP/1.1\r\nHost: x\r\n\r\n" + bytes(64),
        http2.PREFACE + frame(http2.DATA, 0, 1, b"x" * 2000),
        http2.PREFACE + frame(http2.SETTINGS, 0, 0) + frame(http2.HEADERS, 5, 1, b"\xff" * 50),
        http2.PREFACE + frame(http2.SETTINGS, 0, 0) + frame(http2.HEADERS, 5, 2, b"\x82"),
        http2.PREFACE + frame(http2.SETTINGS, 0, 0) + frame(http2.CONTINUATION, 4, 1, b"\x82"),
        http2.PREFACE + frame(http2.SETTINGS, 0, 0) + frame(http2.PUSH_PROMISE, 4, 1, bytes(9)),
        http2.PREFACE + frame(http2.SETTINGS, 0, 0, b"12345"),
        http2.PREFACE + b"\xff\xff\xff\x00\x00\x00\x00\x00\x01",
        http2.PREFACE + frame(http2.SETTINGS, 0, 0) + frame(http2.WINDOW_UPDATE, 0, 0, bytes(4)),
    ],
    ids=["http1", "data", "hpack", "even", "naked", "push", "settings", "huge", "window"],
)
def test_broken_rules_close_with_a_goaway(name: str, garbage: bytes) -> None:
    server = engine(name)(0.0)
    server.take()
    try:
        assert not server.receive(garbage, 0.0)
    except ProtocolError:
        server.take()
    else:  # some faults end only a stream in one implementation
        assert {http2.GOAWAY, http2.RST_STREAM} & kinds(b"".join(server.take()))


def kinds(data: bytes) -> set[int]:
    """Give the types of the frames in some output."""
    found, at = set(), 0
    while at < len(data):
        found.add(data[at + 3])
        at += http2.FRAME_HEAD_BYTES + int.from_bytes(data[at : at + 3], "big")
    return found


@pytest.mark.parametrize("name", ENGINES)
@given(data=st.binary(max_size=300))
@settings(max_examples=150)
def test_random_bytes_never_raise_anything_else(name: str, data: bytes) -> None:
    for start in (b"", http2.PREFACE, http2.PREFACE + frame(http2.SETTINGS, 0, 0)):
        server = engine(name)(0.0)
        try:
            server.receive(start + data, 0.0)
        except ProtocolError:
            server.take()


# -- the gate ------------------------------------------------------------------------------------

FLOODS = {
    "ping": frame(http2.PING, 0, 0, bytes(8)),
    "settings": frame(http2.SETTINGS, 0, 0),
    "settings ack": frame(http2.SETTINGS, 1, 0),
    "priority": frame(http2.PRIORITY, 0, 1, bytes(5)),
    "window update": frame(http2.WINDOW_UPDATE, 0, 0, b"\0\0\0\1"),
    "rapid reset": frame(http2.HEADERS, 5, 1, b"\x82") + frame(http2.RST_STREAM, 0, 1, bytes(4)),
    "empty data": frame(http2.DATA, 0, 1),
    "one byte data": frame(http2.DATA, 0, 1, b"x"),
    "unknown": frame(77, 0, 0),
    "continuation": frame(http2.HEADERS, 1, 1, b"\x82") + frame(http2.CONTINUATION, 4, 1, b""),
}


@pytest.mark.parametrize("flood", FLOODS)
def test_gate_stops_floods(flood: str) -> None:
    gate = FrameGate(0.0)
    gate.trust()
    gate.check(http2.PREFACE, 0.0)
    gate.check(FLOODS[flood] * 100, 0.0)
    with pytest.raises(ProtocolError, match="flood"):
        gate.check(FLOODS[flood] * 5_000, 0.0)


def test_gate_grants_strangers_an_opening_and_some_requests() -> None:
    gate = FrameGate(0.0)
    opening = FLOODS["settings"] + FLOODS["window update"] + FLOODS["settings ack"]
    gate.check(http2.PREFACE + opening, 0.0)
    request = frame(http2.HEADERS, http2.END_HEADERS, 1, bytes(200))
    for _ in range(7):
        gate.check(request, 0.0)
    with pytest.raises(ProtocolError, match="flood"):
        gate.check(request * 4, 0.0)


def test_gate_grants_known_nodes_a_request_now_and_then() -> None:
    gate = FrameGate(0.0)
    gate.check(http2.PREFACE, 0.0)
    gate.trust()
    request = frame(http2.HEADERS, http2.END_HEADERS, 1, bytes(40))
    gate.check(request * 100, 0.0)
    for second in range(100):
        gate.check(request * 3, float(second))
    with pytest.raises(ProtocolError, match="flood"):
        gate.check(request * 200, 100.0)


def test_gate_forgives_with_time_and_with_sent_bytes() -> None:
    gate = FrameGate(0.0)
    gate.trust()
    gate.check(http2.PREFACE, 0.0)
    ping = FLOODS["ping"]
    for second in range(1000):
        gate.check(ping * 15, float(second))
    update = FLOODS["window update"]
    for _ in range(10_000):  # 160 MiB of maps, each 4 KiB answered twice
        gate.credit(http2.MAX_FRAME_BYTES)
        gate.check(update * 8, 1000.0)


def test_gate_bounds_frames_and_header_blocks() -> None:
    gate = FrameGate(0.0)
    with pytest.raises(ProtocolError, match="a frame of"):
        gate.check(http2.PREFACE + b"\x00\x40\x01\x00\x00\x00\x00\x00\x01", 0.0)
    gate = FrameGate(0.0)
    gate.check(http2.PREFACE + frame(http2.HEADERS, 0, 1, bytes(4_000)), 0.0)
    with pytest.raises(ProtocolError, match="header block"):
        gate.check(frame(http2.CONTINUATION, 0, 1, bytes(100)), 0.0)
    gate = FrameGate(0.0)
    gate.trust()
    gate.check(http2.PREFACE, 0.0)
    for _ in range(10):
        gate.check(frame(http2.HEADERS, http2.END_HEADERS, 1, bytes(4_000)), 0.0)


@given(st.lists(st.tuples(st.integers(0, 12), st.integers(0, 600)), max_size=20))
@settings(max_examples=100)
def test_gate_counts_the_same_in_any_pieces(frames: list[tuple[int, int]]) -> None:
    data = http2.PREFACE + b"".join(frame(kind, 5, 1, bytes(size)) for kind, size in frames)
    whole, single = FrameGate(0.0), FrameGate(0.0)
    whole.trust()
    single.trust()
    whole.check(data, 0.0)
    for byte in data:
        single.check(bytes([byte]), 0.0)
    assert whole._bucket.spend(0, 0.0) == single._bucket.spend(0, 0.0)
    assert (whole._skip, whole._head) == (single._skip, single._head) == (0, b"")


class _Silent:
    """A binding that can be imported and says nothing."""

    def __init__(self, now: float) -> None:
        del now

    def take(self) -> list[bytes]:
        return []


class _Broken:
    """A binding that was built for another library."""

    def __init__(self, now: float) -> None:
        raise RuntimeError(f"undefined symbol at {now}")


def _with_ngh2(monkeypatch: pytest.MonkeyPatch, server: object) -> None:
    """Stand for the module, as it is or as it might be."""
    module = ModuleType("appliance.control.http2_ngh2")
    if server is not None:
        module.__dict__["Ngh2Server"] = server
    monkeypatch.setitem(sys.modules, "appliance.control.http2_ngh2", module)


@pytest.mark.parametrize("server", [_Silent, _Broken, None], ids=["silent", "broken", "absent"])
def test_auto_takes_h2_where_the_other_does_not_work(
    monkeypatch: pytest.MonkeyPatch, server: object
) -> None:
    """A7: the better library is a default only where it works."""
    _with_ngh2(monkeypatch, server)
    assert engine("auto") is engine("h2")
    with pytest.raises(ImportError):
        engine("ngh2")


@pytest.mark.skipif(find_spec("ngh2") is None, reason="ngh2 is not installed")
def test_auto_takes_ngh2_where_it_works() -> None:
    assert engine() is engine("auto") is engine("ngh2")
    assert engine("h2") is not engine("ngh2")


def test_unknown_engine_is_named() -> None:
    with pytest.raises(ValueError, match="there are auto, h2 and ngh2"):
        engine("h3")


@pytest.mark.parametrize(
    "broken",
    [
        frame(http2.HEADERS, http2.END_HEADERS, 0, b""),
        frame(http2.DATA, 0, 1, b"x"),
        frame(http2.DATA, 0, 2, b"x"),
    ],
    ids=["head of no stream", "body of an idle stream", "body of a stream of ours"],
)
def test_broken_rule_ends_the_connection_though_nothing_follows(pair: Pair, broken: bytes) -> None:
    pair.run()
    with pytest.raises(ProtocolError):
        pair.server.receive(broken, 0.0)
