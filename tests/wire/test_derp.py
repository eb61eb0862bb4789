"""DERP frames and login boxes against bytes of the official package, and by property."""

from __future__ import annotations

import json
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.wire import derp
from appliance.wire.derp import (
    ClientInfo,
    Frame,
    FrameReader,
    FrameType,
    LoginBox,
    PeerPresent,
    PresentFlag,
    ServerInfo,
)
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import MeshKey, NodeKey, PrivateKey
from tests.support import derpframes

GOLDEN = json.loads((Path(__file__).parent.parent / "vectors" / "derp.json").read_text())
KEYS = {name: bytes.fromhex(text) for name, text in GOLDEN["keys"].items()}
PACKET = bytes.fromhex(GOLDEN["packet"])
CLIENT = PrivateKey(KEYS["client_private"])
SERVER = PrivateKey(KEYS["server_private"])
NONCE = bytes(range(24))
LATE_KEY = bytes.fromhex(GOLDEN["server"]["peer-present"])[5:37]

ENCODED: list[tuple[str, str, bytes]] = [
    ("frames", "send-packet", derpframes.encode_send_packet(KEYS["peer"], PACKET)),
    (
        "frames",
        "forward-packet",
        derpframes.encode_forward_packet(KEYS["peer"], KEYS["other"], PACKET),
    ),
    ("frames", "ping", derp.encode_ping(bytes(range(1, 9)))),
    ("frames", "pong", derp.encode_pong(bytes(range(8, 0, -1)))),
    ("frames", "note-preferred-yes", derpframes.encode_note_preferred(preferred=True)),
    ("frames", "note-preferred-no", derpframes.encode_note_preferred(preferred=False)),
    ("frames", "watch-conns", derp.encode_watch_conns()),
    ("frames", "close-peer", derpframes.encode_close_peer(KEYS["peer"])),
    ("server", "server-key", derp.encode_server_key(KEYS["server"])),
    ("server", "recv-packet", derpframes.encode_recv_packet(KEYS["peer"], PACKET)),
    ("server", "pong", derp.encode_pong(bytes(range(1, 9)))),
    (
        "server",
        "peer-present",
        derp.encode_peer_present(
            PeerPresent(LATE_KEY, IPv6Address("2001:db8::4"), 1004, PresentFlag.PROBER, "an app")
        ),
    ),
    (
        "server",
        "peer-gone-not-here",
        derp.encode_peer_gone(bytes.fromhex(GOLDEN["server"]["peer-gone-not-here"])[5:37], 1),
    ),
]

ALL_GOLDEN = [
    pytest.param(bytes.fromhex(text), id=f"{side}/{name}")
    for side in ("frames", "server")
    for name, text in GOLDEN[side].items()
]


def payload(side: str, name: str) -> bytes:
    return bytes.fromhex(GOLDEN[side][name])[derp.HEADER_BYTES :]


@pytest.mark.parametrize(("side", "name", "encoded"), ENCODED, ids=lambda v: str(v)[:20])
def test_encoding_gives_the_official_bytes(side: str, name: str, encoded: bytes) -> None:
    assert encoded.hex() == GOLDEN[side][name]


def test_decoding_reads_the_official_bytes() -> None:
    assert derpframes.decode_send_packet(payload("frames", "send-packet")) == (KEYS["peer"], PACKET)
    assert derpframes.decode_forward_packet(payload("frames", "forward-packet")) == (
        KEYS["peer"],
        KEYS["other"],
        PACKET,
    )
    assert derpframes.decode_recv_packet(payload("server", "recv-packet")) == (KEYS["peer"], PACKET)
    assert derp.decode_ping(payload("frames", "ping")) == bytes(range(1, 9))
    assert derpframes.decode_note_preferred(payload("frames", "note-preferred-yes"))
    assert not derpframes.decode_note_preferred(payload("frames", "note-preferred-no"))
    assert derpframes.decode_close_peer(payload("frames", "close-peer")) == KEYS["peer"]
    assert derp.decode_server_key(payload("server", "server-key")) == KEYS["server"]
    assert derp.decode_peer_gone(payload("server", "peer-gone-not-here"))[1] == 1
    assert derp.decode_peer_present(payload("server", "peer-present")) == PeerPresent(
        LATE_KEY, IPv6Address("2001:db8::4"), 1004, PresentFlag.PROBER, "an app"
    )


