"""The nodes' door from the upgrade request to the answered exchange, without sockets."""

from __future__ import annotations

import asyncio
import base64
import importlib.util
import logging
import os
import random
from collections.abc import Callable, Iterator
from urllib.parse import quote

import pytest

from appliance.control import link as link_module
from appliance.control.exchange import Answering, Exchange, OutStream
from appliance.control.http2 import BODY_TIMEOUT_S, engine
from appliance.control.ts2021 import MAX_LINKS, Ts2021
from appliance.front.dispatch import Front
from appliance.ratelimit import SourceBuckets
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import MachineKey, PrivateKey
from appliance.wire.websocket import CloseCode, Data, FrameReader, Opcode, encode_frame
from tests.support.controlclient import Answer, ControlClient
from tests.support.memorystream import Alarms, MemoryStream
from tests.support.polling import until

ENGINES = [
    "h2",
    pytest.param(
        "ngh2",
        marks=pytest.mark.skipif(
            importlib.util.find_spec("ngh2") is None, reason="ngh2 is not installed"
        ),
    ),
]
PEER = ("192.0.2.1", 4000)
MASK = b"\x01\x02\x03\x04"


class House:
    """A door with a handler that does what the path says, and links to it."""

    def __init__(self, name: str = "h2", **settings: object) -> None:
        self.now = 1000.0
        self.key = PrivateKey.generate(os.urandom)
        self.public = MachineKey(self.key.public_raw)
        self.seen: list[Exchange] = []
        self.outs: list[OutStream] = []
        self.started = 0
        self.cancelled = 0
        self.later: list[Callable[[], None]] = []
        self.door = Ts2021(
            self.key,
            self.handle,
            http2=engine(name),
            clock=lambda: self.now,
            call_soon=self.later.append,
            **settings,  # type: ignore[arg-type]  # keyword arguments of the tests below
        )
        self.front = Front({"/ts2021": self.door.open}, call_later=Alarms().call_later)

    def handle(self, exchange: Exchange) -> Answering | None:
        self.seen.append(exchange)
        match exchange.path:
            case "/echo":
                exchange.respond(200, exchange.body)
            case "/stream":
                self.outs.append(exchange.open_stream(headers=[(b"x-kind", b"stream")]))
            case "/known":
                exchange.vouch()
                exchange.respond(204)
            case "/big":
                exchange.respond(200, bytes(300_000))
            case "/boom":
                raise ValueError("a bug")
            case "/twice":
                exchange.respond(200)
                exchange.respond(200)
            case "/later":
                return self._later(exchange)
            case "/forget":
                return asyncio.sleep(0)
            case "/wait":
                return self._wait()
        return None

    async def _later(self, exchange: Exchange) -> None:
        await asyncio.sleep(0)
        exchange.respond(200, b"later", headers=[(b"retry-after", b"5")])

    async def _wait(self) -> None:
        self.started += 1
        try:
            await asyncio.Event().wait()
        finally:
            self.cancelled += 1

    def connect(
        self,
        *,
        version: int = 142,
        slowly: bool = False,
        acknowledge: bool = True,
        machine: PrivateKey | None = None,
    ) -> Node:
        client = ControlClient(
            self.public, version=version, acknowledge=acknowledge, machine=machine
        )
        stream = MemoryStream(self.front.sink(), peer=PEER)
        (stream.deliver_slowly if slowly else stream.deliver)(client.upgrade())
        node = Node(client, stream, self.later)
        node.run()
        return node


class Node:
    """A client and the stream to it."""

    def __init__(
        self, client: ControlClient, stream: MemoryStream, later: list[Callable[[], None]]
    ) -> None:
        self.client = client
        self.stream = stream
        self.later = later

    def run(self) -> None:
        """Carry bytes until both are silent."""
        for _ in range(200):
            down = self.stream.take()
            if down:
                self.client.receive(down)
            up = self.client.take() if self.client.session else b""
            if up:
                self.stream.deliver(up)
            if not up and not down and not self.later:
                return
            while self.later:
                self.later.pop()()
                self.stream.deliver(b"")
        raise AssertionError("no rest")

    def ask(self, path: str, body: bytes = b"", **more: object) -> Answer:
        answer = self.client.answers[self.client.request(path, body, **more)]  # type: ignore[arg-type]  # passed on
        self.run()
        return answer


