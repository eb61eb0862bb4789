"""From what a node was told to what is true now: the messages between two views.

The law: a client that applies ``delta(old, new)`` to ``full(old)`` knows what ``full(new)`` tells.
``delta`` is the readable form; ``encoded`` makes the same messages as shared bytes, from the same
``Steps``. Sits on ``changes`` (what differs at all) and ``view``.

Source: tailscale tailcfg/tailcfg.go (MapResponse), control/controlclient/map.go.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, fields

from appliance.netmap.capver import Band, band, fit_derp_map
from appliance.netmap.changes import UNSEEN, Changes, Patch, Resend, changes
from appliance.netmap.dns import (
    Personal,
    dns_config,
    is_personal,
    own_dns_between,
    personal_between,
)
from appliance.netmap.outlook import ALL_PLAIN, PLAIN, Faces, Outlooks, changed_faces, own_face
from appliance.netmap.peers import own_attributes, peer, self_node
from appliance.netmap.relays import derp_map
from appliance.netmap.users import profiles
from appliance.netmap.view import BASE_FILTER, ssh_rules
from appliance.policy.engine.compile import Sight
from appliance.policy.engine.filters import fit_rules
from appliance.records import Node, NodeID, UserID
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg


@dataclass(frozen=True, slots=True)
class Steps:
    """What all viewers of one visibility class are told of others between two snapshots.

    ``gone`` first, in a message of its own if some of ``whole`` are among ``gone`` as well.
    ``owners`` are the users whose profiles go along: those that the viewers did not know.
    Each list is in order.
    """

    gone: tuple[NodeID, ...] = ()
    again: tuple[NodeID, ...] = ()
    whole: tuple[NodeID, ...] = ()
    patches: tuple[tailcfg.PeerChange, ...] = ()
    unseen: tuple[NodeID, ...] = ()
    owners: tuple[UserID, ...] = ()

    def without(self, viewer: NodeID) -> Steps:
        """Give the steps for a viewer that is itself among the nodes concerned."""
        return Steps(
            gone=tuple(node_id for node_id in self.gone if node_id != viewer),
            again=tuple(node_id for node_id in self.again if node_id != viewer),
            whole=tuple(node_id for node_id in self.whole if node_id != viewer),
            patches=tuple(patch for patch in self.patches if patch.node_id != viewer),
            unseen=tuple(node_id for node_id in self.unseen if node_id != viewer),
            owners=self.owners,
        )


@dataclass(frozen=True, slots=True)
class Own:
    """What one viewer alone is told between two snapshots; None and () mean nothing."""

    node: tailcfg.Node | None = None
    packet_filter: tuple[tailcfg.FilterRule, ...] | None = None
    ssh_policy: tailcfg.SSHPolicy | None = None
    dns_config: tailcfg.DNSConfig | None = None
    owners: tuple[UserID, ...] = ()

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to say of the viewer itself, but for profiles."""
        return (
            self.node is None
            and self.packet_filter is None
            and self.ssh_policy is None
            and self.dns_config is None
        )


@dataclass(frozen=True, slots=True)
class Common:
    """What every node of the tailnet is told between two snapshots; None and "" mean nothing.

    Where DNS is up to the node, ``Own`` has it.
    """

    dns_config: tailcfg.DNSConfig | None = None
    derp_map: tailcfg.DERPMap | None = None
    domain: str = ""
    disable_logs: bool = False

    @property
    def is_empty(self) -> bool:
        """Tell whether there is nothing to say."""
        return self == _NOTHING_COMMON


_NOTHING_COMMON = Common()


