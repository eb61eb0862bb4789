"""Which tailnet addresses a node gets: sequential or random, never a reserved one, never twice.

Not for routes, and not for writing addresses down (``enrolment`` and ``nodes`` put the record).
Sits on ``snapshot``. Each family is chosen on its own.
Source: tailscale net/tsaddr (service addresses, ChromeOS, 4via6), its page on reserved addresses.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
    collapse_addresses,
)
from typing import Protocol, TypeVar

from appliance.errors import TooMany
from appliance.policy.engine import nodeattrs
from appliance.records import Address, Network, Node, NodeID
from appliance.tailnet import policies
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot

RESERVED: tuple[Network, ...] = (
    IPv4Network("100.100.0.0/24"),  # kept for services of the clients
    IPv4Network("100.100.100.0/24"),  # MagicDNS answers at 100.100.100.100
    IPv4Network("100.115.92.0/23"),  # ChromeOS numbers its containers from here
    IPv6Network("fd7a:115c:a1e0::53/128"),  # MagicDNS over IPv6
    IPv6Network("fd7a:115c:a1e0:b1a::/64"),  # 4via6 subnet routes
)

RANDOM_TRIES = 32
"""Random choices before walking on from the last one: a pool must be nearly full to need more."""

MAX_POOLS_TOLD = 8
"""Pools named in a refusal."""

IP = TypeVar("IP", IPv4Address, IPv6Address)


class Rng(Protocol):
    """What a random choice needs; ``random.Random`` and ``random.SystemRandom`` have it."""

    def randrange(self, start: int, stop: int, /) -> int:
        """Return a number from ``start`` to ``stop - 1``."""


@dataclass(frozen=True, slots=True)
class Pool:
    """The addresses of a prefix that nodes may have, as numbers; both ends are included."""

    first: int
    last: int
    holes: tuple[tuple[int, int], ...]

    size: int
    """How many addresses there are to give."""

    def skip(self, number: int) -> int:
        """Return ``number``, or the first one behind the hole that it lies in."""
        for begin, end in self.holes:
            if begin <= number <= end:
                return end + 1
        return number


@lru_cache(maxsize=64)
def pool(prefix: Network, kept: tuple[IPv4Network, ...] = ()) -> Pool:
    """Work out what a prefix has to give.

    Without its own address and, for IPv4, the broadcast address (a prefix of one or two addresses
    has neither), and without what is reserved, or ``kept`` for others.
    """
    first, last = int(prefix.network_address), int(prefix.broadcast_address)
    if last - first >= 2:
        first += 1
        last -= 1 if prefix.version == 4 else 0
    holes = []
    for reserved in (*RESERVED, *collapse_addresses(kept)):
        begin = max(first, int(reserved.network_address))
        end = min(last, int(reserved.broadcast_address))
        if reserved.version == prefix.version and begin <= end:
            holes.append((begin, end))
    size = last - first + 1 - sum(end - begin + 1 for begin, end in holes)
    return Pool(first, last, tuple(sorted(holes)), size)


def assign(edit: Edit, node: Node, rng: Rng) -> Node:
    """Give the node an address of each family that the tailnet has and the node lacks.

    A policy may name pools for the node's owner or tags: then its IPv4 address comes from there.
    Others' pools are touched only when nothing else is left. The record comes back changed, not
    yet put. Raises TooMany if a prefix, or all pools of the node, are used up.
    """
    settings = edit.settings
    ipv4, ipv6 = node.ipv4, node.ipv6
    if ipv4 is None and settings.prefix_v4 is not None:
        mine, others = _pools(edit, node)
        if mine:
            ipv4 = _from_pools(edit, mine, rng)
        else:
            ipv4 = _ipv4(edit, settings.prefix_v4, others, rng)
            edit.last_ipv4 = ipv4
    if ipv6 is None and settings.prefix_v6 is not None:
        ipv6 = _choose(edit, settings.prefix_v6, IPv6Address, edit.last_ipv6, rng)
        if ipv6 is None:
            raise _used_up(settings.prefix_v6)
        edit.last_ipv6 = ipv6
    if ipv4 is node.ipv4 and ipv6 is node.ipv6:
        return node
    return replace(node, ipv4=ipv4, ipv6=ipv6)


@dataclass(frozen=True, slots=True)
class Readdressed:
    """A node as it is after a backfill, and the addresses that it got and lost, IPv4 first."""

    node: Node
    added: tuple[Address, ...]
    removed: tuple[Address, ...]


def plan_backfill(snapshot: Snapshot, rng: Rng) -> list[Readdressed]:
    """Return what ``backfill`` would do now. Raises TooMany, as it would.

    Random addresses are chosen anew when it is done.
    """
    return backfill(Edit(snapshot, Sequences()), rng)


def backfill(edit: Edit, rng: Rng) -> list[Readdressed]:
    """Make every node's addresses those of today's prefixes; return the nodes that changed, by id.

    An address goes if its family has no prefix any more, or if it lies in neither the prefix nor a
    pool of the policy; then the node gets one of each family that it lacks. Raises TooMany, which
    throws everything away.
    """
    before = sorted(edit.nodes.values(), key=lambda node: node.id)
    pools = [
        pool
        for entry in edit.policy.attributes
        for pool in entry.pools
        if isinstance(pool, IPv4Network)
    ]
    for node in before:
        ipv4 = node.ipv4 if _belongs(node.ipv4, edit.settings.prefix_v4, pools) else None
        ipv6 = node.ipv6 if _belongs(node.ipv6, edit.settings.prefix_v6, ()) else None
        if ipv4 is not node.ipv4 or ipv6 is not node.ipv6:
            edit.put(replace(node, ipv4=ipv4, ipv6=ipv6))
    changed = []
    for old in before:
        node = assign(edit, edit.nodes[old.id], rng)
        if node.addresses == old.addresses:
            continue
        edit.put(node)
        added = tuple(each for each in node.addresses if each not in old.addresses)
        removed = tuple(each for each in old.addresses if each not in node.addresses)
        changed.append(Readdressed(node, added, removed))
    return changed


def _belongs(address: Address | None, prefix: Network | None, pools: Sequence[IPv4Network]) -> bool:
    """Return whether an address may stay; without a prefix its family is off."""
    if address is None or prefix is None:
        return False
    return address in prefix or any(address in pool for pool in pools)


def _pools(edit: Edit, node: Node) -> tuple[tuple[IPv4Network, ...], tuple[IPv4Network, ...]]:
    """Return the pools of the policy in force that are for this node, and all others."""
    if not any(entry.pools for entry in edit.policy.attributes):
        return (), ()
    return nodeattrs.address_pools(edit.policy, policies.background(edit), edit.users, node)


def _from_pools(edit: Edit, mine: tuple[IPv4Network, ...], rng: Rng) -> IPv4Address:
    used = edit.by_address
    for each in mine:
        candidates = pool(each)
        if _is_used_up(edit, each, candidates):
            continue
        if edit.settings.random_addresses:
            start = _random_start(used, candidates, IPv4Address, rng)
        else:
            start = _behind_taken(used, candidates)
        found = _walk(used, candidates, IPv4Address, start)
        if found is not None:
            return found
    listed = ", ".join(str(each) for each in mine[:MAX_POOLS_TOLD])
    raise TooMany(
        "address-pool-used-up",
        f"no address is left in the pool that the policy names for this node ({listed}): delete "
        "nodes that are gone, or give its ipPool more room",
        concerns=listed,
    )


def _ipv4(
    edit: Edit, prefix: IPv4Network, others: tuple[IPv4Network, ...], rng: Rng
) -> IPv4Address:
    """Choose outside of others' pools, or anywhere when there is nothing else."""
    for kept in (others, ()) if others else ((),):
        found = _choose(edit, prefix, IPv4Address, edit.last_ipv4, rng, kept)
        if found is not None:
            return found
    raise _used_up(prefix)


