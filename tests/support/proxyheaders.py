"""PROXY headers as a load balancer sends them, for tests of ``front.proxy``.

Source: haproxy doc/proxy-protocol.txt sections 2.1, 2.2.
"""

from __future__ import annotations

import struct
from ipaddress import ip_address

from appliance.front.proxy import PROXY, TCP4, TCP6, V2_MAGIC

_V2_HEAD = struct.Struct(">12sBBH")
_V2_TCP4 = struct.Struct(">4s4sHH")
_V2_TCP6 = struct.Struct(">16s16sHH")


def encode_v1(peer: tuple[str, int], local: tuple[str, int]) -> bytes:
    """Encode version 1: ``PROXY TCP4 source destination sport dport`` CR LF (or TCP6)."""
    family = "TCP6" if ":" in peer[0] else "TCP4"
    return f"PROXY {family} {peer[0]} {local[0]} {peer[1]} {local[1]}\r\n".encode("ascii")


def encode_v2(peer: tuple[str, int], local: tuple[str, int]) -> bytes:
    """Encode version 2: 12 bytes magic, 0x21, family, u16 length, addresses, ports."""
    source, target = ip_address(peer[0]), ip_address(local[0])
    four = source.version == 4
    body = (_V2_TCP4 if four else _V2_TCP6).pack(source.packed, target.packed, peer[1], local[1])
    return _V2_HEAD.pack(V2_MAGIC, PROXY, TCP4 if four else TCP6, len(body)) + body
