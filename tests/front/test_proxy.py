"""Who is believed about the client's address, and the PROXY protocol's two versions."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.front.proxy import (
    MAX_V2_BYTES,
    V2_MAGIC,
    Preamble,
    client_address,
    decode_preamble,
    forwarded_scheme,
    is_trusted,
    networks,
)
from appliance.wire.errors import ProtocolError
from tests.support.proxyheaders import encode_v1, encode_v2

TRUSTED = networks(["10.0.0.0/8", "fd00::/8", "127.0.0.1"])


@pytest.mark.parametrize(
    ("peer", "fields", "client"),
    [
        ("192.0.2.1", ["203.0.113.9"], "192.0.2.1"),
        ("10.0.0.1", [], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6", "203.0.113.9, 10.1.1.1"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6, rubbish"], "10.0.0.1"),
        ("10.0.0.1", ["6.6.6.6, rubbish, 203.0.113.9"], "203.0.113.9"),
        ("10.0.0.1", ["6.6.6.6, rubbish, 10.2.2.2"], "10.2.2.2"),
        ("10.0.0.1", ["10.0.0.2, 10.0.0.3"], "10.0.0.2"),
        ("10.0.0.1", [""], "10.0.0.1"),
        ("10.0.0.1", ["203.0.113.9:555"], "203.0.113.9"),
        ("10.0.0.1", ['"[2001:db8::1]:443"'], "2001:db8::1"),
        ("10.0.0.1", ["2001:DB8::0001"], "2001:db8::1"),
        ("::ffff:10.0.0.1", ["203.0.113.9"], "203.0.113.9"),
        ("fd00::1%eth0", ["203.0.113.9"], "203.0.113.9"),
        ("not an address", ["203.0.113.9"], "not an address"),
    ],
)
def test_rightmost_untrusted_hop_is_the_client(peer: str, fields: list[str], client: str) -> None:
    assert client_address(peer, fields, TRUSTED) == client


def test_nobody_is_trusted_by_default() -> None:
    assert not is_trusted("127.0.0.1", ())
    assert client_address("127.0.0.1", ["1.2.3.4"], ()) == "127.0.0.1"
    with pytest.raises(ValueError, match="does not appear to be"):
        networks(["everywhere"])


def test_scheme_is_believed_from_trusted_proxies_only() -> None:
    assert forwarded_scheme("10.0.0.1", "https", TRUSTED, "http") == "https"
    assert forwarded_scheme("10.0.0.1", "http, HTTPS", TRUSTED, "http") == "https"
    assert forwarded_scheme("10.0.0.1", "gopher", TRUSTED, "http") == "http"
    assert forwarded_scheme("10.0.0.1", None, TRUSTED, "http") == "http"
    assert forwarded_scheme("192.0.2.1", "https", TRUSTED, "http") == "http"


@pytest.mark.parametrize("encode", [encode_v1, encode_v2])
@pytest.mark.parametrize(
    ("peer", "local"),
    [
        (("192.0.2.1", 4000), ("198.51.100.1", 443)),
        (("2001:db8::1", 65535), ("2001:db8::2", 1)),
    ],
)
def test_preamble_round_trip(encode: object, peer: tuple[str, int], local: tuple[str, int]) -> None:
    assert callable(encode)
    data: bytes = encode(peer, local)
    assert decode_preamble(data + b"GET /") == Preamble(len(data), peer)
    for end in range(len(data)):
        assert decode_preamble(data[:end]) is None


def test_known_bytes() -> None:
    """Examples as load balancers send them."""
    one = b"PROXY TCP4 192.168.0.1 192.168.0.11 56324 443\r\n"
    assert decode_preamble(one) == Preamble(len(one), ("192.168.0.1", 56324))
    two = bytes.fromhex("0d0a0d0a000d0a515549540a2111000cc0000201c63364010fa001bb")
    assert decode_preamble(two) == Preamble(28, ("192.0.2.1", 4000))


@pytest.mark.parametrize(
    "data",
    [
        b"PROXY UNKNOWN\r\n",
        b"PROXY UNKNOWN ffff:: ffff:: 1 2\r\n",
        V2_MAGIC + b"\x20\x00\x00\x00",
        V2_MAGIC + b"\x21\x00\x00\x02xx",
        V2_MAGIC + b"\x21\x31\x00\x03xxx",
    ],
)
def test_headers_without_a_client(data: bytes) -> None:
    assert decode_preamble(data) == Preamble(len(data), None)


@pytest.mark.parametrize(
    "data",
    [
        b"GET / HTTP/1.1\r\n",
        b"\x16\x03\x01",
        b"PROXY TCP4 192.0.2.1\r\n",
        b"PROXY TCP4 2001:db8::1 2001:db8::2 1 2\r\n",
        b"PROXY TCP6 192.0.2.1 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 70000 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 -1 2\r\n",
        b"PROXY TCP4 rubbish 192.0.2.2 1 2\r\n",
        b"PROXY TCP4 192.0.2.1 192.0.2.2 1 2\n" + bytes(80),
        b"PROXY TCP4 " + b"1" * 200,
        V2_MAGIC + b"\x22\x11\x00\x0c" + bytes(12),
        V2_MAGIC + b"\x31\x11\x00\x0c" + bytes(12),
        V2_MAGIC + b"\x21\x11\x00\x0b" + bytes(11),
        V2_MAGIC + b"\x21\x11\xff\xff",
    ],
)
def test_what_is_no_header_closes(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        decode_preamble(data)


@given(st.binary(max_size=300), st.sampled_from([b"", b"PROXY ", V2_MAGIC, V2_MAGIC + b"\x21\x11"]))
@settings(max_examples=200)
def test_garbage_is_an_error_or_a_bounded_header(data: bytes, start: bytes) -> None:
    try:
        found = decode_preamble(start + data)
    except ProtocolError:
        return
    assert found is None or found.size <= MAX_V2_BYTES


@given(st.text(max_size=60), st.lists(st.text(max_size=40), max_size=4))
@settings(max_examples=200)
def test_forwarded_garbage_never_raises(peer: str, fields: list[str]) -> None:
    client_address(peer, fields, TRUSTED)
    client_address("10.0.0.1", fields, TRUSTED)
