"""Logins and links on memory streams: every frame, every refusal, whole and byte by byte."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable
from ipaddress import IPv4Address

import pytest

from appliance.front.stream import Sink
from appliance.relay.counters import Refusal
from appliance.relay.door import RelayDoor, RelayLimits
from appliance.relay.link import MAX_PONGS
from appliance.wire import derp, http1
from appliance.wire.derp import ClientInfo, Frame, FrameType, LoginBox, PresentFlag
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import MeshKey, NodeKey, PrivateKey
from tests.relay.wireclient import DISCO, HEAD, MemoryClient, login_frame, new_key
from tests.support import derpframes
from tests.support.memorystream import MemoryStream
from tests.support.polling import until

MESH = MeshKey(b"m" * 32)
SERVER = PrivateKey(b"\x42" * 32)


@pytest.fixture
async def door() -> RelayDoor:
    return RelayDoor(SERVER, mesh_key=MESH)


def arrive(door: RelayDoor, head: bytes = HEAD, peer: str = "192.0.2.9") -> MemoryStream:
    """Let a request reach the door and its sink the stream."""
    stream = MemoryStream(peer=(peer, 5000))
    sink = door.route(http1.decode_head(head + b"\r\n"), stream)
    assert not isinstance(sink, http1.Answer)
    stream.hand_over(sink)
    return stream


def join(
    door: RelayDoor, own: PrivateKey | None = None, info: ClientInfo | None = None
) -> MemoryClient:
    """Connect and log in a client."""
    stream = arrive(door)
    client = MemoryClient(stream, own or new_key())
    stream.take()
    stream.deliver(login_frame(client.own, SERVER.public_raw, info))
    assert [frame.kind for frame in client.take()] == [FrameType.SERVER_INFO]
    return client


async def test_login_greets_then_lets_in(door: RelayDoor) -> None:
    stream = arrive(door)
    head, _, rest = stream.take().partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 101 ")
    assert b"Derp-Version: 2" in head
    assert b"Derp-Public-Key: " + SERVER.public_raw.hex().encode() in head
    assert rest == derp.encode_server_key(SERVER.public_raw)
    own = new_key()
    assert door.unfinished_logins == 1
    stream.deliver(login_frame(own, SERVER.public_raw))
    frame = MemoryClient(stream, own).take()[0]
    assert frame.kind == FrameType.SERVER_INFO
    box = LoginBox(own, SERVER.public_raw)
    assert derp.decode_server_info(frame.payload, box).version == 2
    assert door.unfinished_logins == 0
    assert door.server.is_connected(NodeKey(own.public_raw))


async def test_fast_start_answers_nothing_of_http(door: RelayDoor) -> None:
    """The client's login arrives with its request; the server key is still the first frame."""
    own, b = new_key(), join(door)
    stream = arrive(door, HEAD + b"Derp-Fast-Start: 1\r\n")
    stream.deliver(
        login_frame(own, SERVER.public_raw) + derpframes.encode_send_packet(b.key, b"straight on")
    )
    kinds = [frame.kind for frame in MemoryClient(stream, own).take()]
    assert kinds == [FrameType.SERVER_KEY, FrameType.SERVER_INFO]
    assert b.packets() == [(own.public_raw, b"straight on")]
    assert door.counters.fast_starts == 1


async def test_login_byte_by_byte_with_packets_behind(door: RelayDoor) -> None:
    b = join(door)
    own = new_key()
    stream = arrive(door)
    stream.deliver_slowly(
        login_frame(own, SERVER.public_raw) + derpframes.encode_send_packet(b.key, b"hello")
    )
    assert b.packets() == [(own.public_raw, b"hello")]


@pytest.mark.parametrize(
    "data",
    [
        b"\x04\0\0\0\x20" + bytes(32),
        b"\x02\xff\xff\xff\xff",
        b"\x02\0\0\0\x10" + bytes(16),
        derp.encode_frame(FrameType.CLIENT_INFO, bytes(32 + 24 + 100)),
        derp.encode_frame(FrameType.CLIENT_INFO, new_key().public_raw + bytes(24 + 100)),
        b"GET / HTTP/1.1\r\n\r\n",
    ],
)
async def test_bad_logins_end_the_connection(door: RelayDoor, data: bytes) -> None:
    stream = arrive(door)
    stream.deliver(data)
    assert stream.closed
    assert door.counters.refused[Refusal.LOGIN] == 1
    assert door.unfinished_logins == 0


async def test_login_that_leaves_is_forgotten(door: RelayDoor) -> None:
    stream = arrive(door)
    stream.lose()
    assert door.unfinished_logins == 0
    assert not any(door.counters.refused.values())


