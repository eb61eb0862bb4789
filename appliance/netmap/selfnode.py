"""A node as it sees itself, in the ``Node`` of its map responses.

Not for what its peers see (``peers``). Sits on ``scene`` and the policy's node attributes.

Source: tailscale tailcfg/tailcfg.go (Node), tailcfg/nodecap/nodecap.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields

from appliance.netmap.changes import UNSEEN
from appliance.netmap.outlook import own_attributes, own_face
from appliance.netmap.peers import node_told
from appliance.netmap.scene import Scene
from appliance.policy.engine import nodeattrs
from appliance.records import Node, NodeID, Role
from appliance.tailnet.differences import differing
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg

CAP_FILE_SHARING = "https://tailscale.com/cap/file-sharing"
CAP_IS_ADMIN = "https://tailscale.com/cap/is-admin"
CAP_IS_OWNER = "https://tailscale.com/cap/is-owner"
CAP_SSH = "https://tailscale.com/cap/ssh"
CAP_DEFAULT_AUTO_UPDATE = "default-auto-update"

_FALSE = tailcfg.Raw(b"false")
BASELINE: tailcfg.CapMap = {CAP_SSH: (), CAP_DEFAULT_AUTO_UPDATE: (_FALSE,)}
"""What every node has, whatever the policy says."""
FILE_SHARING: tailcfg.CapMap = {CAP_FILE_SHARING: ()}
"""What every node has besides where the settings allow sending files."""
BY_ROLE: Mapping[Role, tailcfg.CapMap] = {
    Role.OWNER: {CAP_IS_ADMIN: (), CAP_IS_OWNER: ()},
    Role.ADMIN: {CAP_IS_ADMIN: ()},
    Role.IT_ADMIN: {},
    Role.NETWORK_ADMIN: {},
    Role.BILLING_ADMIN: {},
    Role.AUDITOR: {},
    Role.MEMBER: {},
}
"""What a user's role adds to the user's nodes. Clients choose their words by it ("update your
tailnet's ACLs" or "ask your admin") and show links to the console; it gives no right here.
A tagged node belongs to no user and has none."""


def self_node(snapshot: Snapshot, node: Node) -> tailcfg.Node:
    """Return a node as it sees itself.

    Who reads this is connected, so ``online`` is true. Endpoints, disco key and services are left
    out: the node knows them best, and every change of them would make it rebuild its netmap.
    """
    given = own_attributes(snapshot, node.id)
    return node_told(
        snapshot,
        node,
        own_face(snapshot, node.id, given),
        hostinfo=tailcfg.Hostinfo(
            os=node.hostinfo.os,
            hostname=node.hostinfo.hostname,
            routable_ips=node.hostinfo.routable_ips,
        ),
        online=True,
        cap_map=_capabilities(snapshot, node, given),
        stable_tailnet_id=snapshot.tailnet.stable_id,
    )


def told(scene: Scene, viewer: NodeID) -> tailcfg.Node:
    """Return a viewer as it is told of itself."""
    return self_node(scene.snapshot, scene.snapshot.nodes[viewer])


def may_differ(before: Scene, after: Scene, viewer: NodeID) -> bool:
    """Return whether a viewer's own node may look different to it."""
    old, new = before.snapshot, after.snapshot
    was, now = old.nodes[viewer], new.nodes[viewer]
    return (
        (was is not now and any(getattr(was, name) != getattr(now, name) for name in _SELF_SEES))
        or old.presence_of(viewer).expired != new.presence_of(viewer).expired
        or _changes_all(old, new)
        or _role(old, was) is not _role(new, now)
        or _differs_by_policy(old, new, viewer)
    )


def _differs_by_policy(old: Snapshot, new: Snapshot, viewer: NodeID) -> bool:
    if old.compiled is new.compiled and old.routes is new.routes:
        return False
    before, after = own_attributes(old, viewer), own_attributes(new, viewer)
    return before != after or own_face(old, viewer, before) != own_face(new, viewer, after)


_SELF_SEES = tuple(
    field.name
    for field in fields(Node)
    if field.name not in UNSEEN and field.name not in ("endpoints", "disco_key")
)


def concerns_all(before: Scene, after: Scene) -> bool:
    """Return whether nodes that are not touched themselves may look different to themselves."""
    old, new = before.snapshot, after.snapshot
    return _changes_all(old, new) or _have_roles_changed(old, new)


def _changes_all(old: Snapshot, new: Snapshot) -> bool:
    return (
        old.settings.file_sharing != new.settings.file_sharing
        or old.tailnet.domain != new.tailnet.domain
    )


def _have_roles_changed(old: Snapshot, new: Snapshot) -> bool:
    near = () if old.users is new.users else differing(old.users, new.users)
    return any(
        user_id in old.users
        and user_id in new.users
        and old.users[user_id].role is not new.users[user_id].role
        for user_id in near
    )


def _role(snapshot: Snapshot, node: Node) -> Role:
    user = None if node.user_id is None else snapshot.users.get(node.user_id)
    return Role.MEMBER if user is None else user.role


def _capabilities(snapshot: Snapshot, node: Node, given: nodeattrs.Attributes) -> tailcfg.CapMap:
    role = _role(snapshot, node)
    # Nearly all are members, and an enum member is slow to hash.
    members = _MEMBERS_WITH_FILE_SHARING if snapshot.settings.file_sharing else _MEMBERS
    if role is not Role.MEMBER and BY_ROLE[role]:
        return {**members, **BY_ROLE[role], **given}
    return {**members, **given} if given else members


_MEMBERS: tailcfg.CapMap = {**BASELINE, **BY_ROLE[Role.MEMBER]}
_MEMBERS_WITH_FILE_SHARING: tailcfg.CapMap = {**BASELINE, **FILE_SHARING, **BY_ROLE[Role.MEMBER]}
