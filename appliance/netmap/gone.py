"""What a node is told that is no longer one: that its key has expired.

Stock clients go to "Logged out" by that and by nothing else: an answer of 404 they repeat for ever,
and keep their old map meanwhile. Not for nodes that have expired and still exist (``selfnode``).
Source: tailscale ipn/ipnlocal/local.go (nextStateLocked: keyExpired), v1.90 to v1.104.
"""

from __future__ import annotations

import hashlib
from dataclasses import replace
from datetime import UTC, datetime

import msgspec

from appliance.netmap.selfnode import self_node
from appliance.records import NodeID
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey, NodeKey

ENDED_AT = datetime(2020, 1, 1, tzinfo=UTC)
"""The expiry that is told. Clients compare it with a clock of their own, which may be days wrong."""


def farewell(seen: Snapshot, viewer: NodeID) -> tailcfg.MapResponse:
    """Give the last message of a session whose node was removed; ``seen`` still has it."""
    node = replace(seen.nodes[viewer], expires_at=ENDED_AT)
    told = self_node(seen, node)
    return tailcfg.MapResponse(node=msgspec.structs.replace(told, expired=True))


def unknown(machine: MachineKey, node_key: NodeKey) -> tailcfg.MapResponse:
    """Give the whole map of a node that this server does not know, or does not know by this machine.

    It says nothing that the asker did not say, so that keys cannot be probed. The stable id is its
    own for each key: clients take profiles with equal ones for the same.
    """
    label = hashlib.sha256(node_key.raw).hexdigest()[:16]
    node = tailcfg.Node(
        id=1,
        stable_id=f"gone-{label}",
        name="removed.invalid.",
        key=node_key,
        key_expiry=ENDED_AT,
        machine=machine,
        machine_authorized=True,
        expired=True,
    )
    return tailcfg.MapResponse(node=node)
