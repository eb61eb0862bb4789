"""The present of each tailnet: the current snapshot, and the policy in force.

``tailnet`` holds the one variable and the one way to change it; ``policy`` says where policy texts
come from and which one is in force. Not for rules (``tailnet`` has the verbs) nor for SQL (``store``).
"""

from appliance.live.tailnet import (
    MOST_TURNS,
    CommitFailed,
    LiveCounters,
    LiveTailnet,
    LiveTailnets,
    utc_now,
)

__all__ = [
    "CommitFailed",
    "LiveCounters",
    "LiveTailnet",
    "LiveTailnets",
    "MOST_TURNS",
    "utc_now",
]