def delta(
    old: Snapshot, new: Snapshot, viewer: NodeID, capver: int
) -> tuple[tailcfg.MapResponse, ...]:
    """Give the messages that bring a viewer from ``old`` to ``new``, to be sent in this order.

    () if there is nothing to say; two where a peer must be removed before it is told again.
    Raises KeyError if the viewer is not a node of both.
    """
    of = band(capver)
    changed = changes(old, new)
    was, now = Outlooks(old), Outlooks(new)
    before, after = was.of(viewer), now.of(viewer)
    faces = now.faces(after)
    turned = changed_faces(was.faces(before), faces)
    steps = steps_between(old, new, before.sight, after.sight, changed, turned, faces).without(
        viewer
    )
    own = own_between(old, new, viewer, changed, of, personal_between(old, new))
    common = common_between(old, new, of)
    told = profiles(new, {*steps.owners, *own.owners})
    last = tailcfg.MapResponse(
        node=own.node,
        derp_map=common.derp_map,
        peers_removed=None if steps.again else steps.gone or None,
        peers_changed=tuple(peer(new, new.nodes[i], faces.get(i, PLAIN)) for i in steps.whole)
        or None,
        peers_changed_patch=steps.patches or None,
        peer_seen_change=dict.fromkeys(steps.unseen, False) or None,
        dns_config=common.dns_config if own.dns_config is None else own.dns_config,
        domain=rebuilding_domain(new, common, told),
        packet_filters=None if own.packet_filter is None else {BASE_FILTER: own.packet_filter},
        ssh_policy=own.ssh_policy,
        user_profiles=told or None,
        debug=tailcfg.Debug(disable_log_tail=True) if common.disable_logs else None,
    )
    if steps.again:
        first = tailcfg.MapResponse(peers_removed=tuple(sorted((*steps.gone, *steps.again))))
        return first, last
    return () if last == _NOTHING else (last,)


_NOTHING = tailcfg.MapResponse()


def steps_between(
    old: Snapshot,
    new: Snapshot,
    seen_before: Sight,
    seen_now: Sight,
    changed: Changes,
    turned: frozenset[NodeID] = frozenset(),
    faces: Faces = ALL_PLAIN,
) -> Steps:
    """Give what viewers of one outlook are told of others; ``turned`` show another face now.

    A viewer's own id may be in it: see ``Steps.without``.
    """
    if seen_before is seen_now:
        gone: Iterable[NodeID] = _shown(seen_now, changed.dropped)
        whole = set(_shown(seen_now, changed.added))
        stayed = set(_shown(seen_now, changed.transitions.keys()))
        turned = _shown(seen_now, turned) & old.nodes.keys() & new.nodes.keys()
    else:
        before = _shown(seen_before, old.nodes.keys())
        now = _shown(seen_now, new.nodes.keys())
        gone = before - now
        whole = set(now - before)
        stayed = set(before & now & changed.transitions.keys())
        turned = before & now & turned
    again: list[NodeID] = []
    patches: list[tailcfg.PeerChange] = []
    unseen: list[NodeID] = []
    for node_id in sorted(stayed):
        found = changed.transitions[node_id]
        if isinstance(found, Patch):
            if found.change is not None:
                patches.append(found.change)
            if found.unseen:
                unseen.append(node_id)
        else:
            whole.add(node_id)
            # What made it whole may be the address that is hidden: then only patches are left.
            if found is Resend.AGAIN or faces.get(node_id, PLAIN).hides_ipv4:
                again.append(node_id)
    # Besides the patch, which clients apply after it: of a whole peer that only differs in what
    # can be patched they take over just a part.
    whole |= turned
    owners = _owners_to_tell(new, whole, seen_before, changed)
    if changed.users:
        visible = _shown(seen_now, new.nodes.keys())
        owners |= changed.users.intersection(new.nodes[node_id].owner_id for node_id in visible)
    return Steps(
        gone=tuple(sorted(gone)),
        again=tuple(again),
        whole=tuple(sorted(whole)),
        patches=tuple(patches),
        unseen=tuple(unseen),
        owners=tuple(sorted(owners)),
    )


def _owners_to_tell(
    new: Snapshot, whole: Iterable[NodeID], seen_before: Sight, changed: Changes
) -> set[UserID]:
    """Return the owners of ``whole`` that viewers of ``seen_before`` knew no node of.

    The others have the profile already. A profile costs every client a rebuild of its netmap
    (``rebuilding_domain``), so nodes that join for a known owner come without.
    """
    owners: set[UserID] = set()
    for node_id in whole:
        owner = new.nodes[node_id].owner_id
        if owner in owners:
            continue
        owned = changed.owned.of(owner)
        if not owned or (seen_before.nodes is not None and owned.isdisjoint(seen_before.nodes)):
            owners.add(owner)
    return owners


