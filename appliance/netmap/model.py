"""The law's model: what the encoder's bytes must mean, as plain messages.

``view`` is all that a node should know, ``full`` and ``delta`` say it. The law: a client that
applies ``delta(old, new)`` to ``full(old)`` knows what ``full(new)`` tells. The server runs
``encoded``, which walks the same table (``fields``) and is held to these messages by the tests.

Source: tailscale tailcfg/tailcfg.go (MapResponse), control/controlclient/map.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from appliance.netmap import fields
from appliance.netmap.capver import band
from appliance.netmap.changes import changes
from appliance.netmap.messages import around_expiry, full_fields, owners_of, peers_of, whole_nodes
from appliance.netmap.outlook import Outlooks, changed_faces
from appliance.netmap.scene import Scene
from appliance.netmap.steps import own_owners, steps_between
from appliance.netmap.users import profiles
from appliance.records import NodeID, UserID
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg


@dataclass(frozen=True, slots=True)
class Netmap:
    """What one node should know: its peers in order of their id, and the values of all fields."""

    peers: Mapping[NodeID, tailcfg.Node]
    user_profiles: Mapping[UserID, tailcfg.UserProfile]
    node: tailcfg.Node
    packet_filters: tuple[tailcfg.FilterRule, ...]
    ssh_policy: tailcfg.SSHPolicy
    dns_config: tailcfg.DNSConfig
    derp_map: tailcfg.DERPMap
    domain: str = ""
    debug: bool = False
    default_auto_update: bool = False


def view(snapshot: Snapshot, viewer: NodeID) -> Netmap:
    """Return all that a node should know. Raises KeyError if there is no such node."""
    scene = Scene(snapshot)
    ids, faces = peers_of(snapshot, viewer)
    shared = {row.field: value for row in fields.SHARED if (value := row.value(scene)) is not None}
    users = profiles(snapshot, owners_of(snapshot, viewer, ids))
    return Netmap(
        peers={NodeID(node.id): node for node in whole_nodes(snapshot, ids, faces)},
        user_profiles={UserID(user.id): user for user in users},
        **{**shared, **fields.own_values(scene, viewer)},
    )


def full(
    snapshot: Snapshot, viewer: NodeID, capver: int, now: datetime | None = None
) -> tailcfg.MapResponse:
    """Return the first message of a map session, which tells all that the node should know.

    With ``now`` it also says how late it is, so that a client with a wrong clock does not take
    keys for expired. Raises KeyError if there is no such node.
    """
    told = full_fields(Scene(snapshot), viewer, band(capver))
    return fields.response({**told, "control_time": now})


def delta(
    old: Snapshot, new: Snapshot, viewer: NodeID, capver: int
) -> tuple[tailcfg.MapResponse, ...]:
    """Return the messages that bring a viewer from ``old`` to ``new``, to be sent in this order.

    () if there is nothing to say; two where a peer must be removed before it is told again.
    Raises KeyError if the viewer is not a node of both.
    """
    of, before, after = band(capver), Scene(old), Scene(new)
    if viewer in old.expired or viewer in new.expired:
        told = around_expiry(before, after, viewer, of)
        return (fields.response(told),) if told else ()
    changed = changes(old, new)
    was, now = Outlooks(old), Outlooks(new)
    seen, sees = was.of(viewer), now.of(viewer)
    faces = now.faces(sees)
    turned = changed_faces(was.faces(seen), faces)
    steps = steps_between(old, new, seen.sight, sees.sight, changed, turned, faces)
    steps = steps.without(viewer).with_owners(own_owners(old, new, viewer, changed))
    told = fields.shared_changes(before, after, of)
    for field, value in fields.own_changes(before, after, viewer).items():
        told[field] = fields.own_form(field, value, of)
    told |= fields.peers_changes(after, steps)
    if steps.whole:
        told["peers_changed"] = whole_nodes(new, steps.whole, faces)
    first = steps.removed_first()
    messages = (fields.with_rebuild(told, after),) if told else ()
    return tuple(map(fields.response, ({"peers_removed": first}, *messages) if first else messages))
