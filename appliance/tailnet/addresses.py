"""Which tailnet addresses a node gets: sequential or random, never a reserved one, never twice.

Not for routes, and not for writing addresses down (``registration`` and ``nodes`` put the record).
Sits on ``snapshot``. Each family is chosen on its own.
Source: tailscale net/tsaddr (service addresses, ChromeOS, 4via6), its page on reserved addresses.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import IPv4Address, IPv4Network, IPv6Address, IPv6Network
from typing import Protocol, TypeVar

from appliance.errors import TooMany
from appliance.records import Address, Network, Node, NodeID
from appliance.tailnet.snapshot import Edit

RESERVED: tuple[Network, ...] = (
    IPv4Network("100.100.0.0/24"),  # kept for services of the clients
    IPv4Network("100.100.100.0/24"),  # MagicDNS answers at 100.100.100.100
    IPv4Network("100.115.92.0/23"),  # ChromeOS numbers its containers from here
    IPv6Network("fd7a:115c:a1e0::53/128"),  # MagicDNS over IPv6
    IPv6Network("fd7a:115c:a1e0:b1a::/64"),  # 4via6 subnet routes
)

RANDOM_TRIES = 32
"""Random choices before walking on from the last one: a pool must be nearly full to need more."""

IP = TypeVar("IP", IPv4Address, IPv6Address)


class Rng(Protocol):
    """What a random choice needs; ``random.Random`` and ``random.SystemRandom`` have it."""

    def randrange(self, start: int, stop: int, /) -> int:
        """Give a number from ``start`` to ``stop - 1``."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The addresses of a prefix that nodes may have, as numbers; both ends are included."""

    first: int
    last: int
    holes: tuple[tuple[int, int], ...]

    @property
    def size(self) -> int:
        """How many addresses there are to give."""
        return self.last - self.first + 1 - sum(end - begin + 1 for begin, end in self.holes)

    def skip(self, number: int) -> int:
        """Give ``number``, or the first one behind the hole that it lies in."""
        for begin, end in self.holes:
            if begin <= number <= end:
                return end + 1
        return number


@lru_cache(maxsize=64)
def pool(prefix: Network) -> Pool:
    """Work out what a prefix has to give.

    Without its own address and, for IPv4, the broadcast address (a prefix of one or two addresses
    has neither), and without what is reserved.
    """
    first, last = int(prefix.network_address), int(prefix.broadcast_address)
    if last - first >= 2:
        first += 1
        last -= 1 if prefix.version == 4 else 0
    holes = []
    for reserved in RESERVED:
        begin = max(first, int(reserved.network_address))
        end = min(last, int(reserved.broadcast_address))
        if reserved.version == prefix.version and begin <= end:
            holes.append((begin, end))
    return Pool(first, last, tuple(sorted(holes)))


def assign(edit: Edit, node: Node, rng: Rng) -> Node:
    """Give the node an address of each family that the tailnet has and the node lacks.

    The record comes back changed, not yet put. Raises TooMany if a prefix is used up.
    """
    settings = edit.settings
    ipv4, ipv6 = node.ipv4, node.ipv6
    if ipv4 is None and settings.prefix_v4 is not None:
        ipv4 = _choose(edit, settings.prefix_v4, IPv4Address, edit.last_ipv4, rng)
        edit.last_ipv4 = ipv4
    if ipv6 is None and settings.prefix_v6 is not None:
        ipv6 = _choose(edit, settings.prefix_v6, IPv6Address, edit.last_ipv6, rng)
        edit.last_ipv6 = ipv6
    if ipv4 is node.ipv4 and ipv6 is node.ipv6:
        return node
    return replace(node, ipv4=ipv4, ipv6=ipv6)


def _choose(edit: Edit, prefix: Network, family: type[IP], last: IP | None, rng: Rng) -> IP:
    candidates = pool(prefix)
    used = edit.by_address
    found = None
    if not _is_used_up(edit, prefix, candidates):
        if edit.settings.random_addresses:
            start = _random_start(used, candidates, family, rng)
        else:
            if last is None or last not in prefix:
                # Once after a start or a change of the prefix; then the draft remembers.
                last = max((a for a in used if type(a) is family and a in prefix), default=None)
            start = candidates.first if last is None else int(last) + 1
        found = _walk(used, candidates, family, start)
    if found is None:
        raise TooMany(
            "addresses-used-up",
            f"no address is left in {prefix}: delete nodes that are gone or configure a larger "
            "prefix",
            concerns=str(prefix),
        )
    return found


def _is_used_up(edit: Edit, prefix: Network, candidates: Pool) -> bool:
    # The count is only worth its time when there are enough nodes to fill the pool.
    if len(edit.nodes) < candidates.size:
        return False
    used = sum(a.version == prefix.version and a in prefix for a in edit.by_address)
    return used >= candidates.size


def _random_start(
    used: Mapping[Address, NodeID], candidates: Pool, family: type[IP], rng: Rng
) -> int:
    start = candidates.first
    for _ in range(RANDOM_TRIES):
        start = rng.randrange(candidates.first, candidates.last + 1)
        if candidates.skip(start) == start and family(start) not in used:
            break
    return start


def _walk(
    used: Mapping[Address, NodeID], candidates: Pool, family: type[IP], start: int
) -> IP | None:
    """Find the first free address from ``start`` upwards, then from the beginning up to there."""
    for begin, end in ((start, candidates.last), (candidates.first, start - 1)):
        number = candidates.skip(begin)
        while number <= end:
            address = family(number)
            if address not in used:
                return address
            number = candidates.skip(number + 1)
    return None
