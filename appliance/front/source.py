"""One source: which connections count as those of the same stranger.

An IPv4 address is a source, and so is a whole IPv6 /64, because one site holds all of it. This
machine itself is none: proxies and tools on it are not strangers. Not for who may be believed
(``proxy``). Every bound by source in the program asks here.
"""

from __future__ import annotations

from ipaddress import IPv6Address, ip_address
from typing import Generic, TypeVar

T = TypeVar("T")


def source_of(peer: tuple[str, int] | None) -> str | None:
    """Return what counts as one source; None for this machine itself, which is not bounded."""
    if peer is None:
        return None
    host = peer[0]
    if ":" not in host:
        return None if host.startswith("127.") else host
    try:
        address = ip_address(host.partition("%")[0])
    except ValueError:
        return host
    if isinstance(address, IPv6Address) and address.ipv4_mapped is not None:
        return None if address.ipv4_mapped.is_loopback else str(address.ipv4_mapped)
    return None if address.is_loopback else address.packed[:8].hex()


class Crowd(Generic[T]):
    """Things in the order in which they came, by the source that they came from."""

    __slots__ = ("_by_source", "_sources")

    def __init__(self) -> None:
        self._sources: dict[T, str | None] = {}
        self._by_source: dict[str | None, dict[T, None]] = {}

    def __len__(self) -> int:
        return len(self._sources)

    def __contains__(self, member: T) -> bool:
        return member in self._sources

    def add(self, member: T, source: str | None) -> None:
        """Add a member, the newest of its source."""
        self._sources[member] = source
        self._by_source.setdefault(source, {})[member] = None

    def remove(self, member: T) -> bool:
        """Remove a member; return whether it was one."""
        if member not in self._sources:
            return False
        source = self._sources.pop(member)
        members = self._by_source[source]
        del members[member]
        if not members:
            del self._by_source[source]
        return True

    def count(self, source: str | None) -> int:
        """Return how many members this source has."""
        return len(self._by_source.get(source, ()))

    def oldest(self) -> T | None:
        """Return the member that has been here longest."""
        return next(iter(self._sources), None)

    def oldest_of(self, source: str | None) -> T | None:
        """Return the member of this source that has been here longest."""
        return next(iter(self._by_source.get(source, ())), None)

    def oldest_of_the_largest(self) -> T | None:
        """Return the oldest member of the source that has most of them.

        A peer that opens thousands of connections loses its own, and not a bystander's. It looks at
        every source: some 50 us for four thousand of them, and only when there is no more room.
        """
        largest = max(self._by_source.values(), key=len, default=None)
        return None if largest is None else next(iter(largest))
