"""Who is really there: the PROXY protocol and ``X-Forwarded-For``, believed from trusted hops only.

Pure functions; not for deciding what to trust (the settings do) and not for reading sockets.
Source: haproxy doc/proxy-protocol.txt sections 2.1, 2.2; RFC 7239 section 7 for the trust model.
"""

from __future__ import annotations

import struct
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
)

from appliance.wire.errors import ProtocolError

Networks = Sequence[IPv4Network | IPv6Network]

# What the protocol says.
V1_MAGIC = b"PROXY "
V1_MAX_BYTES = 107
V2_MAGIC = b"\r\n\r\n\x00\r\nQUIT\n"
_V2_HEAD = struct.Struct(">12sBBH")
_V2_TCP4 = struct.Struct(">4s4sHH")
_V2_TCP6 = struct.Struct(">16s16sHH")
LOCAL, PROXY = 0x20, 0x21
TCP4, TCP6 = 0x11, 0x21

# Ours.
MAX_V2_BYTES = 2_048
"""Addresses and the type-length-values that load balancers add take some hundred bytes."""
MAX_HOPS = 32
"""Forwarded addresses that are looked at; nobody chains more proxies."""


@dataclass(frozen=True, slots=True)
class Preamble:
    """A PROXY header: how long it was, and the client's address (None: the proxy itself asks)."""

    size: int
    peer: tuple[str, int] | None


def networks(texts: Iterable[str]) -> Networks:
    """Read the settings' list of trusted addresses and networks. Raises ValueError."""
    return tuple(ip_network(text, strict=False) for text in texts)


def is_trusted(host: str, trusted: Networks) -> bool:
    """Tell whether this textual address is in one of the networks."""
    if not trusted:
        return False
    try:
        address = _address(host)
    except ValueError:
        return False
    return any(address in network for network in trusted)


def client_address(peer: str, forwarded_for: Iterable[str], trusted: Networks) -> str:
    """Give the right-most hop that is not a trusted proxy, beginning with the peer itself.

    ``forwarded_for`` are the values of all ``X-Forwarded-For`` fields in order. A hop that is not
    an address ends the walk: what stands left of it was written by somebody we do not know.
    """
    if not is_trusted(peer, trusted):
        return peer
    hops = [hop.strip() for value in forwarded_for for hop in value.split(",")]
    client = peer
    for hop in reversed(hops[-MAX_HOPS:]):
        try:
            client = str(_address(_without_port(hop)))
        except ValueError:
            return client
        if not is_trusted(client, trusted):
            return client
    return client


def forwarded_scheme(peer: str, value: str | None, trusted: Networks, otherwise: str) -> str:
    """Give ``http`` or ``https`` as a trusted proxy saw it."""
    if value is None or not is_trusted(peer, trusted):
        return otherwise
    last = value.rpartition(",")[2].strip().lower()
    return last if last in ("http", "https") else otherwise


def decode_preamble(data: bytes | memoryview) -> Preamble | None:
    """Read a PROXY header of version 1 or 2 from the first bytes; None while it is incomplete.

    Raises ProtocolError if the bytes cannot become one: a connection that should carry it and
    does not must be closed, never taken as direct. Source: proxy-protocol.txt section 2.
    """
    head = bytes(data[:MAX_V2_BYTES])
    if head.startswith(V2_MAGIC):
        return _decode_v2(head)
    if head.startswith(V1_MAGIC):
        return _decode_v1(head)
    if V1_MAGIC.startswith(head) or V2_MAGIC.startswith(head):
        return None
    raise ProtocolError("proxy header: neither version 1 nor 2")


def _decode_v1(data: bytes) -> Preamble | None:
    end = data.find(b"\r\n", 0, V1_MAX_BYTES)
    if end < 0:
        if len(data) >= V1_MAX_BYTES or b"\n" in data:
            raise ProtocolError("proxy header: version 1 without its end")
        return None
    words = data[:end].decode("latin-1").split(" ")
    if words[1] == "UNKNOWN":
        return Preamble(end + 2, None)
    if len(words) != 6 or words[1] not in ("TCP4", "TCP6"):
        raise ProtocolError("proxy header: version 1 is malformed")
    port = words[4]
    if not (port.isascii() and port.isdigit() and len(port) <= 5 and int(port) <= 0xFFFF):
        raise ProtocolError("proxy header: version 1 with a wrong port")
    try:
        source = ip_address(words[2])
    except ValueError as error:
        raise ProtocolError("proxy header: version 1 with a wrong address") from error
    if source.version != (4 if words[1] == "TCP4" else 6):
        raise ProtocolError("proxy header: version 1 with an address of the other family")
    return Preamble(end + 2, (str(source), int(port)))


def _decode_v2(data: bytes) -> Preamble | None:
    if len(data) < _V2_HEAD.size:
        return None
    _, command, family, length = _V2_HEAD.unpack_from(data)
    size = _V2_HEAD.size + length
    if size > MAX_V2_BYTES:
        raise ProtocolError(f"proxy header: version 2 of {size} bytes")
    if len(data) < size:
        return None
    if command == LOCAL:
        return Preamble(size, None)
    if command != PROXY:
        raise ProtocolError("proxy header: version 2 with an unknown command")
    form = {TCP4: _V2_TCP4, TCP6: _V2_TCP6}.get(family)
    if form is None:
        return Preamble(size, None)
    if length < form.size:
        raise ProtocolError("proxy header: version 2 is too short for its addresses")
    source, _, port, _ = form.unpack_from(data, _V2_HEAD.size)
    return Preamble(size, (str(ip_address(source)), port))


def _address(text: str) -> IPv4Address | IPv6Address:
    address = ip_address(text.partition("%")[0])
    mapped = getattr(address, "ipv4_mapped", None)
    return mapped or address


def _without_port(hop: str) -> str:
    """Strip what some proxies add: ``1.2.3.4:5``, ``[::1]:5``, quotes."""
    hop = hop.strip('"')
    if hop.startswith("["):
        return hop[1:].partition("]")[0]
    return hop.partition(":")[0] if hop.count(":") == 1 else hop
