"""Which addresses a site listens on, and which two of them cannot be bound together.

Not for binding (``serve``, ``front``) and not for units (``deploy``). Pure.
Source: ip(7), tcp(7): two listening sockets need another address or port; a wildcard has them all.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import ip_address
from typing import Literal

from appliance.config import hosts
from appliance.config.reader import Endpoint
from appliance.config.settings import Settings

_EVERY = ("0.0.0.0", "::")  # noqa: S104  # names of "every address", nothing is bound
_NAMES = {"": _EVERY, "localhost": ("127.0.0.1", "::1")}


@dataclass(frozen=True, slots=True)
class Claim:
    """One address of the site file, and the key that names it."""

    key: str
    endpoint: Endpoint
    protocol: Literal["tcp", "udp"] = "tcp"

    @property
    def places(self) -> set[str]:
        """The hosts that this binds, in one spelling each; IPv6 sockets here are IPv6 only."""
        return {_spelled(host) for host in _NAMES.get(self.endpoint.host, (self.endpoint.host,))}


def claims(settings: Settings) -> Iterator[Claim]:
    """Name every address that the processes of one machine listen on."""
    server = settings.derp.server
    for i, endpoint in enumerate(settings.listen):
        yield Claim(f"listen[{i}]", endpoint)
    for i, endpoint in enumerate(settings.listen_plain):
        yield Claim(f"listen_plain[{i}]", endpoint)
    if server.separate:
        for i, endpoint in enumerate(server.listen):
            yield Claim(f"derp.server.listen[{i}]", endpoint)
    if settings.metrics.listen is not None:
        yield Claim("metrics.listen", settings.metrics.listen)
    if server.enabled:
        for i, endpoint in enumerate(server.stun_listen):
            yield Claim(f"derp.server.stun_listen[{i}]", endpoint, "udp")


def clashes(settings: Settings) -> Iterator[tuple[Claim, Claim]]:
    """Name each address that an earlier one takes; ports that the system chooses never clash."""
    seen: dict[tuple[str, int], list[Claim]] = {}
    for claim in claims(settings):
        if claim.endpoint.port == 0:
            continue
        before = seen.setdefault((claim.protocol, claim.endpoint.port), [])
        taken = next((other for other in before if _meet(claim.places, other.places)), None)
        if taken is not None:
            yield claim, taken
        before.append(claim)


def is_place(endpoint: Endpoint) -> bool:
    """Tell whether a host is an address, one with a zone too, or a name that DNS may have."""
    try:
        ip_address(endpoint.host)
    except ValueError:
        return hosts.is_host(endpoint.host)
    return True


def _meet(some: set[str], others: set[str]) -> bool:
    if some & others:
        return True
    for every in _EVERY:
        for left, right in ((some, others), (others, some)):
            if every in left and any((":" in host) == (":" in every) for host in right):
                return True
    return False


def _spelled(host: str) -> str:
    try:
        return str(ip_address(host))
    except ValueError:
        return host.lower()
