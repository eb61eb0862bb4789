"""STUN: the binding request of a node and its answer, nothing else of the protocol.

Tells a node the address that the world sees. Answers only requests that carry the node's mark and
a right checksum, so that the server is no reflector for strangers. Sits beside the other codecs.
Source: RFC 8489 sections 5, 14.2, 14.7; tailscale v1.104.5 net/stun/stun.go.
"""

from __future__ import annotations

import binascii
import struct
from ipaddress import IPv4Address, IPv6Address

from appliance.wire.errors import ProtocolError

# -- of the protocol --

COOKIE = b"\x21\x12\xa4\x42"
TXID_BYTES = 12
HEADER_BYTES = 20
BINDING_REQUEST = b"\x00\x01"
BINDING_SUCCESS = b"\x01\x01"
SOFTWARE = b"tailnode"

_ATTR_XOR_MAPPED = 0x0020
_ATTR_SOFTWARE = 0x8022
_ATTR_FINGERPRINT = 0x8028
_FINGERPRINT_BYTES = 8
_FINGERPRINT_XOR = 0x5354554E
_FAMILY_V4, _FAMILY_V6 = 1, 2
_PORT_XOR = 0x2112

_ATTR = struct.Struct(">HH")
_U32 = struct.Struct(">I")
_MAPPED = struct.Struct(">HHBBH")

# -- our own limits --

MAX_REQUEST_BYTES = 512
"""Nodes send 40 bytes; nothing that fits the rules needs more."""


def decode_request(data: bytes) -> bytes:
    """Give the transaction id of a proper request of a node.

    Raises ProtocolError unless type and cookie are right, the attributes fill the datagram with
    4-byte padding, one of them is exactly SOFTWARE ``tailnode`` and the last one is a right
    FINGERPRINT. The header's length is not looked at. Source: stun.go ParseBindingRequest.
    """
    if not HEADER_BYTES <= len(data) <= MAX_REQUEST_BYTES:
        raise ProtocolError(f"stun: {len(data)} bytes")
    if data[:2] != BINDING_REQUEST or data[4:8] != COOKIE:
        raise ProtocolError("stun: not a binding request")
    marked = False
    last = 0
    at = HEADER_BYTES
    while at < len(data):
        if len(data) - at < _ATTR.size:
            raise ProtocolError("stun: an attribute without its head")
        last, size = _ATTR.unpack_from(data, at)
        value_at = at + _ATTR.size
        at = value_at + (size + 3 & ~3)
        if at > len(data):
            raise ProtocolError("stun: an attribute beyond the end")
        if last == _ATTR_SOFTWARE and data[value_at : value_at + size] == SOFTWARE:
            marked = True
    if not marked:
        raise ProtocolError("stun: not from a node")
    end = len(data) - _FINGERPRINT_BYTES
    if last != _ATTR_FINGERPRINT or data[end : end + 4] != _ATTR.pack(_ATTR_FINGERPRINT, 4):
        raise ProtocolError("stun: the last attribute is no fingerprint")
    if _U32.unpack_from(data, end + 4)[0] != _fingerprint(data[:end]):
        raise ProtocolError("stun: the fingerprint is wrong")
    return data[8:HEADER_BYTES]


def encode_response(txid: bytes, address: IPv4Address | IPv6Address, port: int) -> bytes:
    """Encode the answer with XOR-MAPPED-ADDRESS alone: 32 bytes for IPv4, 44 for IPv6.

    The address is exclusive-or with cookie and transaction id, the port with 0x2112.
    Source: stun.go Response, RFC 8489 section 14.2.
    """
    packed = address.packed
    mask = (COOKIE + txid)[: len(packed)]
    mixed = int.from_bytes(packed, "big") ^ int.from_bytes(mask, "big")
    family = _FAMILY_V4 if address.version == 4 else _FAMILY_V6
    size = 4 + len(packed)
    return b"".join(
        (
            BINDING_SUCCESS,
            (_ATTR.size + size).to_bytes(2, "big"),
            COOKIE,
            txid,
            _MAPPED.pack(_ATTR_XOR_MAPPED, size, 0, family, port ^ _PORT_XOR),
            mixed.to_bytes(len(packed), "big"),
        )
    )


def _fingerprint(data: bytes) -> int:
    return binascii.crc32(data) ^ _FINGERPRINT_XOR