async def test_packets_go_both_ways_whole_and_byte_by_byte(door: RelayDoor) -> None:
    a, b = join(door), join(door)
    a.send(b.key, b"one")
    b.send(a.key, b"two" * 500)
    assert b.packets() == [(a.key, b"one")]
    assert a.packets() == [(b.key, b"two" * 500)]
    a.stream.deliver_slowly(
        derpframes.encode_send_packet(b.key, b"slow") + derpframes.encode_send_packet(b.key, b"er")
    )
    assert b.packets() == [(a.key, b"slow"), (a.key, b"er")]


async def test_one_wake_with_many_destinations_is_one_write_each(door: RelayDoor) -> None:
    a, b, c = join(door), join(door), join(door)
    writes = b.stream.writes, c.stream.writes
    a.stream.deliver(
        b"".join(
            derpframes.encode_send_packet((b.key, c.key)[i % 2], bytes([i]) * (i + 1))
            for i in range(20)
        )
    )
    assert b.packets() == [(a.key, bytes([i]) * (i + 1)) for i in range(0, 20, 2)]
    assert c.packets() == [(a.key, bytes([i]) * (i + 1)) for i in range(1, 20, 2)]
    assert (b.stream.writes, c.stream.writes) == (writes[0] + 1, writes[1] + 1)
    assert door.counters.packets_sent == 20


async def test_control_frames_among_packets_are_obeyed(door: RelayDoor) -> None:
    a, b = join(door), join(door)
    a.stream.deliver(
        derpframes.encode_send_packet(b.key, b"1")
        + derp.encode_ping(b"12345678")
        + derpframes.encode_note_preferred(preferred=True)
        + derp.encode_pong(b"unasked.")
        + derp.encode_frame(0x77, b"?" * 100)
        + derpframes.encode_send_packet(b.key, b"2")
    )
    assert b.packets() == [(a.key, b"1"), (a.key, b"2")]
    assert a.take() == [Frame(FrameType.PONG, b"12345678")]
    counters = door.counters
    assert counters.home_clients == 1
    assert counters.unknown_frames == 1
    assert counters.home_moves_in == 0  # so soon after the login it is no move
    a.stream.deliver(derpframes.encode_note_preferred(preferred=True))
    a.stream.deliver(derpframes.encode_note_preferred(preferred=False))
    assert counters.home_clients == 0
    a.stream.deliver(derpframes.encode_note_preferred(preferred=True))
    a.stream.lose()
    assert counters.home_clients == 0


async def test_long_pings_echo_eight_bytes_and_floods_are_bounded(door: RelayDoor) -> None:
    a = join(door)
    a.stream.deliver(derp.encode_ping(b"12345678" + bytes(992)))
    assert a.take() == [Frame(FrameType.PONG, b"12345678")]
    a.stream.deliver(derp.encode_ping(b"12345678") * 1000)
    assert len(a.take()) == MAX_PONGS
    a.stream.block()
    a.stream.deliver(derp.encode_ping(b"12345678"))
    assert not a.take()


async def test_unknown_frames_are_passed_over_as_they_come(door: RelayDoor) -> None:
    """Up to 1 MiB, without collecting it."""
    a, b = join(door), join(door)
    frame = derp.encode_frame(0x66, b"\x04" * 1024 * 1024)
    for at in range(0, len(frame), 40_000):
        a.stream.deliver(frame[at : at + 40_000])
        assert not a.stream._kept
    a.send(b.key, b"after")
    assert b.packets() == [(a.key, b"after")]
    assert not a.stream.closed


@pytest.mark.parametrize(
    "data",
    [
        derp.encode_frame(0x66, b"")[:1] + (1024 * 1024 + 1).to_bytes(4, "big"),
        b"\x04\xff\xff\xff\xff" + bytes(32),
        b"\x04\0\0\0\x05" + bytes(32),
        b"\x07\0\0\0\x02\0\0",
        b"\x12\0\0\0\x07" + bytes(7),
        b"\x12\0\0\x03\xe9" + bytes(1001),
        derp.encode_watch_conns(),
        derpframes.encode_close_peer(bytes(32)),
        derpframes.encode_forward_packet(bytes(32), bytes(32), b"data"),
        b"\x10\0\0\0\x01\0",
        b"\x11\0\0\0\x1f" + bytes(31),
        b"\x99\0\0\0\0" * 257,
        derp.encode_ping(bytes(8)) * 257,
    ],
)
async def test_broken_rules_end_the_link(door: RelayDoor, data: bytes) -> None:
    a, b = join(door), join(door)
    a.stream.deliver(derpframes.encode_send_packet(b.key, b"before") + data)
    assert a.stream.closed
    assert door.counters.refused[Refusal.PROTOCOL] == 1
    assert not door.server.is_connected(NodeKey(a.key))
    b.send(b.key, b"to myself")
    assert (b.key, b"to myself") in b.packets()


