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

    __slots__ = ("dns", "is_dns_own", "is_nextdns", "settings", "tailnet")

    def __init__(self, snapshot: Snapshot, *, has_connectors: bool) -> None:
        self.settings: Settings = snapshot.settings
        self.tailnet: Tailnet = snapshot.tailnet
        self.dns = dns_config(snapshot)
        self.is_nextdns = nextdns.is_named(snapshot.settings)
        self.is_dns_own = has_connectors or self.is_nextdns


class Scene:
    """A snapshot, its DNS configuration, and whether that differs from node to node.

    ``connectors`` are the app connectors, which only some may ask. ``before`` is the scene of
    another version, from which all is taken that is the same.
    """

    __slots__ = ("basis", "connectors", "snapshot")

    def __init__(self, snapshot: Snapshot, before: Scene | None = None) -> None:
        self.snapshot = snapshot
        self.connectors = _connectors(snapshot, before)
        self.basis: Basis
        if (
            before is not None
            and snapshot.settings is before.basis.settings
            and snapshot.tailnet is before.basis.tailnet
            and bool(self.connectors) == bool(before.connectors)
        ):
            self.basis = before.basis
        else:
            self.basis = Basis(snapshot, has_connectors=bool(self.connectors))


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
