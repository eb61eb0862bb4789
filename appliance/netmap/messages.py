"""Whole messages as values, for the model and for what is too rare to be shared as bytes.

Rare is a viewer whose key has expired. It must log in, so it is told who it is and where the
relays are, and nothing of the tailnet: no peers, rules or names. Its peers go on to see it, as
expired. Source: tailscale ipn/ipnlocal/local.go (a node whose own key expired needs to log in).
"""

from __future__ import annotations

from collections.abc import Sequence

from appliance.netmap import fields
from appliance.netmap.capver import Band
from appliance.netmap.outlook import ALL_PLAIN, PLAIN, Faces, Outlooks, visible
from appliance.netmap.peers import peer
from appliance.netmap.scene import Scene
from appliance.records import NodeID, UserID
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg


def full_fields(scene: Scene, viewer: NodeID, of: Band) -> dict[str, object]:
    """Return all that a full map tells one viewer. Raises KeyError if there is no such node."""
    snapshot = scene.snapshot
    ids, faces = peers_of(snapshot, viewer)
    crowd = fields.Crowd(ids, owners_of(snapshot, viewer, ids))
    told = fields.shared_fields(scene, of)
    for field, value in fields.own_values(scene, viewer).items():
        told[field] = fields.own_form(field, value, of)
    for row in fields.PEERS:
        if row.full is not None and (value := row.full(scene, crowd)):
            told[row.field] = whole_nodes(snapshot, ids, faces) if row.nodes else value
    return told


def around_expiry(old: Scene, new: Scene, viewer: NodeID, of: Band) -> dict[str, object]:
    """Return what a viewer is told between two versions, in one of which its key has expired.

    Where it expires or is valid again, all is said anew.
    """
    was, is_now = viewer in old.snapshot.expired, viewer in new.snapshot.expired
    told = full_fields(new, viewer, of)
    if was and is_now:
        before = full_fields(old, viewer, of)
        told = {field: value for field, value in told.items() if before.get(field) != value}
    elif is_now:
        if gone := peers_of(old.snapshot, viewer)[0]:
            told["peers_removed"] = tuple(gone)
    elif peers := told.pop("peers", None):
        told["peers_changed"] = peers
    return fields.with_rebuild(told, new)


def peers_of(snapshot: Snapshot, viewer: NodeID) -> tuple[Sequence[NodeID], Faces]:
    """Return the peers that a viewer is told of, in order, and the faces that they show it."""
    if viewer in snapshot.expired:
        return (), ALL_PLAIN
    outlooks = Outlooks(snapshot)
    outlook = outlooks.of(viewer)
    ids = [node_id for node_id in visible(snapshot, outlook.sight) if node_id != viewer]
    return ids, outlooks.faces(outlook)


def owners_of(snapshot: Snapshot, viewer: NodeID, peers: Sequence[NodeID]) -> set[UserID]:
    """Return the owners of a viewer and its peers."""
    return {snapshot.nodes[node_id].owner_id for node_id in (viewer, *peers)}


def whole_nodes(
    snapshot: Snapshot, ids: Sequence[NodeID], faces: Faces
) -> tuple[tailcfg.Node, ...]:
    """Return peers as a viewer is told of them."""
    return tuple(peer(snapshot, snapshot.nodes[i], faces.get(i, PLAIN)) for i in ids)
