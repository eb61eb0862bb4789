"""Ports and protocols as policies write them.

Not for rules (``flows`` joins ports with addresses). Sits on nothing of ours.
Source: tailscale 1.102 tailcfg/proto_port_range.go; IANA protocol numbers; the recorded error
answers, and the words
that clients use for the same mistakes.
"""

from __future__ import annotations

import re
from typing import NamedTuple

MAX_PORT = 65535
MAX_SHOWN = 64
"""Characters of a word that an error repeats."""

PROTOCOLS: dict[str, int] = {
    "icmp": 1,
    "icmpv4": 1,
    "igmp": 2,
    "ipv4": 4,
    "ip-in-ip": 4,
    "tcp": 6,
    "egp": 8,
    "igp": 9,
    "udp": 17,
    "dccp": 33,
    "gre": 47,
    "esp": 50,
    "ah": 51,
    "ipv6-icmp": 58,
    "icmpv6": 58,
    "ospf": 89,
    "tsmp": 99,
    "sctp": 132,
    "fc": 133,
}
WITH_PORTS = frozenset({6, 17, 132})
"""TCP, UDP, SCTP: for all others a rule must name all ports."""
DEFAULT_PROTOCOLS = frozenset({1, 6, 17, 58})
"""What a rule without protocols lets through."""


class Ports(NamedTuple):
    """The ports from ``first`` to ``last``, both included."""

    first: int
    last: int


ALL_PORTS = Ports(0, MAX_PORT)


class PortError(ValueError):
    """Text that is no port, port list or protocol; the message says why."""


def parse_ports(text: str) -> tuple[Ports, ...]:
    """Read ``*``, a port, a range ``80-90`` or a list of those. Raises PortError."""
    if text == "*":
        return (ALL_PORTS,)
    if not text:
        raise PortError('invalid port list: ""')
    return tuple(_range(part.strip()) for part in text.split(","))


def _range(text: str) -> Ports:
    begin = f'port range "{text[:MAX_SHOWN]}": '
    if text.count("-") > 1:
        raise PortError(f"{begin}too many dashes(-)")
    left, dash, right = text.partition("-")
    first = _port(left, f"{begin}invalid first integer")
    last = _port(right, f"{begin}invalid last integer") if dash else first
    if first < 1:
        raise PortError(f"{begin}first port must be >0, or use '*' for wildcard")
    if first > last:
        # Their words, which say the opposite of what is meant.
        raise PortError(f"{begin}first port must be >= last port: write {last}-{first}")
    return Ports(first, last)


def _port(text: str, problem: str) -> int:
    if not re.fullmatch("[0-9]{1,9}", text.strip()):
        raise PortError(problem)
    port = int(text)
    if port > MAX_PORT:
        raise PortError(f"{problem}, which is at most {MAX_PORT}")
    return port


def parse_protocol(text: str) -> tuple[int, ...]:
    """Read a protocol's name or number; empty gives (), the default. Raises PortError."""
    name = text.strip().lower()
    if not name:
        return ()
    if name in PROTOCOLS:
        return (PROTOCOLS[name],)
    if not name.isascii() or not name.isdigit():
        raise PortError(_unknown(text))
    if name.startswith("0"):
        raise PortError(f'leading 0 not permitted in protocol number: "{text}"')
    if len(name) > 3 or int(name) > 255:
        raise PortError(f"{_unknown(text)}: protocol number out of range (0-255): {text}")
    return (int(name),)


def _unknown(text: str) -> str:
    return (
        f'proto name "{text}" not known; use protocol number 0-255 or protocol name '
        "(icmp, tcp, udp, etc.)"
    )
