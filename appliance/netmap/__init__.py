"""What one node is told: its view of the tailnet, the first map, and the differences from then on.

``view`` says what a node should know, ``full`` and ``delta`` say it in messages, ``Encoder`` gives
those messages as shared bytes. Pure functions of snapshots; the rooms above send what they give.
"""

from appliance.netmap.delta import delta
from appliance.netmap.encoded import Encoder
from appliance.netmap.view import Netmap, full, view

__all__ = ["Encoder", "Netmap", "delta", "full", "view"]
