"""One snapshot, and what the rows of ``fields`` make of it once for all viewers.

Not for what differs between viewers (``outlook``). Sits on ``tailnet.snapshot``.
"""

from __future__ import annotations

from appliance.netmap import nextdns
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

    ``before`` is the scene of another version, from which the basis is taken if it is the same.
    """

    __slots__ = ("basis", "snapshot")

    def __init__(self, snapshot: Snapshot, before: Scene | None = None) -> None:
        self.snapshot = snapshot
        if before is not None and _has_same_settings(snapshot, before.basis):
            self.basis: Basis = before.basis
        else:
            self.basis = Basis(snapshot, is_dns_own=nextdns.is_named(snapshot.settings))


def _has_same_settings(snapshot: Snapshot, basis: Basis) -> bool:
    return snapshot.settings is basis.settings and snapshot.tailnet is basis.tailnet
