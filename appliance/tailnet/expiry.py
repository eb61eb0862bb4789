"""What the passing of time does to a tailnet: what has a time to end ends.

Grace times, keys, attributes; ephemeral nodes go.

``tick`` is called now and then with the time; it makes ordinary edits, so that expiry reaches the
nodes as any other change does. No clock and no timers here.
"""

from __future__ import annotations

from dataclasses import replace
from datetime import datetime, timedelta

from appliance.records import Node, Presence
from appliance.tailnet.attributes import without_expired
from appliance.tailnet.snapshot import Edit, Snapshot

OFFLINE_GRACE = timedelta(seconds=10)
"""How long a node stays online after its last map session: a reconnect takes less."""


def is_due(snapshot: Snapshot, now: datetime, *, since: datetime | None = None) -> bool:
    """Return whether a ``tick`` at ``now`` would change anything."""
    return any(
        _after(snapshot, node, now, since) is not snapshot.presence_of(node.id)
        or without_expired(node, now) is not node
        for node in snapshot.nodes.values()
    )


def tick(edit: Edit, now: datetime, *, since: datetime | None = None) -> None:
    """Let everything happen that is due at ``now``.

    ``since`` is when we began to watch: while we were away nodes could not come to us, so idle
    time from before does not count against ephemeral ones.
    """
    for node in list(edit.nodes.values()):
        presence = _after(edit, node, now, since)
        if presence is None:
            timeout = edit.settings.ephemeral_timeout
            edit.because(node, "node.remove", f"ephemeral, and away for {timeout}")
            edit.drop(node)
            continue
        if presence is not edit.presence_of(node.id):
            edit.set_presence(node.id, presence)
        if (lasting := without_expired(node, now)) is not node:
            edit.because(node, "node.remove-attribute", "the attribute's time is over")
            edit.put(lasting)


def _after(
    state: Snapshot | Edit, node: Node, now: datetime, since: datetime | None
) -> Presence | None:
    """Return the node's presence at ``now`` (the same object if unchanged); None: it must go."""
    presence = state.presence_of(node.id)
    changed = presence
    expired = node.expires_at is not None and node.expires_at <= now
    if expired != changed.expired:
        changed = replace(changed, expired=expired)
    if not presence.sessions:
        idle_since = presence.last_seen or node.created_at
        if presence.online and idle_since + OFFLINE_GRACE <= now:
            changed = replace(changed, online=False, online_since=None)
        if node.ephemeral:
            idle_since = max(idle_since, since or idle_since)
            if idle_since + state.settings.ephemeral_timeout <= now:
                return None
    return changed
