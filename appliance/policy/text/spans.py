"""Runs of addresses: what hosts, prefixes, IP sets and the words for "everywhere" stand for.

Not for who owns an address (``matches``). A span is one unbroken run of one family; sets of them
are sorted tuples without overlap where a function says so. Sits on nothing of ours.
Source: tailscale 1.102 wgengine/filter/tailcfg.go (forms that clients read); the recorded answers of
the hosted service for what ``*`` and ``autogroup:internet`` are spelled as.
"""

from __future__ import annotations

import re
from bisect import bisect_right
from collections.abc import Iterable, Sequence
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    ip_address,
    ip_network,
    summarize_address_range,
)
from typing import NamedTuple

from appliance.records import Address, Network

_MAX = {4: (1 << 32) - 1, 6: (1 << 128) - 1}


class Span(NamedTuple):
    """The addresses from ``low`` to ``high``, both included, of family 4 or 6."""

    family: int
    low: int
    high: int

    @property
    def text(self) -> str:
        """Spell it as clients read it: an address, a prefix where one fits, else a range."""
        low, high = _address(self.family, self.low), _address(self.family, self.high)
        if low == high:
            return str(low)
        size = self.high - self.low + 1
        if size & (size - 1) == 0 and self.low % size == 0:
            bits = (32 if self.family == 4 else 128) - size.bit_length() + 1
            return f"{low}/{bits}"
        return f"{low}-{high}"

    def holds(self, address: Address) -> bool:
        """Return whether the address lies in it."""
        return self.family == address.version and self.low <= int(address) <= self.high

    def meets(self, other: Span) -> bool:
        """Return whether the two share an address."""
        return self.family == other.family and self.low <= other.high and other.low <= self.high

    def networks(self) -> list[Network]:
        """Cut it into prefixes."""
        low, high = _address(self.family, self.low), _address(self.family, self.high)
        return list(summarize_address_range(low, high))


def _address(family: int, number: int) -> Address:
    return IPv4Address(number) if family == 4 else IPv6Address(number)


def of_address(address: Address) -> Span:
    """Return the span of one address."""
    return Span(address.version, int(address), int(address))


def of_network(network: Network) -> Span:
    """Return the span of a prefix."""
    return Span(network.version, int(network.network_address), int(network.broadcast_address))


# As the standard library reads them, which takes ten times as long: a policy may name thousands.
_PLAIN_IPV4 = re.compile(
    r"(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})\.(0|[1-9][0-9]{0,2})"
    r"(?:/(0|[1-9][0-9]?))?"
)
_PLAIN_IPV6 = re.compile(r"([0-9a-fA-F:]{2,39})(?:/(0|[1-9][0-9]{0,2}))?")


def parse(text: str) -> Span | None:
    """Read an address, a prefix (host bits are dropped) or a range ``low-high``; None if neither."""
    plain = _PLAIN_IPV4.fullmatch(text)
    if plain is not None:
        return _ipv4(*plain.groups("32"))
    plain = _PLAIN_IPV6.fullmatch(text)
    span = None if plain is None else _ipv6(*plain.groups("128"))
    return _parse_any(text) if span is None else span


def _ipv6(address: str, bits: str) -> Span | None:
    """Read the usual forms; None for what may be no address after all."""
    head, gap, tail = address.partition("::")
    left, right = head.split(":") if head else [], tail.split(":") if tail else []
    missing = 8 - len(left) - len(right)
    if (missing < 1 if gap else missing) or int(bits) > 128:
        return None
    parts = [*left, *("0" * missing), *right]
    if not all(1 <= len(part) <= 4 for part in parts):
        return None
    low = int("".join(part.zfill(4) for part in parts), 16)
    hosts = (1 << 128 - int(bits)) - 1
    return Span(6, low & ~hosts, low | hosts)


def _ipv4(*parts: str) -> Span | None:
    *octets, bits = map(int, parts)
    if max(octets) > 255 or bits > 32:
        return None
    low, hosts = int.from_bytes(octets), (1 << 32 - bits) - 1
    return Span(4, low & ~hosts, low | hosts)


def _parse_any(text: str) -> Span | None:
    try:
        if "-" in text:
            low, high = (ip_address(part.strip()) for part in text.split("-", 1))
            if low.version != high.version or int(low) > int(high):
                return None
            return Span(low.version, int(low), int(high))
        if "/" in text:
            return of_network(ip_network(text, strict=False))
        return of_address(ip_address(text))
    except ValueError:
        return None


def union(spans: Iterable[Span]) -> tuple[Span, ...]:
    """Return the same addresses as sorted spans that neither overlap nor touch."""
    merged: list[Span] = []
    for span in sorted(spans):
        last = merged[-1] if merged else None
        if last and last.family == span.family and span.low <= last.high + 1:
            merged[-1] = Span(span.family, last.low, max(last.high, span.high))
        else:
            merged.append(span)
    return tuple(merged)


def among(spans: Sequence[Span], address: Address) -> bool:
    """Return whether an address lies in one of spans that ``union`` gave."""
    number = int(address)
    at = bisect_right(spans, (address.version, number, _MAX[6])) - 1
    return at >= 0 and spans[at].family == address.version and spans[at].high >= number


def subtract(spans: Iterable[Span], holes: Iterable[Span]) -> tuple[Span, ...]:
    """Return what is left of ``spans`` without ``holes``, sorted and without overlap."""
    left: list[Span] = []
    cuts = union(holes)
    at = 0
    for span in union(spans):
        low = span.low
        while at < len(cuts) and (cuts[at].family, cuts[at].high) < (span.family, low):
            at += 1
        here = at
        while here < len(cuts) and cuts[here].family == span.family and cuts[here].low <= span.high:
            if low < cuts[here].low:
                left.append(Span(span.family, low, cuts[here].low - 1))
            low = cuts[here].high + 1
            here += 1
        if low <= span.high:
            left.append(Span(span.family, low, span.high))
    return tuple(left)


# The tailnet as `*` spells it at the source side: CGNAT without the part that ChromeOS uses for
# itself, and the ULA prefix. Source: every recorded rule with the source `*`.
CGNAT = IPv4Network("100.64.0.0/10")
CHROME_OS = IPv4Network("100.115.92.0/23")
ULA = IPv6Network("fd7a:115c:a1e0::/48")
TAILNET: tuple[Span, ...] = subtract((of_network(CGNAT), of_network(ULA)), (of_network(CHROME_OS),))

# What an exit node is told of `autogroup:internet`: everything but private, link-local and tailnet
# addresses in IPv4, the global unicast block in IPv6. Source: the two recordings with approved
# exit nodes; multicast and loopback are in it there, so they are here.
INTERNET: tuple[Span, ...] = (
    *subtract(
        (Span(4, 0, _MAX[4]),),
        (
            of_network(ip_network(text))
            for text in (
                "10.0.0.0/8",
                "100.64.0.0/10",
                "169.254.0.0/16",
                "172.16.0.0/12",
                "192.168.0.0/16",
            )
        ),
    ),
    of_network(ip_network("2000::/3")),
)
INTERNET_TEXTS: tuple[str, ...] = (
    *(span.text for span in INTERNET[:-1]),
    # Recorded as a range although it is a prefix.
    "2000::-3fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff",
)
