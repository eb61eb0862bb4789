"""What one node is told: the first map of its tailnet, and the differences from then on.

``Encoder`` makes the bytes that the rooms above send; ``view``, ``full`` and ``delta`` are the
model that the tests hold it to. Both walk the table of ``fields``. Pure functions of snapshots.
"""

from appliance.netmap.encoded import Encoder
from appliance.netmap.model import Netmap, delta, full, view

__all__ = ["Encoder", "Netmap", "delta", "full", "view"]
