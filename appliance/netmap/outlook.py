"""How a viewer sees its peers: which of them, with which routes, with which addresses.

Viewers with an equal ``Outlook`` are told the same of every peer, so the encoder shares their
bytes. What a peer looks like is its record, its presence, and its ``Face`` in that outlook. Not
for deciding any of it (``policy``). Sits on ``tailnet.snapshot``.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from collections.abc import Set as AbstractSet
from typing import NamedTuple, TypeAlias

from appliance.policy.engine import nodeattrs
from appliance.policy.engine.compile import Sight
from appliance.policy.engine.routes import NO_ROUTES_SEEN, PeerRoutes
from appliance.policy.engine.state import State
from appliance.records import NodeID
from appliance.tailnet import routes
from appliance.tailnet.snapshot import Snapshot

NO_ROUTES = PeerRoutes()


class SeenRoutes:
    """The routes of all peers as some viewers see them; compared by identity."""

    __slots__ = ("by_peer",)

    def __init__(self, by_peer: Mapping[NodeID, PeerRoutes]) -> None:
        self.by_peer = by_peer


class Outlook(NamedTuple):
    """All that decides what peers look like to a viewer; equal ones see the same."""

    sight: Sight
    routes: SeenRoutes
    hides_ipv4: bool = False


class Face(NamedTuple):
    """What of a peer is not in its record: routes, whether its IPv4 address is kept back."""

    routes: PeerRoutes = NO_ROUTES
    hides_ipv4: bool = False
    is_exit: bool = False
    has_subdomains: bool = False


Faces: TypeAlias = "Mapping[NodeID, Face]"
PLAIN = Face()
ALL_PLAIN: Faces = {}
_NONE_SEEN = SeenRoutes(NO_ROUTES_SEEN)


class Outlooks:
    """The outlooks of one compiled policy and one set of routers, each made when asked for."""

    def __init__(self, snapshot: Snapshot, before: Outlooks | None = None) -> None:
        self._nodes = snapshot.nodes
        self._compiled = snapshot.compiled
        self._table = snapshot.routes
        self._state = snapshot.compiled.state
        self._made: dict[NodeID, Outlook] = {}
        self._faces: dict[tuple[SeenRoutes, bool], Faces] = {}
        self._seen: dict[int, SeenRoutes] = {}
        self._seen_before = {} if before is None else before._seen  # noqa: SLF001 - one of us
        self._hiding: dict[NodeID, bool] = {}
        self._may_hide = self._state is not None and nodeattrs.may_hide_ipv4(self._state)
        self._with_subdomains = _with_subdomains(self._state)
        self._served = _NONE_SEEN
        if self._state is None:
            self._served = _served(snapshot, _NONE_SEEN if before is None else before._served)  # noqa: SLF001 - one of us

    def is_of(self, snapshot: Snapshot) -> bool:
        """Return whether these are still the outlooks of a snapshot."""
        return (
            snapshot.compiled is self._compiled
            and snapshot.routes is self._table
            and (self._state is not None or snapshot.nodes is self._nodes)
        )

    def of(self, viewer: NodeID) -> Outlook:
        """Return the outlook of a viewer."""
        made = self._made.get(viewer)
        if made is None:
            sight = self._compiled.sight(viewer)
            made = self._made[viewer] = Outlook(sight, self._routes(viewer), self._hides(viewer))
        return made

    def faces(self, outlook: Outlook) -> Faces:
        """Return the faces in an outlook of all nodes, seen or not, whose face is not plain."""
        key = outlook.routes, outlook.hides_ipv4
        made = self._faces.get(key)
        if made is None:
            near = self._peculiar(outlook)
            made = {node_id: face for node_id in near if (face := self._face(outlook, node_id))}
            made = self._faces[key] = made or ALL_PLAIN
        return made

    def _face(self, outlook: Outlook, peer: NodeID) -> Face | None:
        known = outlook.routes.by_peer.get(peer, NO_ROUTES)
        hides = outlook.hides_ipv4 or self._hides(peer)
        state = self._state
        is_exit = state is not None and bool(state.routes(peer).exits)
        face = Face(known, hides, is_exit, peer in self._with_subdomains)
        return None if face == PLAIN else face

    def _hides(self, node_id: NodeID) -> bool:
        """Return whether a node neither shows nor sees IPv4 addresses."""
        if not self._may_hide or self._state is None:
            return False
        known = self._hiding.get(node_id)
        if known is None:
            known = self._hiding[node_id] = _has_no_ipv4(self._state, node_id)
        return known

    def _peculiar(self, outlook: Outlook) -> Iterable[NodeID]:
        """Return the nodes whose face may be another than plain."""
        if self._state is None:
            return outlook.routes.by_peer
        if self._may_hide:
            return self._state.nodes
        return self._with_subdomains.union(self._state.routers)

    def _routes(self, viewer: NodeID) -> SeenRoutes:
        if self._state is None:
            return self._served
        if self._table is None:
            return _NONE_SEEN
        by_peer = self._table.seen(viewer)
        if not by_peer:
            return _NONE_SEEN
        # By identity: what is kept here keeps the mapping, so no other one can have its id.
        known = self._seen.get(id(by_peer))
        if known is None:
            known = self._seen_before.get(id(by_peer))
            if known is None or known.by_peer is not by_peer:
                known = SeenRoutes(by_peer)
            self._seen[id(by_peer)] = known
        return known


def changed_faces(before: Faces, now: Faces) -> frozenset[NodeID]:
    """Return the nodes that show another face now."""
    if before is now:
        return frozenset()
    near = before.keys() | now.keys()
    return frozenset(i for i in near if before.get(i, PLAIN) != now.get(i, PLAIN))


def own_attributes(snapshot: Snapshot, node_id: NodeID) -> nodeattrs.Attributes:
    """Return the attributes that the policy gives a node itself."""
    state = snapshot.compiled.state
    if state is None or node_id not in state.matches:
        return {}
    return nodeattrs.attributes(state, node_id)


def own_face(snapshot: Snapshot, viewer: NodeID, given: nodeattrs.Attributes) -> Face:
    """Return what a node is told of its own routes and addresses; ``given`` are its attributes."""
    state, table = snapshot.compiled.state, snapshot.routes
    if state is None or table is None:
        return Face(_all_routes(snapshot, viewer))
    if viewer not in state.matches:
        return PLAIN
    return Face(table.own(viewer), nodeattrs.DISABLE_IPV4 in given)


def _with_subdomains(state: State | None) -> frozenset[NodeID]:
    if state is None or not nodeattrs.may_resolve_subdomains(state):
        return frozenset()
    return frozenset(i for i in state.nodes if nodeattrs.resolves_subdomains(state, i))


def _has_no_ipv4(state: State, node_id: NodeID) -> bool:
    return node_id in state.matches and nodeattrs.has_no_ipv4(state, node_id)


def _served(snapshot: Snapshot, before: SeenRoutes) -> SeenRoutes:
    """Return the routes that all routers serve, for a snapshot in which nobody chose among them."""
    routers = [node.id for node in snapshot.nodes.values() if node.approved_routes]
    found = {i: served for i in routers if (served := _all_routes(snapshot, i)).allowed}
    return before if before.by_peer == found else SeenRoutes(found)


def _all_routes(snapshot: Snapshot, node_id: NodeID) -> PeerRoutes:
    served = routes.served(snapshot.nodes[node_id])
    return PeerRoutes(served, tuple(route for route in served if not routes.is_exit(route)))


def shown(snapshot: Snapshot, sight: Sight) -> AbstractSet[NodeID]:
    """Return the ids of all nodes that a visibility class sees."""
    nodes = sight.nodes
    return snapshot.nodes.keys() if nodes is None else nodes & snapshot.nodes.keys()


def visible(snapshot: Snapshot, sight: Sight) -> list[NodeID]:
    """Return the ids of all nodes that a visibility class sees, in order.

    A viewer's own id may be among them: it is never its own peer.
    """
    return sorted(shown(snapshot, sight))
