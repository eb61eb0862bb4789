"""Bodies end where every other reader says that they end; answers are followed to their last byte."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.front.framing import MAX_FRAMING_BYTES, AnswerFollower, Body
from appliance.wire.errors import ProtocolError
from appliance.wire.http1 import decode_head


def body(fields: bytes, limit: int = 1000) -> Body:
    return Body(decode_head(b"POST / HTTP/1.1\r\nHost: x\r\n" + fields + b"\r\n"), limit)


def chunked(limit: int = 1000) -> Body:
    return body(b"Transfer-Encoding: chunked\r\n", limit)


def test_no_body_is_done() -> None:
    assert body(b"").done
    assert body(b"Content-Length: 0\r\n").done


def test_stated_length() -> None:
    one = body(b"Content-Length: 10\r\n")
    assert one.take(memoryview(b"1234")) == 4
    assert one.take(memoryview(b"567890GET /")) == 6
    assert one.done
    assert one.content == b"1234567890"


@pytest.mark.parametrize(
    ("data", "content"),
    [
        (b"0\r\n\r\n", b""),
        (b"5\r\nhello\r\n0\r\n\r\n", b"hello"),
        (b"5;name=value\r\nhello\r\n00000000\r\n\r\n", b"hello"),
        (b'A;a;b="c \xff"\r\n', None),
        (b"a\r\n0123456789\r\n1\r\nx\r\n0\r\nX-Sum: yes\r\nOther: too\r\n\r\n", b"0123456789x"),
    ],
)
def test_chunks_in_any_pieces(data: bytes, content: bytes | None) -> None:
    if content is None:
        with pytest.raises(ProtocolError):
            chunked().take(memoryview(data))
        return
    whole = chunked()
    assert whole.take(memoryview(data + b"GET /")) == len(data)
    assert whole.done
    single = chunked()
    for byte in data:
        assert not single.done
        assert single.take(memoryview(bytes([byte]))) == 1
    assert single.done
    assert whole.content == single.content == content


@pytest.mark.parametrize(
    "data",
    [
        b"\r\n",
        b"x\r\n",
        b"-1\r\n",
        b"0x5\r\nhello",
        b"5 \r\nhello",
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
        chunked().take(memoryview(data))


def test_tiny_chunks_are_bounded() -> None:
    """H2: a byte a chunk costs more to read than to send."""
    one = chunked(1 << 20)
    with pytest.raises(ProtocolError, match="small chunks"):
        one.take(memoryview(b"1\r\nx\r\n" * (MAX_FRAMING_BYTES // 5 + 1)))


@given(st.lists(st.binary(min_size=1, max_size=30), max_size=8), st.binary(max_size=5))
@settings(max_examples=100)
def test_every_chunked_body_ends_at_its_end(chunks: list[bytes], tail: bytes) -> None:
    data = b"".join(b"%x\r\n%b\r\n" % (len(chunk), chunk) for chunk in chunks) + b"0\r\n\r\n"
    one = chunked()
    assert one.take(memoryview(data + tail)) == len(data)
    assert one.done
    assert one.content == b"".join(chunks)


@given(st.binary(max_size=100))
@settings(max_examples=100)
def test_garbage_is_refused_or_followed(data: bytes) -> None:
    one = chunked()
    try:
        assert one.take(memoryview(data)) <= len(data)
    except ProtocolError:
        return


ANSWERS = {
    "length": ("GET", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello"),
    "no body": ("POST", b"HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n"),
    "to HEAD": ("HEAD", b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"),
    "204": ("GET", b"HTTP/1.1 204 No Content\r\n\r\n"),
    "304": ("GET", b"HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n"),
    "chunked": (
        "GET",
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\nA\r\n0123456789\r\n0\r\n\r\n",
    ),
    "provisional": (
        "PUT",
        b"HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 201 Created\r\ncontent-length: 2\r\n\r\nok",
    ),
}


@pytest.mark.parametrize("kind", ANSWERS)
@pytest.mark.parametrize("step", [1, 3, 7, 1000])
def test_answers_are_followed_to_their_end(kind: str, step: int) -> None:
    method, data = ANSWERS[kind]
    one = AnswerFollower(method)
    for at in range(0, len(data), step):
        assert not one.done
        one.follow(data[at : at + step])
    assert one.begun
    assert one.done
    assert not one.closes


def test_answer_that_the_end_of_the_connection_ends_is_never_done() -> None:
    one = AnswerFollower("GET")
    assert not one.follow(b"HTTP/1.0 200 OK\r\nConnection: close\r\n\r\n" + bytes(1000))
    assert one.closes