@pytest.fixture(params=ENGINES)
def house(request: pytest.FixtureRequest) -> House:
    return House(request.param)


# -- the way in ----------------------------------------------------------------------------------


def test_upgrade_answers_in_one_write(house: House) -> None:
    client = ControlClient(house.public)
    stream = MemoryStream(house.front.sink(), peer=PEER)
    stream.deliver(client.upgrade())
    assert stream.writes == 1
    data = stream.take()
    assert data.startswith(
        b"HTTP/1.1 101 Switching Protocols\r\n"
        b"Upgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\r\n\x02\x00\x30"
    )
    client.receive(data)
    assert client.early is not None
    assert client.http.remote_settings.max_concurrent_streams >= 100
    assert house.door.counters.accepted == 1


@pytest.mark.parametrize(("version", "early"), [(28, False), (48, False), (49, True), (145, True)])
def test_early_payload_from_version_49(version: int, *, early: bool) -> None:
    house = House()
    node = house.connect(version=version)
    assert (node.client.early is not None) is early
    assert node.ask("/echo", b"x").body == b"x"
    assert house.seen[0].version == version
    assert house.seen[0].machine_key == MachineKey(node.client.machine.public_raw)
    assert house.seen[0].peer == PEER


def test_everything_byte_by_byte(house: House) -> None:
    node = house.connect(slowly=True)
    node.client.request("/echo", b"slow")
    node.stream.deliver_slowly(node.client.take())
    for byte in node.stream.take():
        node.client.receive(bytes([byte]))
    assert [answer.body for answer in node.client.answers.values()] == [b"slow"]


def test_request_that_comes_with_the_upgrade_is_not_lost(house: House) -> None:
    """Stock clients wait for the answer; whatever comes behind the head belongs to Noise."""
    client = ControlClient(house.public)
    stream = MemoryStream(house.front.sink(), peer=PEER)
    stream.deliver(client.upgrade() + b"\x04\x00")
    client.receive(stream.take())
    client.request("/echo", b"x")
    record = client.take()
    assert record[:2] == b"\x04\x00"
    stream.deliver(record[2:])
    assert len(house.seen) == 1


@pytest.mark.parametrize(
    ("head", "hint"),
    [
        ("POST /ts2021 HTTP/1.1\r\nHost: x\r\nContent-Length: 0\r\n", b"proxy"),
        ("POST /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: h2c\r\n", b"proxy"),
        ("GET /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: tailscale-control-protocol\r\n", b"POST"),
        ("POST /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: tailscale-control-protocol\r\n", b"base64"),
        (
            "POST /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: tailscale-control-protocol\r\n"
            "X-Tailscale-Handshake: !!!\r\n",
            b"base64",
        ),
        (
            "POST /ts2021 HTTP/1.1\r\nHost: x\r\nUpgrade: tailscale-control-protocol\r\n"
            f"X-Tailscale-Handshake: {'A' * 2000}\r\n",
            b"base64",
        ),
    ],
)
def test_what_is_no_upgrade_is_answered_400(head: str, hint: bytes) -> None:
    house = House()
    stream = MemoryStream(house.front.sink(), peer=PEER)
    stream.deliver(head.encode() + b"\r\n")
    answer = stream.take()
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert hint in answer
    assert stream.is_closing()
    assert house.door.counters.refused == 1


@pytest.mark.parametrize("kind", ["short", "type", "length", "key", "damaged", "zero"])
def test_bad_handshake_is_explained_and_closed(kind: str) -> None:
    house = House()
    server = house.public
    if kind == "key":
        server = MachineKey(PrivateKey.generate(os.urandom).public_raw)
    client = ControlClient(server)
    initiation = bytearray(client.handshake.initiation)
    match kind:
        case "short":
            del initiation[-1:]
        case "type":
            initiation[2] = 9
        case "length":
            initiation[4] = 95
        case "damaged":
            initiation[60] ^= 1
        case "zero":
            initiation[5:37] = bytes(32)
    client.handshake.initiation = bytes(initiation)
    stream = MemoryStream(house.front.sink(), peer=PEER)
    stream.deliver(client.upgrade())
    with pytest.raises(ProtocolError, match="the server says"):
        client.receive(stream.take())
    assert stream.is_closing()
    assert house.door.counters.failed == 1
    assert not house.door.links


