"""One snapshot, and what the rows of ``fields`` make of it once for all viewers.

Not for what differs between viewers (``outlook``). Sits on ``tailnet.snapshot``.
"""

from __future__ import annotations

from appliance.netmap import nextdns
from appliance.netmap.connectors import Connector, connectors
from appliance.netmap.dns import dns_config
from appliance.records import Settings, Tailnet
from appliance.tailnet.snapshot import Snapshot


class Basis:
    """What the rows that all viewers share rest on; scenes with the same object share them all.

    It holds no snapshot, so what is kept with it lets go of old ones.
    """

    __slots__ = ("dns", "is_dns_own", "settings", "tailnet")

    def __init__(self, snapshot: Snapshot, *, is_dns_own: bool) -> None:
        self.settings: Settings = snapshot.settings
        self.tailnet: Tailnet = snapshot.tailnet
        self.dns = dns_config(snapshot)
        self.is_dns_own = is_dns_own


class Scene:
    """A snapshot, its DNS configuration, and whether that differs from node to node.

    ``connectors`` are the app connectors, which only some may ask. ``before`` is the scene of
    another version, from which all is taken that is the same.
    """

    __slots__ = ("basis", "connectors", "snapshot")

    def __init__(self, snapshot: Snapshot, before: Scene | None = None) -> None:
        self.snapshot = snapshot
        self.connectors = _connectors(snapshot, before)
        is_dns_own = bool(self.connectors) or nextdns.is_named(snapshot.settings)
        if (
            before is not None
            and is_dns_own == before.basis.is_dns_own
            and _has_same_settings(snapshot, before.basis)
        ):
            self.basis: Basis = before.basis
        else:
            self.basis = Basis(snapshot, is_dns_own=is_dns_own)


def _connectors(snapshot: Snapshot, before: Scene | None) -> tuple[Connector, ...]:
    if before is None:
        return connectors(snapshot)
    old = before.snapshot
    if (
        snapshot.compiled is old.compiled
        and snapshot.nodes is old.nodes
        and snapshot.expired is old.expired
    ):
        return before.connectors
    return connectors(snapshot, before.connectors)


def _has_same_settings(snapshot: Snapshot, basis: Basis) -> bool:
    return snapshot.settings is basis.settings and snapshot.tailnet is basis.tailnet
