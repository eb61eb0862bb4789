"""WebSocket frames and handshake: the examples of RFC 6455, whole, byte by byte, with a tail."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.wire import http1, websocket
from appliance.wire.websocket import (
    MAX_SMALL_AT_ONCE,
    Close,
    CloseCode,
    Data,
    Event,
    FrameReader,
    Opcode,
    Ping,
    Pong,
    WebSocketError,
    encode_frame,
)

MASK = bytes.fromhex("37fa213d")

# RFC 6455 section 5.7, with the opcode of binary where the RFC shows text
EXAMPLES = [
    (False, "820548656c6c6f", [Data(b"Hello")]),
    (True, "828537fa213d7f9f4d5158", [Data(b"Hello")]),
    (False, "020348656c80026c6f", [Data(b"Hel"), Data(b"lo")]),
    (False, "890548656c6c6f", [Ping(b"Hello")]),
    (True, "8a8537fa213d7f9f4d5158", [Pong(b"Hello")]),
    (False, "880203e8", [Close(1000)]),
    (False, "8800", [Close(None)]),
]


def stream(events: list[Event]) -> list[Event]:
    """Join neighbouring data, whose boundaries mean nothing."""
    out: list[Event] = []
    for event in events:
        if isinstance(event, Data) and out and isinstance(out[-1], Data):
            out[-1] = Data(out[-1].payload + event.payload)
        else:
            out.append(event)
    return [event for event in out if event != Data(b"")]


@pytest.mark.parametrize(("masked", "text", "events"), EXAMPLES)
def test_frames_read_whole_and_byte_by_byte(masked: bool, text: str, events: list[Event]) -> None:
    data = bytes.fromhex(text)
    assert FrameReader(masked=masked).feed(data) == events
    reader = FrameReader(masked=masked)
    got: list[Event] = []
    for i in range(len(data)):
        got += reader.feed(data[i : i + 1])
    assert stream(got) == stream(events)


def test_a_tail_waits_for_its_rest() -> None:
    reader = FrameReader(masked=True)
    first = encode_frame(Opcode.BINARY, b"one", mask=MASK)
    second = encode_frame(Opcode.PING, b"two", mask=MASK)
    assert reader.feed(first + second[:4]) == [Data(b"one")]
    assert reader.feed(second[4:]) == [Ping(b"two")]


@given(
    st.lists(st.binary(max_size=70_000), max_size=4),
    st.booleans(),
    st.integers(min_value=1, max_value=5000),
)
def test_what_is_encoded_is_read(payloads: list[bytes], masked: bool, step: int) -> None:
    data = b"".join(
        encode_frame(Opcode.BINARY, payload, mask=MASK if masked else None) for payload in payloads
    )
    reader = FrameReader(masked=masked)
    got = b""
    for at in range(0, len(data), step):
        for event in reader.feed(data[at : at + step]):
            assert isinstance(event, Data)
            got += event.payload
    assert got == b"".join(payloads)


def test_stream_is_cut_into_messages_of_bounded_size() -> None:
    data = bytes(range(256)) * 300
    encoded = websocket.encode_stream(data)
    events = FrameReader(masked=False).feed(encoded)
    assert [len(e.payload) for e in events if isinstance(e, Data)] == [32_768, 32_768, 11_264]
    assert b"".join(e.payload for e in events if isinstance(e, Data)) == data


@pytest.mark.parametrize(
    ("text", "code"),
    [
        ("c28537fa213d7f9f4d5158", CloseCode.PROTOCOL),  # reserved bit
        ("820548656c6c6f", CloseCode.PROTOCOL),  # not masked
        ("818537fa213d7f9f4d5158", CloseCode.UNSUPPORTED),  # text
        ("838537fa213d7f9f4d5158", CloseCode.PROTOCOL),  # unknown opcode
        ("808537fa213d7f9f4d5158", CloseCode.PROTOCOL),  # continues nothing
        ("028537fa213d7f9f4d5158828537fa213d", CloseCode.PROTOCOL),  # begins inside a message
        ("0980", CloseCode.PROTOCOL),  # ping in pieces
        ("89fe007e", CloseCode.PROTOCOL),  # long ping
        ("82fe0005", CloseCode.PROTOCOL),  # length not in its shortest form
        ("82ff000000000000ffff", CloseCode.PROTOCOL),
        ("82ff0000000000100001", CloseCode.TOO_BIG),
        ("82ffffffffffffffffff", CloseCode.TOO_BIG),
        ("888137fa213d00", CloseCode.PROTOCOL),  # close code of one byte
    ],
)
def test_broken_rules_name_their_close_code(text: str, code: CloseCode) -> None:
    with pytest.raises(WebSocketError) as caught:
        FrameReader(masked=True).feed(bytes.fromhex(text))
    assert caught.value.code == code


HEAD = (
    b"GET /derp HTTP/1.1\r\nHost: relay\r\nUpgrade: websocket\r\nConnection: keep-alive, Upgrade\r\n"
    b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
    b"Sec-WebSocket-Protocol: chat, derp\r\n\r\n"
)


def test_handshake_is_answered_as_in_the_rfc() -> None:
    """Source: RFC 6455 section 1.3."""
    answer = websocket.answer_handshake(http1.decode_head(HEAD), "derp")
    assert answer.startswith(b"HTTP/1.1 101 Switching Protocols\r\n")
    assert b"Sec-WebSocket-Accept: s3pPLMBiTxaQ9kYGzzhZRbK+xOo=\r\n" in answer
    assert b"Sec-WebSocket-Protocol: derp\r\n" in answer
    assert answer.endswith(b"\r\n\r\n")


@pytest.mark.parametrize(
    ("old", "new", "code"),
    [
        (b"GET", b"POST", CloseCode.PROTOCOL),
        (b"Upgrade: websocket", b"Upgrade: derp", CloseCode.PROTOCOL),
        (b"keep-alive, Upgrade", b"keep-alive", CloseCode.PROTOCOL),
        (b"Version: 13", b"Version: 8", CloseCode.PROTOCOL),
        (b"bXBsZSBub25jZQ==", b"bXBsZQ==", CloseCode.PROTOCOL),
        (b"dGhlIHNh", b"\xff\xfe!", CloseCode.PROTOCOL),
        (b"chat, derp", b"chat", CloseCode.POLICY),
        (b"Sec-WebSocket-Protocol", b"X-Other", CloseCode.POLICY),
    ],
)
def test_improper_handshakes_are_refused(old: bytes, new: bytes, code: CloseCode) -> None:
    head = http1.decode_head(HEAD.replace(old, new))
    with pytest.raises(WebSocketError) as caught:
        websocket.answer_handshake(head, "derp")
    assert caught.value.code == code


def test_flood_of_small_frames_is_refused() -> None:
    mask = b"abcd"
    for small in (
        encode_frame(Opcode.PONG, b"", mask=mask),
        encode_frame(Opcode.PING, bytes(125), mask=mask),
        encode_frame(Opcode.BINARY, b"x", mask=mask),
        encode_frame(Opcode.BINARY, b"", mask=mask),
    ):
        reader = FrameReader(masked=True)
        for _ in range(10):
            reader.feed(small * MAX_SMALL_AT_ONCE)
        with pytest.raises(WebSocketError, match="flood") as caught:
            reader.feed(small * (MAX_SMALL_AT_ONCE + 1))
        assert caught.value.code == CloseCode.POLICY
    packet = encode_frame(Opcode.BINARY, bytes(60), mask=mask)
    assert len(FrameReader(masked=True).feed(packet * 1_000)) == 1_000
