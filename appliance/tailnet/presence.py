"""Presence: a node is online while one of its map sessions is open, and for a grace time after.

The grace time after the last session hides a reconnect from the peers. The grace ends in ``expiry``. No clock here: ``now`` is given.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime

from appliance.records import Node, NodeID
from appliance.tailnet.snapshot import Edit


def session_opened(edit: Edit, node_id: NodeID, now: datetime) -> None:
    """Count a new map session of the node; it is online from now on."""
    old = edit.presence_of(node_id)
    since = old.online_since if old.online else now
    edit.set_presence(
        node_id, replace(old, online=True, online_since=since, sessions=old.sessions + 1)
    )


def session_closed(edit: Edit, node_id: NodeID, now: datetime) -> None:
    """Count one map session less; the last one starts the grace time."""
    old = edit.presence_of(node_id)
    sessions = max(0, old.sessions - 1)
    edit.set_presence(
        node_id, replace(old, sessions=sessions, last_seen=old.last_seen if sessions else now)
    )


def note_expiry(edit: Edit, node: Node, now: datetime) -> None:
    """Let the node's being expired follow from its record at once, not at the next tick."""
    old = edit.presence_of(node.id)
    if old.expired != node.is_expired(now):
        edit.set_presence(node.id, replace(old, expired=not old.expired))