async def test_broken_rule_below_is_counted_too(door: RelayDoor) -> None:
    """A WebSocket that lies is lost with the error that says so."""
    client, login = join(door), arrive(door)
    for stream in (client.stream, login):
        stream.lose(ProtocolError("websocket: a reserved bit is set"))
    assert door.counters.refused[Refusal.PROTOCOL] == 2


async def test_departure_is_told_to_who_heard_from_the_peer(door: RelayDoor) -> None:
    a, b = join(door), join(door)
    a.send(b.key, b"hi")
    b.take()
    a.stream.lose()
    assert b.take() == [Frame(FrameType.PEER_GONE, a.key + b"\0")]


async def test_unknown_peer_is_named_to_a_disco_packet(door: RelayDoor) -> None:
    a = join(door)
    nobody = bytes(32)
    a.send(nobody, b"not disco")
    assert not a.take()
    a.send(nobody, DISCO)
    assert a.take() == [Frame(FrameType.PEER_GONE, nobody + b"\1")]
    assert door.counters.peer_gone_not_here == 1


async def test_reader_that_does_not_read_loses_packets_not_others(door: RelayDoor) -> None:
    a, b, c = join(door), join(door), join(door)
    b.stream.block()
    for _ in range(10):
        a.send(b.key, b"lost")
    a.send(c.key, b"kept")
    assert not b.packets()
    assert c.packets() == [(a.key, b"kept")]
    b.stream.unblock()
    a.send(b.key, b"again")
    assert b.packets() == [(a.key, b"again")]


async def test_duplicate_that_speaks_is_active(door: RelayDoor) -> None:
    own, b = new_key(), join(door)
    old, new = join(door, own), join(door, own)
    b.send(own.public_raw, b"1")
    old.stream.deliver(derp.encode_ping(b"12345678"))
    b.send(own.public_raw, b"2")
    assert new.packets() == [(b.key, b"1")]
    assert old.packets() == [(b.key, b"2")]
    old.send(b.key, b"from the old one")
    assert b.packets() == [(own.public_raw, b"from the old one")]


async def test_mesh_client_watches_forwards_and_closes(door: RelayDoor) -> None:
    a = join(door)
    mesh = join(door, info=ClientInfo(mesh_key=MESH))
    mesh.stream.deliver(derp.encode_watch_conns())
    present = [derp.decode_peer_present(frame.payload) for frame in mesh.take()]
    assert {peer.key: peer.flags for peer in present} == {
        a.key: PresentFlag.REGULAR,
        mesh.key: PresentFlag.MESH_PEER,
    }
    assert present[0].address == IPv4Address("192.0.2.9")
    assert present[0].port == 5000
    far = bytes(32)
    mesh.stream.deliver_slowly(derpframes.encode_forward_packet(far, a.key, b"from afar"))
    assert a.packets() == [(far, b"from afar")]
    b = join(door, info=ClientInfo(is_prober=True, app_name="probe"))
    shown = derp.decode_peer_present(mesh.take()[0].payload)
    assert (shown.key, shown.flags, shown.app_name) == (b.key, PresentFlag.PROBER, "probe")
    mesh.stream.deliver(derpframes.encode_close_peer(b.key))
    assert b.stream.closed
    assert mesh.take() == [Frame(FrameType.PEER_GONE, b.key + b"\0")]


async def test_wrong_mesh_key_is_no_trust(door: RelayDoor) -> None:
    mesh = join(door, info=ClientInfo(mesh_key=MeshKey(b"n" * 32)))
    mesh.stream.deliver(derp.encode_watch_conns())
    assert mesh.stream.closed


async def test_watching_oneself_tells_nothing(door: RelayDoor) -> None:
    ourselves = join(door, SERVER, ClientInfo(mesh_key=MESH))
    ourselves.stream.deliver(derp.encode_watch_conns())
    assert not ourselves.take()
    assert not ourselves.stream.closed
    assert door.counters.watchers == 0


async def test_not_ideal_clients_are_counted(door: RelayDoor) -> None:
    stream = arrive(door, HEAD + b"Ideal-Node: 1a\r\n")
    own = new_key()
    stream.deliver(login_frame(own, SERVER.public_raw))
    assert door.counters.not_ideal_clients == 1
    link = next(iter(door.server.links()))
    assert link.presence().flags == PresentFlag.NOT_IDEAL
    stream.lose()
    assert door.counters.not_ideal_clients == 0


# -- admission --


async def test_stranger_is_refused_and_mesh_is_not_asked() -> None:
    asked: list[tuple[NodeKey, str]] = []

    def admit(key: NodeKey, source: str) -> bool:
        asked.append((key, source))
        return False

    door = RelayDoor(SERVER, admit=admit, mesh_key=MESH)
    own = new_key()
    stream = arrive(door)
    stream.deliver(login_frame(own, SERVER.public_raw))
    assert stream.closed
    assert asked == [(NodeKey(own.public_raw), "192.0.2.9")]
    assert door.counters.refused[Refusal.NOT_ADMITTED] == 1
    join(door, info=ClientInfo(mesh_key=MESH))
    assert len(asked) == 1