def rebuilding_domain(new: Snapshot, common: Common, told: tuple[tailcfg.UserProfile, ...]) -> str:
    """Return the ``Domain`` of a delta: the new one, or with profiles the one that it is.

    Since 1.102 a client applies a message of peers and profiles alone one by one, and ``tailscale
    status`` goes on to show the profiles of the last netmap that was rebuilt as a whole:
    ``userid:3`` instead of a name. Any field that is neither makes it rebuild; this one is short.
    Source: tailscale v1.102.5 types/netmap/nodemut.go (mapResponseContainsNonPatchFields).
    """
    return common.domain or (new.tailnet.domain if told else "")


def own_between(
    old: Snapshot,
    new: Snapshot,
    viewer: NodeID,
    changed: Changes,
    of: Band,
    personal: Personal | None,
) -> Own:
    """Give what one viewer is told of itself; ``personal`` if DNS is up to the node."""
    was, now = old.nodes[viewer], new.nodes[viewer]
    owners: tuple[UserID, ...] = ()
    if was.owner_id != now.owner_id or now.owner_id in changed.users:
        owners = (now.owner_id,)
    before, after = old.compiled.packet_filter(viewer), new.compiled.packet_filter(viewer)
    node = None
    told_before, told_now = ssh_rules(old, viewer), ssh_rules(new, viewer)
    told = None
    if told_before is not told_now and told_before != told_now:
        told = told_now
    if is_self_touched(old, new, viewer):
        shown = self_node(new, now)
        node = None if shown == self_node(old, was) else shown
    return Own(
        node=node,
        packet_filter=None if before is after or before == after else fit_rules(after, of),
        ssh_policy=told,
        dns_config=None if personal is None else own_dns_between(personal, old, new, viewer),
        owners=owners,
    )


def is_self_touched(old: Snapshot, new: Snapshot, viewer: NodeID) -> bool:
    """Tell whether a viewer's own node may look different to it."""
    was, now = old.nodes[viewer], new.nodes[viewer]
    return (
        (was is not now and any(getattr(was, name) != getattr(now, name) for name in _SELF_SEES))
        or old.presence_of(viewer).expired != new.presence_of(viewer).expired
        or are_all_touched(old, new)
        or (
            (old.compiled is not new.compiled or old.routes is not new.routes)
            and (
                own_face(old, viewer) != own_face(new, viewer)
                or own_attributes(old, viewer) != own_attributes(new, viewer)
            )
        )
    )


_SELF_SEES = tuple(
    field.name
    for field in fields(Node)
    if field.name not in UNSEEN and field.name not in ("endpoints", "disco_key")
)


def are_all_touched(old: Snapshot, new: Snapshot) -> bool:
    """Tell whether every node may look different to itself."""
    return (
        old.settings.file_sharing != new.settings.file_sharing
        or old.tailnet.domain != new.tailnet.domain
    )


def common_between(old: Snapshot, new: Snapshot, of: Band) -> Common:
    """Give what every node of the tailnet is told."""
    if old.settings is new.settings and old.tailnet is new.tailnet:
        return _NOTHING_COMMON
    derps, dns = derp_map(new), None
    if not is_personal(old) and not is_personal(new) and dns_config(new) != dns_config(old):
        dns = dns_config(new)
    return Common(
        dns_config=dns,
        derp_map=None if derps == derp_map(old) else fit_derp_map(derps, of),
        domain="" if old.tailnet.domain == new.tailnet.domain else new.tailnet.domain,
        disable_logs=new.settings.disable_logs and not old.settings.disable_logs,
    )


def _shown(sight: Sight, ids: Iterable[NodeID]) -> frozenset[NodeID]:
    return frozenset(ids) if sight.nodes is None else sight.nodes.intersection(ids)