def test_replayed_handshake_gains_nothing() -> None:
    house = House()
    node = house.connect()
    recorded = ControlClient(house.public)
    upgrade = recorded.upgrade()
    for _ in range(2):
        stream = MemoryStream(house.front.sink(), peer=PEER)
        stream.deliver(upgrade)
        assert stream.take().startswith(b"HTTP/1.1 101")
        stream.deliver(b"\x04\x00\x20" + bytes(32))
        assert stream.is_closing()
        stream.lose()
    assert house.door.counters.closed == {"protocol": 2}
    assert not house.seen
    assert node.ask("/echo", b"still here").body == b"still here"


# -- WebSocket -----------------------------------------------------------------------------------


def websocket_request(
    initiation: bytes | None, protocol: str = "tailscale-control-protocol"
) -> bytes:
    query = ""
    if initiation is not None:
        query = "?X-Tailscale-Handshake=" + quote(base64.b64encode(initiation), safe="")
    return (
        f"GET /ts2021{query} HTTP/1.1\r\nHost: x\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
        f"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: {'A' * 22}==\r\nOrigin: https://any\r\n"
        f"Sec-WebSocket-Protocol: {protocol}\r\n\r\n"
    ).encode()


class WebSocketEnd:
    """Unwraps what the server wrote, wraps what the client sends, in odd pieces."""

    def __init__(self, stream: MemoryStream) -> None:
        self.stream = stream
        head, _, rest = stream.take().partition(b"\r\n\r\n")
        self.head = head
        self.reader = FrameReader(masked=False)
        self.rest = rest
        self.closed: int | None = None

    def take(self) -> bytes:
        events = self.reader.feed(self.rest + self.stream.take())
        self.rest = b""
        for event in events:
            if not isinstance(event, Data):
                self.closed = getattr(event, "code", None)
        return b"".join(event.payload for event in events if isinstance(event, Data))

    def send(self, data: bytes) -> None:
        for at in range(0, len(data), 7):
            self.stream.deliver(encode_frame(Opcode.BINARY, data[at : at + 7], mask=MASK))


def test_websocket_carries_the_same(house: House) -> None:
    client = ControlClient(house.public)
    stream = MemoryStream(house.front.sink(), peer=PEER)
    stream.deliver(websocket_request(client.handshake.initiation))
    end = WebSocketEnd(stream)
    assert b"Sec-WebSocket-Protocol: tailscale-control-protocol" in end.head
    client.receive_noise(end.take())
    client._switched = True
    stream_id = client.request("/echo", b"over websocket")
    end.send(client.take())
    client.receive_noise(end.take())
    assert client.answers[stream_id].body == b"over websocket"
    assert house.door.counters.websocket == 1
    assert house.seen[0].peer == PEER
    stream.lose()
    assert not house.door.links


@pytest.mark.parametrize("initiation", [None, b"", b"short", bytes(101)])
def test_websocket_without_a_good_handshake_is_closed_1008(initiation: bytes | None) -> None:
    house = House()
    stream = MemoryStream(house.front.sink(), peer=PEER)
    stream.deliver(websocket_request(initiation))
    end = WebSocketEnd(stream)
    assert end.head.startswith(b"HTTP/1.1 101")
    end.take()
    assert end.closed == CloseCode.POLICY
    assert stream.is_closing()
    assert not house.door.links


def test_websocket_of_another_protocol_is_refused() -> None:
    house = House()
    stream = MemoryStream(house.front.sink(), peer=PEER)
    stream.deliver(websocket_request(bytes(101), "chat"))
    assert stream.take().startswith(b"HTTP/1.1 400")


# -- exchanges -----------------------------------------------------------------------------------


def test_answers_whole_and_streamed(house: House) -> None:
    node = house.connect()
    assert node.ask("/echo", b"x" * 50_000).body == b"x" * 50_000
    assert node.ask("/big").body == bytes(300_000)
    assert node.ask("/known").status == 204
    stream = node.ask("/stream")
    assert (stream.status, stream.headers["x-kind"], stream.ended) == (200, "stream", False)
    (out,) = house.outs
    out.write([b"one", b"", b"two"])
    out.write([])
    node.run()
    assert stream.body == b"onetwo"
    out.close()
    out.write([b"too late"])
    node.run()
    assert stream.ended
    assert stream.body == b"onetwo"


