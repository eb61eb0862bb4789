"""What older clients must not see, and what only they need: the netmap in the form of a version.

Clients send their capability version with every map request; the one of the receiver counts, not
that of the node described. Versions that get the same bytes share a ``Band``, so that encoders
can share their work. The numbers themselves are in ``wire.tailcfg.capver``.

Source: tailscale tailcfg/tailcfg.go (history of CapabilityVersion), control/controlclient/map.go.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import IntEnum
from functools import lru_cache

import msgspec

from appliance.wire import tailcfg
from appliance.wire.tailcfg import capver as versions

DERP_MAGIC_IP = "127.3.3.40"
"""The address that stood for "a relay" before ``HomeDERP``; its port is the region."""


class Band(IntEnum):
    """Capability versions that are told the same, by the first of them; newer ones are greater."""

    OLDEST = 0
    CAP_MAP = versions.CAPVER_CAP_MAP
    PACKET_FILTERS = versions.CAPVER_PACKET_FILTERS
    DEFAULT_AUTO_UPDATE = 83
    ABSENT_ALLOWED_IPS = versions.CAPVER_ABSENT_ALLOWED_IPS
    PEER_RELAYS = versions.CAPVER_PEER_RELAY
    NO_MEASURE_NO_HOME = versions.CAPVER_NO_MEASURE_NO_HOME
    AUTO_UPDATE_ATTRIBUTE = versions.CAPVER_DEFAULT_AUTO_UPDATE_ATTRIBUTE


_BANDS = tuple(Band)


@lru_cache(maxsize=256)
def band(capver: int) -> Band:
    """Give the band of a capability version."""
    return _BANDS[bisect_right(_BANDS, capver) - 1]


def has_legacy_nodes(of: Band) -> bool:
    """Tell whether the band needs ``DERP`` and ``AllowedIPs`` in every node (below 111, 112)."""
    return of < Band.ABSENT_ALLOWED_IPS


def fit_node(node: tailcfg.Node, of: Band) -> tailcfg.Node:
    """Put a node into the form of a band; it comes in the newest one."""
    if not has_legacy_nodes(of):
        return node
    allowed_ips = node.addresses if node.allowed_ips is None else node.allowed_ips
    derp = f"{DERP_MAGIC_IP}:{node.home_derp}" if node.home_derp else ""
    if of < Band.CAP_MAP and node.cap_map:
        return msgspec.structs.replace(
            node,
            allowed_ips=allowed_ips,
            legacy_derp=derp,
            capabilities=tuple(node.cap_map),
            cap_map=None,
        )
    return msgspec.structs.replace(node, allowed_ips=allowed_ips, legacy_derp=derp)


def fit_derp_map(derp_map: tailcfg.DERPMap, of: Band) -> tailcfg.DERPMap:
    """Put a DERP map into the form of a band: ``Avoid`` where ``NoMeasureNoHome`` is unknown."""
    regions = derp_map.regions or {}
    if of >= Band.NO_MEASURE_NO_HOME or not any(r.no_measure_no_home for r in regions.values()):
        return derp_map
    return msgspec.structs.replace(
        derp_map,
        regions={
            region_id: msgspec.structs.replace(region, avoid=True, no_measure_no_home=False)
            if region.no_measure_no_home
            else region
            for region_id, region in regions.items()
        },
    )
