"""STUN requests and answers against bytes of the official package, and by property."""

from __future__ import annotations

import json
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.wire import stun
from appliance.wire.errors import ProtocolError
from tests.support import stunclient

GOLDEN = json.loads((Path(__file__).parent.parent / "vectors" / "derp.json").read_text())["stun"]
TXID = bytes(range(12))
REQUEST = bytes.fromhex(GOLDEN["request"])


def test_request_is_the_official_one() -> None:
    assert stunclient.encode_request(TXID) == REQUEST
    assert stun.decode_request(REQUEST) == TXID


@pytest.mark.parametrize(
    ("name", "address", "port", "size"),
    [
        ("response_v4", IPv4Address("1.2.3.4"), 5678, 32),
        ("response_v6", IPv6Address("2001:db8::7"), 41641, 44),
    ],
)
def test_answer_is_the_official_one(name: str, address: Any, port: int, size: int) -> None:
    answer = stun.encode_response(TXID, address, port)
    assert answer.hex() == GOLDEN[name]
    assert len(answer) == size
    assert stunclient.decode_response(answer) == (TXID, address, port)


@given(
    st.binary(min_size=12, max_size=12),
    st.one_of(
        st.integers(0, 2**32 - 1).map(IPv4Address), st.integers(0, 2**128 - 1).map(IPv6Address)
    ),
    st.integers(0, 65535),
)
def test_requests_and_answers_round_trip(txid: bytes, address: Any, port: int) -> None:
    assert stun.decode_request(stunclient.encode_request(txid)) == txid
    assert stunclient.decode_response(stun.encode_response(txid, address, port)) == (
        txid,
        address,
        port,
    )


@pytest.mark.parametrize("size", range(len(REQUEST)))
def test_cut_requests_are_refused(size: int) -> None:
    with pytest.raises(ProtocolError):
        stun.decode_request(REQUEST[:size])


def test_any_flipped_bit_that_matters_is_refused() -> None:
    for at in range(len(REQUEST)):
        if at in (2, 3):
            continue  # the header's length is not looked at, but the fingerprint covers it
        damaged = bytearray(REQUEST)
        damaged[at] ^= 1
        with pytest.raises(ProtocolError):
            stun.decode_request(bytes(damaged))


def signed(*attributes: tuple[int, bytes]) -> bytes:
    """Build a request with these attributes and a right fingerprint behind them."""
    body = stun.BINDING_REQUEST + b"\x00\x00" + stun.COOKIE + TXID
    for kind, value in attributes:
        body += kind.to_bytes(2, "big") + len(value).to_bytes(2, "big") + value
        body += bytes(-len(value) % 4)
    return body + b"\x80\x28\x00\x04" + stun._fingerprint(body).to_bytes(4, "big")


def test_other_attributes_with_padding_are_tolerated() -> None:
    assert stun.decode_request(signed((0x8023, b"abc"), (0x8022, b"tailnode"))) == TXID


@pytest.mark.parametrize(
    "data",
    [
        signed(),
        signed((0x8022, b"tailnodes")),
        signed((0x8022, b"other")),
        signed((0x8022, b"tailnode")) + b"\x80\x23\x00\x00",
        signed((0x8022, b"tailnode")) + b"\x80",
        signed((0x8022, b"tailnode"))[:-8] + b"\x80\x28\x00\x03" + bytes(4),
        b"\xff" * 40,
        REQUEST + bytes(600),
        b"",
    ],
)
def test_strangers_are_refused(data: bytes) -> None:
    with pytest.raises(ProtocolError):
        stun.decode_request(data)


@pytest.mark.parametrize("cut", [0, 20, 31, 33])
def test_broken_answers_are_refused(cut: int) -> None:
    whole = stun.encode_response(TXID, IPv4Address("1.2.3.4"), 1) + b"\0"
    with pytest.raises(ProtocolError):
        stunclient.decode_response(whole[:cut])
