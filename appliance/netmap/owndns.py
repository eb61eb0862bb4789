"""The DNS configuration where it differs from node to node, and where it does not.

It differs where the settings name NextDNS, which is told which node asks, and where there are app
connectors, which only some may ask. Not for what the settings say (``dns``). Sits on ``scene``.
"""

from __future__ import annotations

import msgspec

from appliance.netmap import connectors, nextdns
from appliance.netmap.scene import Scene
from appliance.records import NodeID
from appliance.wire import tailcfg


def told(scene: Scene, viewer: NodeID) -> tailcfg.DNSConfig | None:
    """Return the DNS configuration of one node; None if all are told the same."""
    if not scene.basis.is_dns_own:
        return None
    config = scene.basis.dns
    if scene.basis.is_nextdns:
        config = nextdns.fit(config, nextdns.asker(scene.snapshot, viewer))
    if not scene.connectors:
        return config
    asked = connectors.routes(scene.snapshot, viewer, scene.connectors)
    # What the settings say of a domain goes first.
    return msgspec.structs.replace(config, routes={**asked, **config.routes})


def told_to_all(scene: Scene) -> tailcfg.DNSConfig | None:
    """Return the DNS configuration of every node; None if each is told its own."""
    return None if scene.basis.is_dns_own else scene.basis.dns


def may_differ(old: Scene, new: Scene, viewer: NodeID) -> bool:
    """Return whether a node's own DNS configuration may differ between two versions."""
    if not (old.basis.is_dns_own or new.basis.is_dns_own):
        return False
    was, now = old.snapshot, new.snapshot
    return (
        was.nodes[viewer] is not now.nodes[viewer]
        or was.compiled is not now.compiled
        or was.routes is not now.routes
        or concerns_all(old, new)
    )


def concerns_all(old: Scene, new: Scene) -> bool:
    """Return whether the DNS configuration of every node may differ."""
    if not (old.basis.is_dns_own or new.basis.is_dns_own):
        return False
    was, now = old.basis, new.basis
    if was is not now and (was.is_dns_own != now.is_dns_own or was.dns != now.dns):
        return True
    return old.connectors is not new.connectors and old.connectors != new.connectors
