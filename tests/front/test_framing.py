"""Bodies end where every other reader says that they end."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.front.framing import MAX_LENGTH, BodyFraming
from appliance.wire.errors import ProtocolError
from appliance.wire.http1 import decode_head


def follow(fields: bytes, limit: int = 1000) -> BodyFraming | None:
    head = decode_head(b"POST / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n")
    return BodyFraming.of(head, limit)


def chunked(limit: int = 1000) -> BodyFraming:
    body = follow(b"Transfer-Encoding: chunked\r\n", limit)
    assert body is not None
    return body


def test_no_body() -> None:
    assert follow(b"") is None
    assert follow(b"Content-Length: 0\r\n") is None


def test_stated_length() -> None:
    body = follow(b"Content-Length: 10\r\n")
    assert body is not None
    assert body.advance(memoryview(b"1234")) == 4
    assert not body.done
    assert body.advance(memoryview(b"567890GET /")) == 6
    assert body.done


@pytest.mark.parametrize(
    "data",
    [
        b"0\r\n\r\n",
        b"5\r\nhello\r\n0\r\n\r\n",
        b"5;name=value\r\nhello\r\n00000000\r\n\r\n",
        b"A \r\n0123456789\r\n1\r\nx\r\n0\r\nTrailer: yes\r\nOther: too\r\n\r\n",
    ],
)
def test_chunks_in_any_pieces(data: bytes) -> None:
    whole = chunked()
    assert whole.advance(memoryview(data + b"GET /")) == len(data)
    assert whole.done
    single = chunked()
    for byte in data:
        assert not single.done
        assert single.advance(memoryview(bytes([byte]))) == 1
    assert single.done


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"0x5\r\nhello",
        b"5\nhello\r\n",
        b"5\r\nhelloX\r\n",
        b"5\r\nhello0\r\n\r\n",
        b"5;a\rb\r\nhello",
        b"123456789\r\n",
        b"3E9\r\n",
        b"1" * 300,
        b"0\r\n" + b"A: b\r\n" * 20,
        b"0\r\nA: b\n\r\n",
        b"5;" + b"x" * 300 + b"\r\n",
    ],
)
def test_sloppy_chunks_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        chunked().advance(memoryview(data))


def test_websocket_has_no_end() -> None:
    body = follow(b"Connection: keep-alive, Upgrade\r\nUpgrade: websocket\r\n")
    assert body is not None
    assert not body.limited
    assert body.advance(memoryview(bytes(100))) == 100
    assert not body.done
    assert follow(b"Upgrade: websocket\r\n") is None
    assert MAX_LENGTH > 1 << 60


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=8), st.binary(max_size=5))
@settings(max_examples=100)
def test_every_chunked_body_ends_at_its_end(chunks: list[bytes], tail: bytes) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    body = chunked()
    assert body.advance(memoryview(data + tail)) == len(data)
    assert body.done


@given(st.binary(max_size=100))
@settings(max_examples=100)
def test_garbage_is_refused_or_followed(data: bytes) -> None:
    body = chunked()
    try:
        assert body.advance(memoryview(data)) <= len(data)
    except ProtocolError:
        return