def test_head_has_no_body(house: House) -> None:
    answer = house.connect().ask("/big", method="HEAD")
    assert (answer.status, bytes(answer.body), answer.ended) == (200, b"", True)
    assert answer.headers["content-length"] == "300000"


def test_exchange_shows_the_request() -> None:
    house = House()
    house.connect().ask("/echo?a=1&b=2", headers=[("ts-lb", "one"), ("ts-lb", "two")])
    exchange = house.seen[0]
    assert (exchange.path, exchange.query, exchange.method) == ("/echo", "a=1&b=2", "POST")
    assert exchange.header(b"ts-lb") == b"one"
    assert exchange.header(b"absent") is None


async def test_late_answers_come_from_tasks(house: House) -> None:
    node = house.connect()
    answer = node.ask("/later")
    await until(lambda: bool(node.stream.written))
    node.run()
    assert (answer.status, bytes(answer.body), answer.headers["retry-after"]) == (
        200,
        b"later",
        "5",
    )
    await until(lambda: not next(iter(house.door.links))._tasks)


@pytest.mark.parametrize("path", ["/boom", "/forget", "/twice"])
async def test_bugs_are_answered_500_and_logged_once(
    house: House, path: str, caplog: pytest.LogCaptureFixture
) -> None:
    node = house.connect()
    with caplog.at_level(logging.ERROR):
        answer = node.ask(path)
        for _ in range(5):
            await asyncio.sleep(0)
        node.run()
    assert answer.status == (200 if path == "/twice" else 500)
    assert len(caplog.records) == 1
    assert node.ask("/echo", b"next").body == b"next"


async def test_task_ends_when_its_client_resets_or_leaves(house: House) -> None:
    node = house.connect()
    first = node.client.request("/wait")
    node.client.request("/wait")
    node.run()
    await until(lambda: house.started == 2)
    node.client.http.reset_stream(first)
    node.run()
    await until(lambda: house.cancelled == 1)
    node.stream.lose()
    await until(lambda: house.cancelled == 2)


async def test_closing_the_door_says_goodbye_and_ends_tasks(house: House) -> None:
    node = house.connect()
    node.client.request("/wait")
    node.run()
    await until(lambda: house.started == 1)
    await house.door.close()
    assert house.cancelled == 1
    node.client.receive(node.stream.take())
    assert node.client.goaway == 0
    assert node.stream.is_closing()


def test_exchange_learns_that_the_client_left_before_the_answer(house: House) -> None:
    node = house.connect()
    stream_id = node.client.request("/silent")
    node.run()
    (exchange,) = house.seen
    lost: list[str] = []
    exchange.on_closed(lambda: lost.append("closed"))
    node.client.http.reset_stream(stream_id)
    node.run()
    assert lost == ["closed"]
    assert exchange.closed
    exchange.on_closed(lambda: lost.append("at once"))
    assert lost == ["closed", "at once"]
    exchange.respond(200, b"nobody hears")
    assert node.ask("/echo", b"x").body == b"x"


def test_stream_opened_for_a_client_that_left_is_closed(house: House) -> None:
    node = house.connect()
    node.client.http.reset_stream(node.client.request("/silent"))
    node.run()
    out = house.seen[0].open_stream()
    assert out.closed
    out.write([b"x"])


def test_client_goodbye_closes(house: House) -> None:
    node = house.connect()
    node.ask("/stream")
    node.client.http.close_connection()
    node.stream.deliver(node.client.take())
    assert node.stream.is_closing()


# -- back-pressure -------------------------------------------------------------------------------


def open_slow(house: House) -> tuple[Node, OutStream, Answer]:
    """Open a stream to a client that gives no window back."""
    node = house.connect(acknowledge=False)
    answer = node.ask("/stream")
    return node, house.outs[-1], answer


def test_what_the_window_refuses_waits_as_references(house: House) -> None:
    node, out, answer = open_slow(house)
    part = os.urandom(50_000)
    shared = [part, part, part]
    calls: list[str] = []
    out.on_drained(lambda: calls.append("drained"))
    out.write(shared)
    assert out.backlog == 150_000 - 65_535
    assert out.queue is not None
    assert out.queue[-1] is part
    node.run()
    assert len(answer.body) == 65_535
    assert not calls
    node.client.http.increment_flow_control_window(1 << 20)
    node.client.http.increment_flow_control_window(1 << 20, out.stream_id)
    node.run()
    assert answer.body == part * 3
    assert (out.backlog, calls) == (0, ["drained"])
    out.write([b"more"])
    node.run()
    assert answer.body == part * 3 + b"more"
    assert calls == ["drained"]


