"""Nodes as the list of nodes shows them, encoded once for as long as nothing about them changes.

Consoles ask for the whole list every few seconds. A node is encoded anew when one of the records that
it is shown from is another object, which is what a change is (``tailnet.snapshot``). Not for what is
shown (``shapes``). Bounded by the number of nodes.
"""

from __future__ import annotations

from typing import NamedTuple

import msgspec

from appliance.api import shapes
from appliance.records import AuthKey, Node, NodeID, Presence, TailnetID, User
from appliance.tailnet.snapshot import Snapshot

SPARE = 100
"""Nodes that are gone and still kept, before they are looked for."""

_encode = msgspec.json.Encoder().encode


class _From(NamedTuple):
    """All that a node is shown from."""

    node: Node
    presence: Presence
    owner: User | None
    key: AuthKey | None
    key_owner: User | None
    serving: tuple[str, ...]
    release: str


class ShownNodes:
    """What was encoded, by tailnet and node."""

    def __init__(self) -> None:
        self._kept: dict[TailnetID, dict[NodeID, tuple[_From, msgspec.Raw]]] = {}

    def show(self, snapshot: Snapshot, node: Node, release: str) -> msgspec.Raw:
        """Return a node as the list shows it, as JSON."""
        kept = self._kept.setdefault(snapshot.tailnet.id, {})
        now = _from(snapshot, node, release)
        found = kept.get(node.id)
        if found is not None and _is_same(found[0], now):
            return found[1]
        shown = shapes.node(snapshot, node, in_list=True, release=release)
        raw = msgspec.Raw(_encode(shown))
        kept[node.id] = (now, raw)
        if len(kept) > len(snapshot.nodes) + SPARE:
            for gone in [node_id for node_id in kept if node_id not in snapshot.nodes]:
                del kept[gone]
        return raw


def _from(snapshot: Snapshot, node: Node, release: str) -> _From:
    key = None if node.auth_key_id is None else snapshot.auth_keys.get(node.auth_key_id)
    users = snapshot.users
    return _From(
        node,
        snapshot.presence_of(node.id),
        None if node.user_id is None else users.get(node.user_id),
        key,
        None if key is None or key.user_id is None else users.get(key.user_id),
        shapes.serving(snapshot, node),
        release,
    )


def _is_same(was: _From, now: _From) -> bool:
    return (
        was.node is now.node
        and was.presence is now.presence
        and was.owner is now.owner
        and was.key is now.key
        and was.key_owner is now.key_owner
        and was.serving == now.serving
        and was.release == now.release
    )