@pytest.mark.parametrize("answer", [True, False, None])
async def test_admission_that_takes_time(answer: bool | None) -> None:
    decided = asyncio.Event()

    async def decide() -> bool:
        await decided.wait()
        if answer is None:
            raise RuntimeError("the control server is broken")
        return answer

    def admit(_key: NodeKey, _source: str) -> Awaitable[bool]:
        return decide()

    door = RelayDoor(SERVER, admit=admit)
    own = new_key()
    stream = arrive(door)
    stream.take()
    stream.deliver(
        login_frame(own, SERVER.public_raw)
        + derpframes.encode_send_packet(own.public_raw, b"early")
    )
    assert not stream.take()
    assert not stream.reading
    decided.set()
    await until(lambda: bool(stream.written) or stream.closed)
    assert stream.closed is (answer is not True)
    if answer:
        stream.deliver(b"")
        client = MemoryClient(stream, own)
        kinds = [frame.kind for frame in client.take()]
        assert kinds[0] == FrameType.SERVER_INFO
    door.close()


async def test_bounds_on_logins_and_clients() -> None:
    door = RelayDoor(SERVER, limits=RelayLimits(max_logins=2, max_clients=2))
    first, second = arrive(door), arrive(door)
    third = arrive(door)
    assert first.closed
    assert not third.closed
    assert door.counters.refused[Refusal.CROWDED] == 1
    assert door.unfinished_logins == 2
    for stream in (second, third):
        stream.deliver(login_frame(new_key(), SERVER.public_raw))
    answer: Sink | http1.Answer = door.route(http1.decode_head(HEAD + b"\r\n"), MemoryStream())
    assert isinstance(answer, http1.Answer)
    assert answer.status == 503
    door.close()


async def test_late_logins_are_refused_and_keep_alives_sent() -> None:
    door = RelayDoor(SERVER, limits=RelayLimits(login_timeout_s=0.0))
    late = arrive(door)
    on_time = arrive(door)
    own = new_key()
    on_time.deliver(login_frame(own, SERVER.public_raw))
    on_time.take()
    for _ in range(60):
        door._tick()
    assert late.closed
    assert door.counters.refused[Refusal.LATE] == 1
    assert MemoryClient(on_time, own).take() == [Frame(FrameType.KEEP_ALIVE, b"")]
    assert door.counters.keep_alives == 1
    on_time.lose()
    for _ in range(60):
        door._tick()
    assert not any(door._wheel)
    door.close()


async def test_link_that_is_over_is_forgotten_at_once() -> None:
    door = RelayDoor(SERVER)
    stream = arrive(door)
    stream.deliver(login_frame(new_key(), SERVER.public_raw))
    assert sum(map(len, door._wheel)) == 1
    stream.lose()
    assert not any(door._wheel)
    door.close()


async def test_node_that_is_no_longer_admitted_is_closed_at_the_recheck() -> None:
    allowed = True

    def admit(_key: NodeKey, _source: str) -> bool:
        return allowed

    door = RelayDoor(SERVER, admit=admit)
    client = join(door)
    allowed = False
    for _ in range(60 * 5):
        door._tick()
    assert client.stream.closed
    assert door.counters.refused[Refusal.REVOKED] == 1
    door.close()


async def test_close_ends_everything() -> None:
    door = RelayDoor(SERVER)
    client, half = join(door), arrive(door)
    door.close()
    assert client.stream.closed
    assert half.closed
    answer = door.route(http1.decode_head(HEAD + b"\r\n"), MemoryStream())
    assert isinstance(answer, http1.Answer)


# -- rate --


async def test_client_over_its_rate_is_not_read_for_a_while() -> None:
    door = RelayDoor(SERVER, limits=RelayLimits(bytes_per_second=1_000_000), mesh_key=MESH)
    a, b = join(door), join(door)
    mesh = join(door, info=ClientInfo(mesh_key=MESH))
    frame = derpframes.encode_send_packet(b.key, bytes(60_000))
    for _ in range(2):
        mesh.stream.deliver(frame)
        assert mesh.stream.reading
    for _ in range(2):
        a.stream.deliver(frame)
    assert not a.stream.reading
    assert door.counters.rate_limited == 1
    await until(lambda: a.stream.reading)
    assert len(b.packets()) == 4  # made to wait, not dropped


async def test_links_are_small(door: RelayDoor) -> None:
    """Thousands of idle ones are held in memory."""
    join(door)
    assert not any(hasattr(link, "__dict__") for link in door.server.links())
