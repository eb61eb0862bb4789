"""What older clients must not see, and what only they need: the netmap in the form of a version.

Clients send their capability version with every map request; the one of the receiver counts, not
that of the node described. Versions that get the same bytes share a ``Band``, so that encoders
can share their work. The numbers themselves are in ``wire.tailcfg.capver``, and there is none
below ``OLDEST_SUPPORTED``: older clients are refused before they are told anything.

Source: tailscale tailcfg/tailcfg.go (history of CapabilityVersion), control/controlclient/map.go.
"""

from __future__ import annotations

from bisect import bisect_right
from enum import IntEnum
from functools import lru_cache

import msgspec

from appliance.wire import tailcfg
from appliance.wire.tailcfg import capver as versions


class Band(IntEnum):
    """Capability versions that are told the same, by the first of them; newer ones are greater."""

    OLDEST = versions.OLDEST_SUPPORTED
    NO_MEASURE_NO_HOME = versions.CAPVER_NO_MEASURE_NO_HOME
    PEER_RELAYS = versions.CAPVER_PEER_RELAY
    AUTO_UPDATE_ATTRIBUTE = versions.CAPVER_DEFAULT_AUTO_UPDATE_ATTRIBUTE


_BANDS = tuple(Band)


@lru_cache(maxsize=256)
def band(capver: int) -> Band:
    """Return the band of a capability version, which is ``OLDEST_SUPPORTED`` or newer."""
    return _BANDS[max(0, bisect_right(_BANDS, capver) - 1)]


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
