"""The node's side of STUN: its binding request, and the answer read, for clients in tests.

Beside ``wire.stun``, which is the server's side. Source: tailscale v1.104.5 net/stun/stun.go.
"""

from __future__ import annotations

import binascii
import struct
from ipaddress import IPv4Address, IPv6Address

from appliance.wire.errors import ProtocolError
from appliance.wire.stun import (
    BINDING_REQUEST,
    BINDING_SUCCESS,
    COOKIE,
    HEADER_BYTES,
    SOFTWARE,
)

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


def encode_request(txid: bytes) -> bytes:
    """Encode a node's binding request, 40 bytes: type, length, cookie, transaction id (12),
    SOFTWARE ``tailnode``, FINGERPRINT (CRC-32 of all before it, exclusive-or ``STUN``).

    Source: stun.go Request.
    """
    size = _ATTR.size + len(SOFTWARE) + _FINGERPRINT_BYTES
    body = b"".join(
        (
            BINDING_REQUEST,
            size.to_bytes(2, "big"),
            COOKIE,
            txid,
            _ATTR.pack(_ATTR_SOFTWARE, len(SOFTWARE)),
            SOFTWARE,
        )
    )
    return body + _ATTR.pack(_ATTR_FINGERPRINT, 4) + _U32.pack(_fingerprint(body))


def decode_response(data: bytes) -> tuple[bytes, IPv4Address | IPv6Address, int]:
    """Give transaction id, address and port of an answer as ours are. Raises ProtocolError.

    Source: stun.go ParseResponse.
    """
    if len(data) not in (32, 44) or data[:2] != BINDING_SUCCESS or data[4:8] != COOKIE:
        raise ProtocolError("stun: not a binding answer")
    txid = data[8:HEADER_BYTES]
    kind, size, _, family, port = _MAPPED.unpack_from(data, HEADER_BYTES)
    mixed = data[HEADER_BYTES + _MAPPED.size :]
    if kind != _ATTR_XOR_MAPPED or size != 4 + len(mixed):
        raise ProtocolError("stun: the answer has no mapped address")
    if family != (_FAMILY_V4 if len(mixed) == 4 else _FAMILY_V6):
        raise ProtocolError("stun: the address does not fit its family")
    mask = (COOKIE + txid)[: len(mixed)]
    number = int.from_bytes(mixed, "big") ^ int.from_bytes(mask, "big")
    address = IPv4Address(number) if len(mixed) == 4 else IPv6Address(number)
    return txid, address, port ^ _PORT_XOR


def _fingerprint(data: bytes) -> int:
    return binascii.crc32(data) ^ _FINGERPRINT_XOR