@pytest.mark.parametrize(
    ("name", "info"),
    [
        ("client-info", ClientInfo(can_ack_pings=True)),
        ("client-info-prober", ClientInfo(is_prober=True, app_name="prober 1")),
    ],
)
def test_official_login_opens(name: str, info: ClientInfo) -> None:
    key, said, box = derp.decode_client_info(payload("frames", name), SERVER)
    assert key == NodeKey(KEYS["client"])
    assert said == info
    answer = derp.encode_server_info(box, ServerInfo(), NONCE)
    client_box = LoginBox(CLIENT, KEYS["server"])
    assert derp.decode_server_info(answer[5:], client_box) == ServerInfo()


def test_official_mesh_login_opens() -> None:
    _, said, _ = derp.decode_client_info(payload("frames", "client-info-mesh"), SERVER)
    assert said.mesh_key is not None
    assert said.mesh_key.matches(MeshKey(KEYS["mesh"]))


def test_official_server_info_opens() -> None:
    box = LoginBox(CLIENT, KEYS["server"])
    assert derp.decode_server_info(payload("server", "server-info"), box) == ServerInfo()


def test_our_login_has_the_official_json() -> None:
    box = LoginBox(CLIENT, KEYS["server"])
    server_box = LoginBox(SERVER, KEYS["client"])
    official = server_box.open(payload("frames", "client-info")[32:])
    ours = derp.encode_client_info(KEYS["client"], box, ClientInfo(can_ack_pings=True), NONCE)
    assert server_box.open(ours[5 + 32 :]) == official
    mesh = ClientInfo(mesh_key=MeshKey(KEYS["mesh"]))
    official = server_box.open(payload("frames", "client-info-mesh")[32:])
    ours = derp.encode_client_info(KEYS["client"], box, mesh, NONCE)
    assert server_box.open(ours[5 + 32 :]) == official


@pytest.mark.parametrize("data", ALL_GOLDEN)
def test_frames_are_cut_whole_byte_by_byte_and_with_a_tail(data: bytes) -> None:
    whole = FrameReader().feed(data)
    assert whole == [Frame(data[0], data[5:])]
    reader = FrameReader()
    slowly = [frame for i in range(len(data)) for frame in reader.feed(data[i : i + 1])]
    assert slowly == whole
    reader = FrameReader()
    assert reader.feed(data + data[:4]) == whole
    assert reader.unfinished == 4
    assert reader.feed(data[4:]) == whole


@given(
    st.lists(st.tuples(st.integers(0, 255), st.binary(max_size=300)), max_size=8),
    st.integers(1, 64),
)
def test_any_frames_survive_any_cut(frames: list[tuple[int, bytes]], step: int) -> None:
    data = b"".join(derp.encode_frame(kind, body) for kind, body in frames)
    reader = FrameReader()
    got = [f for at in range(0, len(data), step) for f in reader.feed(data[at : at + step])]
    assert got == [Frame(kind, body) for kind, body in frames]


def test_long_frames_are_refused_by_their_head() -> None:
    with pytest.raises(ProtocolError):
        FrameReader().feed(b"\x05\x00\x10\x00\x01")
    with pytest.raises(ProtocolError):
        FrameReader(max_bytes=100).feed(b"\x05\x00\x00\x00\x65")


keys = st.binary(min_size=32, max_size=32)


@given(keys, keys, st.binary(max_size=2000))
def test_packets_round_trip(source: bytes, destination: bytes, data: bytes) -> None:
    assert derpframes.decode_send_packet(derpframes.encode_send_packet(source, data)[5:]) == (
        source,
        data,
    )
    assert derpframes.decode_recv_packet(derpframes.encode_recv_packet(source, data)[5:]) == (
        source,
        data,
    )
    forward = derpframes.encode_forward_packet(source, destination, data)
    assert derpframes.decode_forward_packet(forward[5:]) == (source, destination, data)


addresses = st.one_of(
    st.integers(0, 2**32 - 1).map(IPv4Address),
    st.integers(2**64, 2**128 - 1).map(IPv6Address),
)


@given(keys, addresses, st.integers(0, 65535), st.integers(1, 15), st.text("abc 1", max_size=32))
def test_presence_round_trips(key: bytes, address: Any, port: int, flags: int, name: str) -> None:
    peer = PeerPresent(key, address, port, PresentFlag(flags), name)
    assert derp.decode_peer_present(derp.encode_peer_present(peer)[5:]) == peer


