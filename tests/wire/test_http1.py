"""Request heads: what is read, and everything that is refused."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.wire.errors import ProtocolError
from appliance.wire.http1 import (
    MAX_FIELDS,
    Answer,
    Head,
    decode_head,
    encode_answer,
    encode_normalised,
)

GOOD = (
    b"POST /ts2021?x=%20y HTTP/1.1\r\nHost: control.test:8443\r\nUpgrade: One, two\r\n"
    b"upgrade:  THREE \r\nContent-Length: 12\r\nX-Empty:\r\nX-Name: caf\xe9 \t bar\r\n\r\n"
)
TOKEN = st.text(
    "abcdefghijklmnopqrstuvwxyzABCXYZ0123456789!#$%&'*+-.^_`|~", min_size=1, max_size=20
)
VALUE = st.text(st.characters(min_codepoint=32, max_codepoint=255, exclude_characters="\x7f"))


def encode_head(head: Head) -> bytes:
    """Write the head as bytes again, normalised; ``decode_head`` gives an equal head."""
    lines = [f"{head.method} {head.target} HTTP/1.{head.minor}"]
    lines += [f"{name}: {value}" if value else f"{name}:" for name, value in head.fields]
    return ("\r\n".join(lines) + "\r\n\r\n").encode("latin-1")


def test_good_head_is_read() -> None:
    head = decode_head(GOOD)
    assert (head.method, head.target, head.path, head.query) == (
        "POST",
        "/ts2021?x=%20y",
        "/ts2021",
        "x=%20y",
    )
    assert head.get("host") == "control.test:8443"
    assert head.tokens("upgrade") == {"one", "two", "three"}
    assert head.all("upgrade") == ["One, two", "THREE"]
    assert head.get("x-empty") == ""
    assert head.get("x-name") == "caf\xe9 \t bar"
    assert (head.length, head.chunked, head.has_body, head.keep_alive) == (12, False, True, True)


@pytest.mark.parametrize(
    ("target", "path", "query"),
    [
        (b"/", "/", ""),
        (b"/a?b?c", "/a", "b?c"),
        (b"http://host?b", "/", "b"),
        (b"http://host:80/a?b", "/a", "b"),
        (b"HTTPS://host", "/", ""),
        (b"//host/a", "//host/a", ""),
        (b"/%2e%2e/\xc3\xa9", "/%2e%2e/\xc3\xa9", ""),
    ],
)
def test_targets(target: bytes, path: str, query: str) -> None:
    head = decode_head(b"GET " + target + b" HTTP/1.1\r\nHost: x\r\n\r\n")
    assert (head.path, head.query) == (path, query)


def test_asterisk_belongs_to_options() -> None:
    assert decode_head(b"OPTIONS * HTTP/1.1\r\nHost: x\r\n\r\n").path == "*"


def test_connect_matches_no_path() -> None:
    assert decode_head(b"CONNECT h:443 HTTP/1.1\r\nHost: h:443\r\n\r\n").path == ""


@pytest.mark.parametrize(
    ("first", "connection", "keep"),
    [
        (b"HTTP/1.1", b"", True),
        (b"HTTP/1.1", b"Connection: Close\r\n", False),
        (b"HTTP/1.1", b"Connection: upgrade, close\r\n", False),
        (b"HTTP/1.0", b"", False),
        (b"HTTP/1.0", b"Connection: keep-alive\r\n", True),
    ],
)
def test_keep_alive(first: bytes, connection: bytes, *, keep: bool) -> None:
    head = decode_head(b"GET / " + first + b"\r\nHost: x\r\n" + connection + b"\r\n")
    assert head.keep_alive is keep


REFUSED = {
    "empty": b"",
    "no fields end": b"GET / HTTP/1.1\r\nHost: x\r\n",
    "bytes behind the end": b"GET / HTTP/1.1\r\nHost: x\r\n\r\nmore",
    "bare LF": b"GET / HTTP/1.1\nHost: x\n\n",
    "bare LF in a field": b"GET / HTTP/1.1\r\nHost: x\nA: b\r\n\r\n",
    "bare CR in a field": b"GET / HTTP/1.1\r\nHost: x\rA: b\r\n\r\n",
    "NUL": b"GET / HTTP/1.1\r\nHost: x\0y\r\n\r\n",
    "folded": b"GET / HTTP/1.1\r\nHost: x\r\nA: b\r\n c\r\n\r\n",
    "blank before colon": b"GET / HTTP/1.1\r\nHost : x\r\n\r\n",
    "blank before name": b"GET / HTTP/1.1\r\n Host: x\r\n\r\n",
    "no colon": b"GET / HTTP/1.1\r\nHost x\r\n\r\n",
    "empty name": b"GET / HTTP/1.1\r\nHost: x\r\n: y\r\n\r\n",
    "name beyond ASCII": b"GET / HTTP/1.1\r\nHost: x\r\n\xe9: y\r\n\r\n",
    "two blanks": b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    "blank in target": b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    "tab": b"GET\t/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "version 2": b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    "version 1.2": b"GET / HTTP/1.2\r\nHost: x\r\n\r\n",
    "lower case http": b"GET / http/1.1\r\nHost: x\r\n\r\n",
    "no version": b"GET /\r\nHost: x\r\n\r\n",
    "HTTP/2 preface": b"PRI * HTTP/2.0\r\n\r\n",
    "no host": b"GET / HTTP/1.1\r\n\r\n",
    "two hosts": b"GET / HTTP/1.1\r\nHost: x\r\nHost: x\r\n\r\n",
    "target without slash": b"GET x HTTP/1.1\r\nHost: x\r\n\r\n",
    "asterisk": b"GET * HTTP/1.1\r\nHost: x\r\n\r\n",
    "fragment": b"GET /a#b HTTP/1.1\r\nHost: x\r\n\r\n",
    "user in the URL": b"GET http://u@x/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "URL without a host": b"GET http:///a HTTP/1.1\r\nHost: x\r\n\r\n",
    "URL with an odd host": b"GET http://a\\b/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "host with a path": b"GET / HTTP/1.1\r\nHost: a/b?c#d\\@evil\r\n\r\n",
    "host with a user": b"GET / HTTP/1.1\r\nHost: u@x\r\n\r\n",
    "ftp": b"GET ftp://x/ HTTP/1.1\r\nHost: x\r\n\r\n",
    "same length twice": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
    "length list": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 1, 1\r\n\r\n",
    "signed length": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: +1\r\n\r\n",
    "empty length": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length:\r\n\r\n",
    "hex length": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: 0x1\r\n\r\n",
    "unicode length": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: \xb2\r\n\r\n",
    "long length": b"GET / HTTP/1.1\r\nHost: x\r\nContent-Length: " + b"9" * 16 + b"\r\n\r\n",
    "length and chunked": b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\n"
    b"Transfer-Encoding: chunked\r\n\r\n",
    "chunked twice": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, chunked\r\n\r\n",
    "gzip coding": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
    "odd chunked": b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n",
    "chunked in 1.0": b"POST / HTTP/1.0\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n",
    "too many fields": b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * MAX_FIELDS + b"\r\n",
}


@pytest.mark.parametrize("kind", REFUSED)
def test_what_two_readers_could_read_differently_is_refused(kind: str) -> None:
    with pytest.raises(ProtocolError):
        decode_head(REFUSED[kind])


@given(
    TOKEN,
    st.lists(st.tuples(TOKEN, VALUE), max_size=10),
    st.sampled_from(["/", "/a/b?c=d", "http://h/x"]),
)
@settings(max_examples=200)
def test_round_trip(method: str, fields: list[tuple[str, str]], target: str) -> None:
    special = {"host", "content-length", "transfer-encoding"}
    kept = [(name.lower(), value.strip(" \t")) for name, value in fields]
    kept = [("host", "x"), *((n, v) for n, v in kept if n not in special)]
    if method == "CONNECT":
        return
    head = Head(method, target, 1, tuple(kept))
    again = decode_head(encode_head(head))
    assert (again.method, again.target, again.fields) == (method, target, head.fields)


NORMALISED = [
    (b"GET /a?b HTTP/1.1\r\nHost: x", 0, b"GET /a?b HTTP/1.1\r\nhost: x"),
    (b"GET http://y/a HTTP/1.1\r\nHost: x", 0, b"GET /a HTTP/1.1\r\nhost: y"),
    (b"GET /\xc3\xa9 HTTP/1.1\r\nHost: x", 0, b"GET /%C3%A9 HTTP/1.1\r\nhost: x"),
    (b"OPTIONS * HTTP/1.1\r\nHost: x", 0, b"OPTIONS * HTTP/1.1\r\nhost: x"),
    (
        b"GET / HTTP/1.0\r\nHost: x",
        0,
        b"GET / HTTP/1.0\r\nhost: x\r\nconnection: close",
    ),
    (
        b"GET / HTTP/1.0\r\nHost: x\r\nConnection: Keep-Alive",
        0,
        b"GET / HTTP/1.0\r\nhost: x\r\nconnection: keep-alive",
    ),
    (
        b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\nTrailer: A",
        7,
        b"POST / HTTP/1.1\r\nhost: x\r\ncontent-length: 7",
    ),
]


@pytest.mark.parametrize(("sent", "body_bytes", "written"), NORMALISED)
def test_normalised_heads(sent: bytes, body_bytes: int, written: bytes) -> None:
    head = decode_head(sent + b"\r\n\r\n")
    assert encode_normalised(head, body_bytes) == written + b"\r\n\r\n"


@given(st.binary(max_size=200))
@settings(max_examples=200)
def test_garbage_is_a_protocol_error_or_a_head(data: bytes) -> None:
    for text in (data, b"GET / HTTP/1.1\r\nHost: x\r\n" + data + b"\r\n\r\n"):
        try:
            decode_head(text)
        except ProtocolError:
            continue


def test_answers_are_written() -> None:
    assert encode_answer(Answer(204, headers={"X-A": "b"}), keep_alive=True) == (
        b"HTTP/1.1 204 No Content\r\nX-A: b\r\n\r\n"
    )
    text = encode_answer(Answer(200, b"hi"), keep_alive=False)
    assert text == (
        b"HTTP/1.1 200 OK\r\nContent-Type: text/plain; charset=utf-8\r\nContent-Length: 2\r\n"
        b"Connection: close\r\n\r\nhi"
    )
    assert encode_answer(Answer(200, b"hi"), keep_alive=True, head_only=True).endswith(b"2\r\n\r\n")
    assert b"599 Status" in encode_answer(Answer(599), keep_alive=True)
    with pytest.raises(ValueError, match="control character"):
        encode_answer(Answer(302, headers={"Location": "x\r\nSet-Cookie: y"}), keep_alive=True)
