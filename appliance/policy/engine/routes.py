"""Routes as each viewer sees them: which router carries what for whom.

``elect`` chooses among several routers of one route, for everyone and for each group of routers
that ``via`` names; ``seen`` tells a viewer which routes to use through which peer. Not for approval
(``approvers``) and not for health: who is online is an argument. Sits on ``state``.
Source: headscale 0.30-dev hscontrol/state/node_store.go (electPrimaryRoutes); the recorded answers
(357 elections: the lowest of those online;
a viewer that a rule without ``via`` lets to the route uses the one for everyone, unless that rule
only says ``*``: or ``via`` would mean nothing beside a rule that allows all).
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping
from copy import copy
from dataclasses import dataclass, field
from typing import TypeAlias

from appliance.policy.engine.bits import of, ones
from appliance.policy.engine.matches import Path, RuleIndex
from appliance.policy.engine.state import State
from appliance.policy.text import spans
from appliance.policy.text.selectors import Kind
from appliance.records import Network, NodeID

MAX_PATHS = 10_000
"""Routes remembered for one policy; a tailnet of some thousand nodes serves some hundred."""

_Key: TypeAlias = "tuple[int, int, tuple[Network, ...]]"
Group = tuple[Network, frozenset[str]]
"""A route, and the tags that ``via`` asks of its router; no tags: for everyone."""


@dataclass(frozen=True, slots=True)
class PeerRoutes:
    """What a viewer is told of one peer: routes to send there; ``primary`` of them are subnets."""

    allowed: tuple[Network, ...] = ()
    primary: tuple[Network, ...] = ()


@dataclass(frozen=True, slots=True)
class Elections:
    """The router chosen for each route and group of routers."""

    chosen: Mapping[Group, NodeID] = field(default_factory=dict)

    def primary(self, route: Network) -> NodeID | None:
        """Return the router of a route for everyone."""
        return self.chosen.get((route, frozenset()))


def elect(
    state: State, is_usable: Callable[[NodeID], bool], before: Elections | None = None
) -> Elections:
    """Choose the router of every route and group.

    One that was chosen stays while it is usable (no fail-back); else the lowest usable id; if
    none is usable the one before stays while it still serves the route.
    """
    groups = {flow.via for flow in state.rule_index.via} | {frozenset[str]()}
    candidates: defaultdict[Group, list[NodeID]] = defaultdict(list)
    for node_id, routes in sorted(state.routers.items()):
        tags = state.nodes[node_id].tags
        mine = [group for group in groups if not group or not group.isdisjoint(tags)]
        for route in routes.subnets:
            for group in mine:
                candidates[route, group].append(node_id)
    chosen: dict[Group, NodeID] = {}
    for key, nodes in candidates.items():
        last = before.chosen.get(key) if before is not None else None
        if last in nodes and last is not None and is_usable(last):
            chosen[key] = last
            continue
        usable = next((node_id for node_id in nodes if is_usable(node_id)), None)
        chosen[key] = usable or (last if last is not None and last in nodes else nodes[0])
    if before is not None and before.chosen == chosen:
        return before
    return Elections(chosen)


Seen: TypeAlias = "Mapping[NodeID, PeerRoutes]"
NO_ROUTES_SEEN: Seen = {}


class RouteTable:
    """The routes of one state under one set of elections; viewers with equal ones share objects.

    What says the same as in the table ``before`` is the same object as there.
    """

    def __init__(
        self, state: State, elections: Elections, before: RouteTable | None = None
    ) -> None:
        self.state = state
        self.elections = elections
        self._known: dict[_Key, Seen] = {}
        self._before: Mapping[_Key, Seen] = {} if before is None else before.known
        routes = {route for each in state.routers.values() for route in each.subnets}
        self._paths = {route: _path(state.rule_index, route) for route in routes}
        rule_index = state.rule_index
        self._to_all = rule_index.to_all
        self._to_exits = rule_index.internet | rule_index.exit_literals
        self._via_exits = [
            flow
            for flow in rule_index.via
            if any(selector.kind is Kind.INTERNET for selector in flow.dst)
        ]
        self._src = self._to_exits | self._to_all | of(flow.number for flow in rule_index.via)
        self._dst = 0
        for path in self._paths.values():
            self._src |= path.towards
            self._dst |= path.back

    def at(self, state: State) -> RouteTable:
        """Return the table of another state in which no router differs, nor the policy."""
        other = copy(self)
        other.state = state
        return other

    @property
    def known(self) -> Mapping[_Key, Seen]:
        """What was asked for so far."""
        return self._known

    def seen(self, viewer: NodeID) -> Seen:
        """Return the routes that a viewer may use, by peer; peers without any are left out.

        A peer that the viewer does not see may be named: its routes then mean nothing.
        """
        if not self.state.routers:
            return NO_ROUTES_SEEN
        matches = self.state.matches.get(viewer)
        if matches is None:
            return NO_ROUTES_SEEN
        own = self.state.routes(viewer).subnets
        key = matches.src & self._src, matches.dst & self._dst, own
        known = self._known.get(key)
        if known is None:
            known, before = self._see(*key), self._before.get(key)
            known = self._known[key] = before if before == known else known or NO_ROUTES_SEEN
        return known

    def own(self, node_id: NodeID) -> PeerRoutes:
        """Return the routes that a node serves; ``primary`` are those that it was chosen for."""
        routes = self.state.routes(node_id)
        primary = tuple(r for r in routes.subnets if self.elections.primary(r) == node_id)
        return PeerRoutes((*routes.subnets, *routes.exits), primary)

    def _see(self, src: int, dst: int, own: tuple[Network, ...]) -> Mapping[NodeID, PeerRoutes]:
        found: defaultdict[NodeID, list[Network]] = defaultdict(list)
        for route in self._paths:
            for node_id in self._routers(route, src, dst, own):
                found[node_id].append(route)
        for node_id in self._exits(src):
            found[node_id] += self.state.routes(node_id).exits
        return {
            node_id: PeerRoutes(
                tuple(sorted(routes, key=_order)),
                tuple(sorted((route for route in routes if route.prefixlen), key=_order)),
            )
            for node_id, routes in found.items()
        }

    def _routers(
        self, route: Network, src: int, dst: int, own: tuple[Network, ...]
    ) -> list[NodeID]:
        path = self._paths[route]
        if not src & path.towards:
            steered = (
                self.elections.chosen.get((route, flow.via))
                for flow in path.via
                if src >> flow.number & 1
            )
            found = list(dict.fromkeys(node_id for node_id in steered if node_id is not None))
            if found:
                return found
            # A router of the same route learns which other one carries it (recorded).
            if not (src & self._to_all or dst & path.back or route in own):
                return []
        chosen = self.elections.primary(route)
        return [] if chosen is None else [chosen]

    def _exits(self, src: int) -> list[NodeID]:
        exits = [node_id for node_id, routes in self.state.routers.items() if routes.exits]
        if src & self._to_exits:
            return exits
        tags: set[str] = set()
        for flow in self._via_exits:
            if src >> flow.number & 1:
                tags |= flow.via
        if not tags and src & self._to_all:
            return exits
        return [node_id for node_id in exits if not tags.isdisjoint(self.state.nodes[node_id].tags)]


def _order(route: Network) -> tuple[int, int, int]:
    return route.version, int(route.network_address), route.prefixlen


def _path(rule_index: RuleIndex, route: Network) -> Path:
    """Return the flows that lead to a route or come from it; remembered, for no node matters."""
    known = rule_index.paths.get(route)
    if known is None:
        if len(rule_index.paths) >= MAX_PATHS:
            rule_index.paths.clear()
        towards, back, steered = rule_index.path(spans.of_network(route))
        via = tuple(rule_index.flows[number] for number in ones(steered))
        known = rule_index.paths[route] = Path(towards, back, via)
    return known
