"""The verbs that an administrator has for nodes.

Not for what nodes do themselves (``enrolment``, ``checkin``). Sits on ``snapshot``. Every verb
raises NotFound for an unknown id.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from appliance.errors import Conflict, Invalid, NotFound
from appliance.records import Network, Node, NodeID, UserID
from appliance.tailnet import names, policies, presence, routes, tags, users
from appliance.tailnet.snapshot import Edit, Snapshot

MAX_TAGS = 64
"""Tags of one node; every netmap that shows the node carries them."""


def get(state: Snapshot | Edit, node_id: NodeID) -> Node:
    """Return a node."""
    node = state.nodes.get(node_id)
    if node is None:
        raise NotFound("node-unknown", f"there is no node with the id {node_id}")
    return node


def find(state: Snapshot | Edit, *, user_id: UserID | None = None) -> list[Node]:
    """List nodes by id: all, or those that a user owns."""
    return sorted(
        (node for node in state.nodes.values() if user_id is None or node.owner_id == user_id),
        key=lambda node: node.id,
    )


def rename(edit: Edit, node_id: NodeID, name: str) -> Node:
    """Give a node a name that its machine cannot change. Raises Invalid, Conflict."""
    node = get(edit, node_id)
    label = names.check_label(name)
    names.check_free(edit, label, node_id)
    return _put(edit, replace(node, name=label, name_pinned=True))


def expire(edit: Edit, node_id: NodeID, now: datetime, *, at: datetime | None = None) -> Node:
    """Let the node's key run out: now, or at a time to come, which may also be a later one.

    A key that has run out before ``now`` keeps its time, if none is asked for.
    """
    node = get(edit, node_id)
    if at is None and node.is_expired(now):
        return node
    return _set_expiry(edit, node, max(now, at or now), now)


def never_expire(edit: Edit, node_id: NodeID, now: datetime) -> Node:
    """Let the node's key never run out; one that has run out is good again."""
    return _set_expiry(edit, get(edit, node_id), None, now)


def delete(edit: Edit, node_id: NodeID) -> Node:
    """Remove a node; its machine is a stranger from then on."""
    node = get(edit, node_id)
    edit.drop(node)
    return node


def set_tags(edit: Edit, node_id: NodeID, wanted: Sequence[str], now: datetime) -> Node:
    """Give a node these tags and no others; a user's node is the tags' from then on. Raises Invalid.

    A node that becomes tagged does not expire any more, unless it has expired already. The tags
    must be among those that the policy in force defines, whoever owns them.
    """
    node = get(edit, node_id)
    if not wanted:
        raise Invalid(
            "tags-missing",
            "a tagged node keeps at least one tag: only moving it to a user takes all of them"
            " ('headwater nodes move')",
        )
    if len(wanted) > MAX_TAGS:
        raise Invalid("tags-too-many", f"a node carries at most {MAX_TAGS} tags")
    checked = names.check_tags(wanted)
    tags.check_defined(edit, checked)
    expires_at = node.expires_at
    if not node.is_tagged and not node.is_expired(now):
        expires_at = None
    node = replace(node, tags=checked, user_id=None, expires_at=expires_at)
    return _put(edit, policies.with_approved_routes(edit, node))


def approve_routes(edit: Edit, node_id: NodeID, approved: Iterable[Network]) -> Node:
    """Approve these routes and no others, offered or not; none takes all approvals back.

    Either of the two exit routes stands for both. Raises Invalid for too many.
    """
    node = get(edit, node_id)
    return _put(edit, replace(node, approved_routes=routes.check_approved(approved)))


def move(edit: Edit, node_id: NodeID, user_id: UserID) -> Node:
    """Give a node to a user; a tagged node loses its tags. Raises NotFound, Conflict.

    The time at which the key runs out stays.
    """
    node = get(edit, node_id)
    user = users.get(edit, user_id)
    for other_id in edit.by_machine_key[node.machine_key]:
        other = edit.nodes[other_id]
        if other.id != node.id and other.user_id == user_id:
            raise Conflict(
                "user-has-node-there",
                f"{user.name!r} has the node {other.name!r} on the same machine; delete one of them",
                concerns=other.name,
            )
    node = replace(node, user_id=user_id, tags=())
    return _put(edit, policies.with_approved_routes(edit, node))


def _set_expiry(edit: Edit, node: Node, expires_at: datetime | None, now: datetime) -> Node:
    node = _put(edit, replace(node, expires_at=expires_at))
    presence.note_expiry(edit, node, now)
    return node


def _put(edit: Edit, node: Node) -> Node:
    edit.put(node)
    return edit.nodes[node.id]
