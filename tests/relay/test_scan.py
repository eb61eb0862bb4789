"""Packet frames turned around in place, against the slow and obvious way."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.relay.scan import count_disco, forward_frames, packets, recv_head, rewrite_run
from appliance.wire.derp import DISCO_MAGIC, FrameReader, FrameType
from appliance.wire.errors import ProtocolError
from tests.support import derpframes

SOURCE = b"s" * 32
KEYS = [b"a" * 32, b"b" * 32]

data = st.one_of(
    st.binary(max_size=80),
    st.integers(0, 120).map(lambda size: DISCO_MAGIC + bytes(size)),
    st.just(b"x" * 1400),
)
sends = st.lists(st.tuples(st.sampled_from(KEYS), data), min_size=1, max_size=12)


@given(sends, st.integers(0, 100), st.sampled_from([b"", b"\x12", b"\x12\0\0\0\x08" + bytes(8)]))
def test_run_is_turned_as_frame_by_frame(
    sent: list[tuple[bytes, bytes]], cut: int, tail: bytes
) -> None:
    whole = b"".join(derpframes.encode_send_packet(key, body) for key, body in sent) + tail
    end = max(37, len(whole) - cut)
    if end > len(whole):
        return
    buffer = bytearray(whole[:end])  # exactly as long: nothing behind the end may be needed
    key, start, stop, count, disco = rewrite_run(buffer, 0, end, SOURCE)
    expected: list[bytes] = []
    for destination, body in sent:
        size = sum(37 + len(b) for b in expected)
        if destination != sent[0][0] or size + 37 + len(body) > end:
            break
        expected.append(body)
    assert (key, start) == (sent[0][0], 0)
    assert count == len(expected)
    assert stop == sum(37 + len(body) for body in expected)
    turned = b"".join(derpframes.encode_recv_packet(SOURCE, body) for body in expected)
    assert bytes(buffer[:stop]) == turned
    assert bytes(buffer[stop:]) == whole[stop:end]
    assert disco == len([body for body in expected if derpframes.looks_disco(body)])
    assert disco == count_disco(memoryview(turned))
    assert [bytes(body) for body in packets(memoryview(turned))] == expected


@pytest.mark.parametrize("size", [0, 31, 32 + 65_537, 0xFFFFFFFF])
def test_impossible_lengths_are_refused(size: int) -> None:
    frame = b"\x04" + size.to_bytes(4, "big") + bytes(100)
    with pytest.raises(ProtocolError):
        rewrite_run(bytearray(frame), 0, len(frame), SOURCE)


def test_good_frames_in_front_of_a_bad_one_are_turned() -> None:
    good = derpframes.encode_send_packet(KEYS[0], b"good")
    bad = b"\x04\0\0\0\x05" + KEYS[0]
    buffer = bytearray(good + bad)
    assert rewrite_run(buffer, 0, len(buffer), SOURCE)[2:4] == (len(good), 1)
    with pytest.raises(ProtocolError):
        rewrite_run(buffer, len(good), len(buffer), SOURCE)


@given(st.lists(st.binary(max_size=200), min_size=1, max_size=5))
def test_runs_become_forward_frames(bodies: list[bytes]) -> None:
    run = b"".join(derpframes.encode_recv_packet(SOURCE, body) for body in bodies)
    frames = forward_frames(memoryview(run), SOURCE, KEYS[0])
    read = [frame for data in frames for frame in FrameReader().feed(data)]
    assert [derpframes.decode_forward_packet(frame.payload) for frame in read] == [
        (SOURCE, KEYS[0], body) for body in bodies
    ]


def test_head_of_a_packet_is_the_codecs() -> None:
    assert recv_head(3, SOURCE) + b"abc" == derpframes.encode_recv_packet(SOURCE, b"abc")
    assert recv_head(3, SOURCE)[0] == FrameType.RECV_PACKET