@pytest.mark.parametrize("size", [32, 50, 51, 52])
def test_presence_of_older_relays_is_read(size: int) -> None:
    whole = derp.encode_peer_present(
        PeerPresent(bytes(32), IPv4Address("192.0.2.1"), 7, PresentFlag.REGULAR)
    )[5:]
    peer = derp.decode_peer_present(whole[:size])
    assert peer.port == (7 if size > 32 else 0)
    assert peer.flags == (PresentFlag.REGULAR if size > 50 else PresentFlag(0))


def test_small_frames_round_trip() -> None:
    assert derpframes.decode_health(derpframes.encode_health("two of you")[5:]) == "two of you"
    assert derpframes.decode_restarting(derpframes.encode_restarting(1500, 10_000)[5:]) == (
        1500,
        10_000,
    )
    assert derp.decode_peer_gone(bytes(32)) == (bytes(32), 0)


@pytest.mark.parametrize(
    "decode",
    [
        lambda: derpframes.decode_send_packet(bytes(31)),
        lambda: derpframes.decode_send_packet(bytes(32 + 65_537)),
        lambda: derpframes.decode_recv_packet(bytes(31)),
        lambda: derpframes.decode_forward_packet(bytes(63)),
        lambda: derpframes.decode_forward_packet(bytes(64 + 65_537)),
        lambda: derp.decode_ping(bytes(7)),
        lambda: derp.decode_ping(bytes(1001)),
        lambda: derpframes.decode_note_preferred(b""),
        lambda: derpframes.decode_note_preferred(b"\0\0"),
        lambda: derpframes.decode_close_peer(bytes(33)),
        lambda: derp.decode_peer_gone(bytes(31)),
        lambda: derp.decode_peer_present(bytes(31)),
        lambda: derpframes.decode_restarting(bytes(7)),
        lambda: derp.decode_server_key(derp.MAGIC + bytes(31)),
        lambda: derp.decode_server_key(bytes(40)),
        lambda: derp.decode_server_key(derp.MAGIC + bytes(2000)),
        lambda: derp.decode_client_info(bytes(55), SERVER),
        lambda: derp.decode_client_info(bytes(16 * 1024 + 1), SERVER),
        lambda: derp.decode_client_info(bytes(100), SERVER),  # a key of low order
        lambda: derp.decode_client_info(KEYS["client"] + bytes(60), SERVER),
        lambda: derpframes.encode_send_packet(bytes(32), bytes(65_537)),
        lambda: LoginBox(SERVER, KEYS["client"]).open(bytes(39)),
    ],
)
def test_wrong_sizes_and_boxes_are_refused(decode: Callable[[], object]) -> None:
    with pytest.raises(ProtocolError):
        decode()


@pytest.mark.parametrize(
    "text",
    [
        b"",
        b"null",
        b"[]",
        b'{"version":"2"}',
        b'{"meshKey":""}',
        b'{"meshKey":"00"}',
        b'{"AppName":"' + b"x" * 33 + b'"}',
        b'{"AppName":"\\u00e9"}',
        b'{"AppName":"a\\nb"}',
        b'{"AppName":"\xff"}',
        b'{"x":' + b"[" * 200_000 + b"]",
        b'{"version":1e999}',
    ],
)
def test_login_json_of_another_shape_is_refused(text: bytes) -> None:
    box = LoginBox(CLIENT, KEYS["server"])
    with pytest.raises(ProtocolError):
        derp.decode_client_info(KEYS["client"] + box.seal(text, NONCE), SERVER)


def test_unknown_login_fields_are_ignored() -> None:
    box = LoginBox(CLIENT, KEYS["server"])
    sealed = box.seal(b'{"version":9,"Later":{"a":[1]}}', NONCE)
    _, said, _ = derp.decode_client_info(KEYS["client"] + sealed, SERVER)
    assert said == ClientInfo(version=9)


def test_disco_is_known_by_magic_and_length() -> None:
    assert derpframes.looks_disco(derp.DISCO_MAGIC + bytes(56))
    assert not derpframes.looks_disco(derp.DISCO_MAGIC + bytes(55))
    assert not derpframes.looks_disco(bytes(100))
    assert derpframes.looks_disco(memoryview(derp.DISCO_MAGIC + bytes(56)))


def test_frame_types_are_the_official_numbers() -> None:
    for side, name in (("frames", "ping"), ("server", "peer-present"), ("server", "pong")):
        kind = bytes.fromhex(GOLDEN[side][name])[0]
        assert FrameType(kind).name == name.upper().replace("-", "_")
