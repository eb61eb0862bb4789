"""The map of relays that nodes are told.

It always replaces what a client holds: regions and home parameters are never left out, so that a
delta needs no thought about what the client had before. Not for making the map (``relay``, config).

Source: tailscale tailcfg/derpmap.go, control/controlclient/map.go.
"""

from __future__ import annotations

import msgspec

from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg


def derp_map(snapshot: Snapshot) -> tailcfg.DERPMap:
    """Return the whole DERP map of a tailnet's nodes."""
    derps = snapshot.settings.derp_map
    scores = (derps.home_params and derps.home_params.region_score) or {}
    return msgspec.structs.replace(
        derps,
        home_params=tailcfg.DERPHomeParams(region_score=scores),
        regions=derps.regions or {},
    )