def _used_up(prefix: Network) -> TooMany:
    return TooMany(
        "addresses-used-up",
        f"no address is left in {prefix}: delete nodes that are gone or configure a larger prefix",
        concerns=str(prefix),
    )


def _choose(
    edit: Edit,
    prefix: Network,
    family: type[IP],
    last: IP | None,
    rng: Rng,
    kept: tuple[IPv4Network, ...] = (),
) -> IP | None:
    """Choose a free address of a prefix, behind ``last`` or by chance; None if it is used up."""
    candidates = pool(prefix, kept)
    used = edit.by_address
    if _is_used_up(edit, prefix, candidates):
        return None
    if edit.settings.random_addresses:
        start = _random_start(used, candidates, family, rng)
    else:
        if last is None or last not in prefix or candidates.skip(int(last)) != int(last):
            # Once after a start or a change of the prefix; then the draft remembers.
            highest = max(_given(used, prefix, candidates), default=None)
            last = None if highest is None else family(highest)
        start = candidates.first if last is None else int(last) + 1
    return _walk(used, candidates, family, start)


def _behind_taken(used: Mapping[Address, NodeID], candidates: Pool) -> int:
    """Find a free number behind taken ones in logarithmic time; nobody remembers a pool's last one.

    Gaps are where nodes have gone: then it may be one of these.
    """
    end = candidates.last - candidates.first + 1
    taken, free = -1, 0
    while free < end and IPv4Address(candidates.skip(candidates.first + free)) in used:
        taken, free = free, 2 * free + 1
    free = min(free, end)
    while free - taken > 1:
        middle = (taken + free) // 2
        if IPv4Address(candidates.skip(candidates.first + middle)) in used:
            taken = middle
        else:
            free = middle
    return candidates.first + free


def _given(used: Mapping[Address, NodeID], prefix: Network, candidates: Pool) -> Iterator[int]:
    """List the numbers of a pool that nodes have."""
    low, high, version = int(prefix.network_address), int(prefix.broadcast_address), prefix.version
    for address in used:
        number = int(address)
        if (
            low <= number <= high
            and address.version == version
            and candidates.skip(number) == number
        ):
            yield number


def _is_used_up(edit: Edit, prefix: Network, candidates: Pool) -> bool:
    # The count is only worth its time when there are enough nodes to fill the pool.
    if len(edit.nodes) < candidates.size:
        return False
    return sum(1 for _ in _given(edit.by_address, prefix, candidates)) >= candidates.size


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