def test_close_waits_for_the_backlog(house: House) -> None:
    node, out, answer = open_slow(house)
    out.write([bytes(100_000)])
    out.close()
    node.run()
    assert (answer.ended, len(answer.body)) == (False, 65_535)
    node.client.http.increment_flow_control_window(1 << 20)
    node.client.http.increment_flow_control_window(1 << 20, out.stream_id)
    node.run()
    assert (answer.ended, len(answer.body)) == (True, 100_000)


def test_full_socket_stops_writing_and_reading(house: House) -> None:
    node = house.connect()
    answer = node.ask("/stream")
    (out,) = house.outs
    node.stream.block()
    assert not node.stream.reading
    out.write([b"small"])
    out.write([bytes(40_000)])
    assert node.stream.take() == b""
    assert out.backlog == 40_005
    node.client.request("/echo", b"waits")
    node.stream.deliver(node.client.take())
    assert len(house.seen) == 1
    node.stream.unblock()
    node.run()
    assert len(answer.body) == 40_005
    assert len(house.seen) == 2


def test_writer_may_continue_from_the_drained_call(house: House) -> None:
    node, out, answer = open_slow(house)
    left = [bytes(20_000)] * 10

    def more() -> None:
        while left and not out.backlog:
            out.write([left.pop()])
        if not left and not out.backlog:
            out.close()

    out.on_drained(more)
    more()
    node.client.http.increment_flow_control_window(1 << 20)
    node.client.http.increment_flow_control_window(1 << 20, out.stream_id)
    node.run()
    assert len(answer.body) == 200_000
    assert answer.ended


def test_streams_take_turns(house: House) -> None:
    node = house.connect()
    first, second = node.ask("/stream"), node.ask("/stream")
    one, two = house.outs
    node.stream.block()
    one.write([bytes(1_000_000)])
    two.write([b"small"])
    node.stream.unblock()
    for _ in range(2):  # the connection's window lets one turn through at a time
        node.client.receive(node.stream.take())
        node.stream.deliver(node.client.take())
    node.client.receive(node.stream.take())
    assert second.body == b"small"
    assert len(first.body) < 1_000_000
    node.run()
    assert len(first.body) == 1_000_000


async def test_drained_can_be_awaited() -> None:
    house = House()
    node, out, _ = open_slow(house)
    await out.drained()
    out.write([bytes(100_000)])
    task = asyncio.create_task(out.drained())
    await asyncio.sleep(0)
    assert not task.done()
    node.client.http.increment_flow_control_window(1 << 20)
    node.client.http.increment_flow_control_window(1 << 20, out.stream_id)
    node.run()
    await task
    out.write([bytes(2_000_000)])
    task = asyncio.create_task(out.drained())
    await asyncio.sleep(0)
    node.stream.lose()
    await task
    assert out.closed


def test_lost_and_reset_streams_tell_their_owner(house: House) -> None:
    node, out, _ = open_slow(house)
    calls: list[str] = []
    out.on_closed(lambda: calls.append("reset"))
    out.write([bytes(100_000)])
    node.client.http.reset_stream(out.stream_id)
    node.run()
    assert calls == ["reset"]
    assert (out.closed, out.backlog, out.queue) == (True, 0, None)
    out.write([b"x"])
    out.close()
    out.abort()
    node.ask("/stream")
    house.outs[-1].on_closed(lambda: calls.append("lost"))
    node.stream.lose()
    assert calls == ["reset", "lost"]
    house.outs[-1].on_closed(lambda: calls.append("at once"))
    assert calls[-1] == "at once"


def test_aborted_stream_is_reset(house: House) -> None:
    node, out, answer = open_slow(house)
    out.write([bytes(100_000)])
    out.abort()
    node.run()
    assert answer.reset == 8
    assert node.ask("/known").status == 204


