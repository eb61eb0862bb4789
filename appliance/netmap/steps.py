"""What viewers of one outlook are told of their peers between two snapshots, step by step.

Not for what a viewer is told of itself or all are told alike (``fields``). Sits on ``changes``,
which knows what differs at all, and ``outlook``.

Source: tailscale tailcfg/tailcfg.go (MapResponse), control/controlclient/map.go.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace

from appliance.netmap.changes import Changes, Patch, Resend
from appliance.netmap.outlook import ALL_PLAIN, PLAIN, Faces, shown
from appliance.policy.engine.compile import Sight
from appliance.records import NodeID, UserID
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
        """Return the steps for a viewer that is itself among the nodes concerned."""
        return Steps(
            gone=tuple(node_id for node_id in self.gone if node_id != viewer),
            again=tuple(node_id for node_id in self.again if node_id != viewer),
            whole=tuple(node_id for node_id in self.whole if node_id != viewer),
            patches=tuple(patch for patch in self.patches if patch.node_id != viewer),
            unseen=tuple(node_id for node_id in self.unseen if node_id != viewer),
            owners=self.owners,
        )

    def with_owners(self, owners: Collection[UserID]) -> Steps:
        """Return the steps with the profiles of more users."""
        if all(owner in self.owners for owner in owners):
            return self
        return replace(self, owners=tuple(sorted({*self.owners, *owners})))

    def removed_first(self) -> tuple[NodeID, ...]:
        """Return the nodes of a message that goes before, if there must be one."""
        return tuple(sorted((*self.gone, *self.again))) if self.again else ()


def steps_between(
    old: Snapshot,
    new: Snapshot,
    seen_before: Sight,
    seen_now: Sight,
    changed: Changes,
    turned: AbstractSet[NodeID] = frozenset(),
    faces: Faces = ALL_PLAIN,
) -> Steps:
    """Return what viewers of one outlook are told of others; ``turned`` show another face now.

    A viewer's own id may be in it: see ``Steps.without``.
    """
    if seen_before is seen_now:
        gone: Iterable[NodeID] = seen_now.among(changed.dropped)
        whole = set(seen_now.among(changed.added))
        stayed = set(seen_now.among(changed.transitions.keys()))
        turned = seen_now.among(turned) & old.nodes.keys() & new.nodes.keys()
    else:
        before, now = shown(old, seen_before), shown(new, seen_now)
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
    owners = _owners_to_tell(old, new, whole, seen_before)
    if changed.users:
        visible = shown(new, seen_now)
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
    old: Snapshot, new: Snapshot, whole: Iterable[NodeID], seen_before: Sight
) -> set[UserID]:
    """Return the owners of ``whole``, but for nodes that were seen before as theirs.

    Who saw such a node has the profile, and a profile costs every client a rebuild of its netmap
    (``fields.with_rebuild``).
    """
    owners = set()
    for node_id in whole:
        owner, was = new.nodes[node_id].owner_id, old.nodes.get(node_id)
        if was is None or was.owner_id != owner or not seen_before.shows(node_id):
            owners.add(owner)
    return owners


def own_owners(
    old: Snapshot, new: Snapshot, viewer: NodeID, changed: Changes
) -> tuple[UserID, ...]:
    """Return the owner of a viewer if it needs the profile, which may be the owner's alone."""
    was, now = old.nodes[viewer].owner_id, new.nodes[viewer].owner_id
    return (now,) if was != now or now in changed.users else ()