def test_a_callbacks_bug_does_not_end_the_others(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    node = house.connect()
    node.ask("/stream")
    node.ask("/stream")
    calls: list[str] = []

    def boom() -> None:
        raise ValueError("a bug")

    house.outs[0].on_closed(boom)
    house.outs[1].on_closed(lambda: calls.append("closed"))
    with caplog.at_level(logging.ERROR):
        node.stream.lose()
    assert calls == ["closed"]
    assert len(caplog.records) == 1


# -- limits --------------------------------------------------------------------------------------


def test_slow_body_is_not_waited_for(house: House) -> None:
    node = house.connect()
    node.client.request("/echo", b"half", end=False)
    node.run()
    house.now += BODY_TIMEOUT_S + 1
    house.door.sweep()
    assert node.stream.is_closing()
    node.stream.lose()
    assert house.door.counters.closed == {"slow-body": 1}


def test_client_that_opens_no_window_is_given_up(house: House) -> None:
    """Clients themselves give a map up after 120 s without a byte."""
    node, out, _ = open_slow(house)
    house.now += 10
    out.write([bytes(100_000)])
    house.now += link_module.STALL_TIMEOUT_S - 1
    house.door.sweep()
    assert not node.stream.is_closing()
    house.now += 2
    house.door.sweep()
    assert node.stream.is_closing()
    node.stream.lose()
    assert house.door.counters.closed == {"stalled": 1}


def test_progress_keeps_a_slow_client(house: House) -> None:
    node, out, answer = open_slow(house)
    out.write([bytes(200_000)])
    for _ in range(10):
        house.now += link_module.STALL_TIMEOUT_S - 1
        node.client.http.increment_flow_control_window(100)
        node.client.http.increment_flow_control_window(100, out.stream_id)
        node.run()
        house.door.sweep()
    assert not node.stream.is_closing()
    assert len(answer.body) == 65_535 + 1_000


def test_backlog_of_one_link_is_bounded() -> None:
    house = House()
    node, out, _ = open_slow(house)
    part = bytes(1 << 20)
    for _ in range(100):
        out.write([part])
    assert node.stream.is_closing()


def test_idle_stranger_leaves_and_known_node_stays(house: House) -> None:
    stranger, node, busy = house.connect(), house.connect(), house.connect()
    node.ask("/known")
    busy.ask("/stream")
    house.now += link_module.STRANGER_IDLE_S + 1
    house.door.sweep()
    assert [one.stream.is_closing() for one in (stranger, node, busy)] == [True, False, False]


def test_strangers_are_bounded_and_the_idle_ones_go_first() -> None:
    house = House(max_strangers=3)
    busy, idle, third = house.connect(), house.connect(), house.connect()
    busy.ask("/stream")
    known = [house.connect() for _ in range(1)]
    assert idle.stream.is_closing()
    assert not busy.stream.is_closing()
    known[0].ask("/known")
    house.connect()
    assert not third.stream.is_closing()
    house.connect()
    assert third.stream.is_closing()
    assert house.door.counters.evicted == 2


def test_nodes_known_at_the_handshake_are_no_strangers() -> None:
    house = House(max_strangers=1, is_known=lambda _key: True)
    nodes = [house.connect() for _ in range(10)]
    assert not any(node.stream.is_closing() for node in nodes)


async def test_much_at_once_leaves_others_their_turn() -> None:
    house = House()
    node = house.connect()
    node.ask("/known")
    for _ in range(60):
        node.client.request("/echo", bytes(400))
    node.stream.deliver(node.client.take())
    assert 30 < len(house.seen) < 45
    assert not node.stream.reading
    node.run()
    assert len(house.seen) == 61
    assert node.stream.reading


def test_replayed_initiation_stays_a_stranger() -> None:
    """Whoever repeats a node's first message cannot go on: it counts as nobody."""
    house = House(max_strangers=2, is_known=lambda _key: True)
    node = house.connect()
    recorded = ControlClient(house.public).upgrade()
    replays = [MemoryStream(house.front.sink(), peer=PEER) for _ in range(5)]
    for replay in replays:
        replay.deliver(recorded)
    assert [replay.is_closing() for replay in replays] == [True, True, True, False, False]
    house.now += link_module.STRANGER_IDLE_S + 1
    house.door.sweep()
    assert all(replay.is_closing() for replay in replays)
    assert not node.stream.is_closing()
    assert not house.door.counters.failed


def test_unfinished_requests_of_strangers_are_bounded_together() -> None:
    house = House(max_strangers_bytes=100_000)
    known, modest, greedy = house.connect(), house.connect(), house.connect()
    known.ask("/known")
    known.client.request("/echo", bytes(60_000), end=False)
    known.run()
    modest.client.request("/echo", bytes(30_000), end=False)
    modest.run()
    assert not greedy.stream.is_closing()
    greedy.client.request("/echo", bytes(60_000), end=False)
    greedy.run()
    greedy.client.http.send_data(1, bytes(16_000))
    greedy.run()
    assert [one.stream.is_closing() for one in (known, modest, greedy)] == [False, False, True]
    greedy.stream.lose()
    modest.stream.lose()
    assert house.door._hoarded == 0
    assert house.door.counters.closed == {"crowded": 1, "left": 1}


def test_links_of_one_machine_are_bounded() -> None:
    house = House()
    machine = PrivateKey.generate(os.urandom)
    nodes = [house.connect(machine=machine) for _ in range(MAX_LINKS + 2)]
    for node in nodes:
        node.ask("/known")
    closing = [node.stream.is_closing() for node in nodes]
    assert closing == [True, True] + [False] * MAX_LINKS
    for node in nodes:
        node.stream.lose()
    assert not house.door._by_machine
    assert house.door.counters.closed["superseded"] == 2


def test_one_source_is_throttled_others_not() -> None:
    house = House(sources=SourceBuckets(burst=3, per_s=1, most=10))
    for _ in range(3):
        house.connect()
    stream = MemoryStream(house.front.sink(), peer=PEER)
    stream.deliver(ControlClient(house.public).upgrade())
    answer = stream.take()
    assert answer.startswith(b"HTTP/1.1 429 ")
    assert b"Retry-After: 5" in answer
    other = MemoryStream(house.front.sink(), peer=("192.0.2.2", 1))
    other.deliver(ControlClient(house.public).upgrade())
    assert other.take().startswith(b"HTTP/1.1 101")
    house.now += 1
    house.connect()
    assert house.door.counters.throttled == 1


def mutations(rng: random.Random, client: ControlClient) -> Iterator[Callable[[bytes], bytes]]:
    yield lambda _: rng.randbytes(200)
    yield lambda data: data[:-1] + bytes([data[-1] ^ 1])
    yield lambda data: data + data
    yield lambda _: b"\x03\x00\x05hello"
    yield lambda _: b"\x04\xff\xff" + bytes(100)
    yield lambda _: client.seal(b"GET / HTTP/1.1\r\n\r\n" + bytes(100))
    yield lambda _: client.seal(client.http.data_to_send() + rng.randbytes(500))


def test_hostile_peers_are_closed_and_others_notice_nothing(house: House) -> None:
    rng = random.Random(7)
    good = house.connect()
    for which in range(7):
        node = house.connect()
        change = list(mutations(rng, node.client))[which]
        node.client.request("/echo", b"x")
        data = node.client.take()
        node.stream.deliver(change(data) + rng.randbytes(100))
        assert node.stream.is_closing()
        node.stream.lose()
    assert sum(house.door.counters.closed.values()) == 7
    assert good.ask("/echo", b"well").body == b"well"
    assert len(house.door.links) == 1


# -- what a cut leaves ---------------------------------------------------------------------------


@pytest.mark.parametrize("way", ["upgrade", "websocket"])
@pytest.mark.parametrize("known", [False, True])
def test_connection_that_is_cut_after_any_byte_leaves_nothing(way: str, *, known: bool) -> None:
    """B2: a link is counted at the handshake and owned by its stream from then on."""
    house = House(is_known=lambda _machine: known)
    client = ControlClient(house.public)
    opening = client.upgrade()
    if way == "websocket":
        opening = websocket_request(client.handshake.initiation)
    for length in range(len(opening) + 1):
        stream = MemoryStream(house.front.sink(), peer=PEER)
        stream.deliver(opening[:length])
        stream.lose(ConnectionResetError())
        assert not house.door.links
        assert not house.door._strangers
        assert not house.door._by_machine
        assert house.door._hoarded == 0
    assert house.door.counters.accepted == 1
    assert house.door.counters.closed == {"broken": 1}
