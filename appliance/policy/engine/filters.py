"""State to packet filters: the rules that one node enforces, made when it asks.

Not for who sees whom. Rules that are equal for many nodes are one object, and so are whole
filters, so that they are encoded once. Sits on ``state``.
Source: tailscale 1.102 tailcfg/tailcfg.go (FilterRule), wgengine/filter/tailcfg.go; order and
spelling follow the recorded answers.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from operator import is_
from typing import TypeAlias

from msgspec.structs import replace

from appliance.policy.engine.bits import ones
from appliance.policy.engine.flows import Flow
from appliance.policy.engine.matches import Matches, spans_of, via_spans
from appliance.policy.engine.sources import Sources
from appliance.policy.engine.spantable import is_internet
from appliance.policy.engine.state import State
from appliance.policy.text import spans
from appliance.policy.text.ports import Ports
from appliance.policy.text.selectors import Kind, Selector
from appliance.policy.text.spans import Span
from appliance.records import Network, Node, NodeID
from appliance.wire import tailcfg
from appliance.wire.tailcfg.capver import CAPVER_PEER_RELAY
from appliance.wire.tailcfg.message import address_text, parse_prefix

Rules: TypeAlias = "tuple[tailcfg.FilterRule, ...]"
NO_RULES: Rules = ()

_RELAY = frozenset({"tailscale.com/cap/relay", "tailscale.com/cap/relay-target"})

_Destinations: TypeAlias = "tuple[tuple[str, tuple[Ports, ...]], ...]"


class _Entry:
    """A filter and what it was made from; it is good while all of that is the same object."""

    __slots__ = ("parts", "rules")

    def __init__(self, parts: tuple[object, ...], rules: Rules) -> None:
        self.parts = parts
        self.rules = rules


class Kept:
    """Filters made so far for one state, and those of the state before that may still be good.

    Holds at most one entry per node for each of the two.
    """

    __slots__ = (
        "_before",
        "_filters",
        "_now",
        "_order",
        "_own",
        "_ports",
        "_shared",
        "logins",
        "principals",
    )

    def __init__(self, before: dict[NodeID, _Entry] | None = None) -> None:
        self.logins: dict[tuple[object, ...], object] = {}
        """What ``ssh`` keeps: rules that many nodes share."""
        self.principals: dict[tuple[object, ...], tuple[tailcfg.SSHPrincipal, ...]] = {}
        """What ``ssh`` keeps of this state alone: the addresses of some nodes."""
        self._before = before or {}
        self._now: dict[NodeID, _Entry] = {}
        self._shared: dict[tuple[Sources, tuple[int, ...], _Destinations], tailcfg.FilterRule] = {}
        self._filters: dict[tuple[int, ...], Rules] = {}
        self._ports: dict[tuple[str, Ports], tailcfg.NetPortRange] = {}
        self._own: dict[int, Sources] = {}
        self._order: dict[tuple[Sources, tuple[int, ...]], int] = {}

    def heir(self, alive: Mapping[NodeID, Node]) -> Kept:
        """Return the store for the next state; nodes that are gone are forgotten now and then."""
        entries = {**self._before, **self._now}
        if len(entries) > 2 * len(alive) + 16:
            entries = {each: entry for each, entry in entries.items() if each in alive}
        return Kept(entries)

    def rules(self, state: State, node_id: NodeID) -> Rules:
        """Return the filter of a node; the same object as before if nothing in it changed."""
        entry = self._now.get(node_id)
        if entry is None:
            if not self._order:
                self._order = _order(state)
            parts = self._parts(state, node_id)
            entry = self._before.get(node_id)
            if entry is None or not _is_same(entry.parts, parts):
                entry = _Entry(parts, self._make(state, node_id))
            self._now[node_id] = entry
        return entry.rules

    def _parts(self, state: State, node_id: NodeID) -> tuple[object, ...]:
        """Return everything that a node's filter is made from, its order as a number at the end."""
        matches, node = state.matches[node_id], state.nodes[node_id]
        owner = state.users.get(node.user_id) if node.user_id is not None else None
        routes = state.routers.get(node_id)
        parts: list[object] = [matches, node.ipv4, node.ipv6, node.tags, owner, routes]
        order = 0
        for number in ones(matches.dst & state.rule_index.packets):
            flow = state.rule_index.flows[number]
            sources = state.sources[flow.source]
            parts.append(sources)
            order |= 1 << self._order.get((sources, flow.protocols), 0)
        if matches.owner is not None:
            for other in state.owned.get(matches.owner, ()):
                record = state.nodes[other]
                parts += (state.matches[other], record.ipv4, record.ipv6)
        return (*parts, order)

    def _make(self, state: State, node_id: NodeID) -> Rules:
        rules = tuple(rule for _, rule in sorted(self._rules(state, node_id), key=_first))
        return self._filters.setdefault(tuple(map(id, rules)), rules)

    def _rules(
        self, state: State, node_id: NodeID
    ) -> Iterator[tuple[tuple[int, int], tailcfg.FilterRule]]:
        """Return the rules of a node, each with its place in the order.

        Packets from the same sources with the same protocols are one rule, which stands where the
        policy first has such a pair, whether or not that first one ends at this node.
        """
        node, matches = state.nodes[node_id], state.matches[node_id]
        me = _Me(state, node)
        merged: dict[tuple[Sources, tuple[int, ...]], list[tuple[str, tuple[Ports, ...]]]] = {}
        places: dict[tuple[Sources, tuple[int, ...]], int] = {}
        for number in ones((matches.dst | matches.self_dst) & state.rule_index.packets):
            flow = state.rule_index.flows[number]
            sources = self._sources(state, flow, matches)
            if sources is None:
                continue
            if flow.capabilities is not None:
                rule = _capability_rule(flow, me, sources)
                if rule is not None:
                    yield (number, 1), rule
                continue
            if sources.is_empty:
                continue
            key = sources, flow.protocols
            is_own = flow.is_self or bool(flow.via)
            place = number if is_own else self._order.get(key, number)
            places[key] = min(place, places.get(key, place))
            texts = _destinations(state, flow, me)
            merged.setdefault(key, []).extend((text, flow.ports) for text in texts)
        for key, destinations in merged.items():
            if destinations:
                yield (places[key], 0), self._packets(*key, tuple(destinations))

    def _sources(self, state: State, flow: Flow, matches: Matches) -> Sources | None:
        """Return who a flow lets in: for ``autogroup:self`` the owner's nodes that may start it."""
        if not flow.is_self:
            return state.sources[flow.source]
        if matches.owner is None:
            return None
        bit = 1 << flow.number
        starters = [
            other
            for other in state.owned.get(matches.owner, ())
            if state.matches[other].self_src & bit
        ]
        if not starters:
            return None
        if not self._own:
            # So that a rule for one user and one for the user's own devices become one.
            self._own = {each.nodes: each for each in state.sources if each.is_of_nodes}
        nodes = state.bits_of(starters)
        known = self._own.get(nodes)
        if known is None:
            addresses = (a for other in starters for a in state.nodes[other].addresses)
            texts = tuple(sorted(address_text(address) for address in addresses))
            known = self._own[nodes] = Sources(nodes, (), texts=texts)
        return known

    def _packets(
        self, sources: Sources, protocols: tuple[int, ...], destinations: _Destinations
    ) -> tailcfg.FilterRule:
        key = sources, protocols, destinations
        rule = self._shared.get(key)
        if rule is None:
            rule = self._shared[key] = tailcfg.FilterRule(
                src_ips=sources.texts,
                dst_ports=tuple(
                    self._port(text, ports) for text, many in destinations for ports in many
                ),
                ip_proto=protocols,
            )
        return rule

    def _port(self, text: str, ports: Ports) -> tailcfg.NetPortRange:
        known = self._ports.get((text, ports))
        if known is None:
            known = self._ports[text, ports] = tailcfg.NetPortRange(
                ip=text, ports=tailcfg.PortRange(first=ports.first, last=ports.last)
            )
        return known


def _first(pair: tuple[tuple[int, int], tailcfg.FilterRule]) -> tuple[int, int]:
    return pair[0]


def _is_same(before: tuple[object, ...], now: tuple[object, ...]) -> bool:
    if len(before) != len(now) or before[-1] != now[-1]:
        return False
    return all(map(is_, before[:-1], now[:-1]))


def _order(state: State) -> dict[tuple[Sources, tuple[int, ...]], int]:
    first: dict[tuple[Sources, tuple[int, ...]], int] = {}
    for flow in state.rule_index.flows:
        if flow.capabilities is None and not (flow.is_self or flow.via or flow.is_login):
            first.setdefault((state.sources[flow.source], flow.protocols), flow.number)
    return first


class _Me:
    """What a node is to the flows that end at it."""

    __slots__ = ("_spans", "keys", "node", "own", "routes", "state")

    def __init__(self, state: State, node: Node) -> None:
        self.state = state
        self.node = node
        self.routes = state.routes(node.id)
        self.keys = frozenset(state.rule_index.keys_of(node, state.users))
        self.own = sorted(address_text(address) for address in node.addresses)
        self._spans: set[Span] | None = None

    def leads_to(self, span: Span) -> bool:
        """Return whether the node has an address in a span, or carries packets to it."""
        if self._spans is None:
            self._spans = self.state.rule_index.spans_at(self.node, self.routes)
        return span in self._spans or (bool(self.routes.exits) and is_internet(span))

    def spans_of(self, selector: Selector) -> tuple[Span, ...]:
        """Return the spans of a selector, whether or not they lead here."""
        return spans_of(selector, self.state.rule_index.background)


def _destinations(state: State, flow: Flow, me: _Me) -> list[str]:
    """Spell the part of a flow's destinations that this node is, or leads to."""
    if flow.is_self:
        return me.own
    found: list[str] = []
    for selector in flow.dst:
        if flow.via:
            found += via_spans(selector, me.routes, state.rule_index.background)
        elif selector.kind in (Kind.EVERYONE, Kind.DANGER_ALL):
            found.append("*")
        elif selector.kind is Kind.INTERNET:
            found += spans.INTERNET_TEXTS if me.routes.exits else ()
        elif selector.kind in (Kind.ADDRESSES, Kind.SERVICE):
            found += sorted(span.text for span in me.spans_of(selector) if me.leads_to(span))
        elif (selector.kind, selector.name) in me.keys:
            found += me.own
    return found


def _capability_rule(flow: Flow, me: _Me, sources: Sources) -> tailcfg.FilterRule | None:
    """Grant capabilities; through ``via`` none are granted (recorded)."""
    if flow.via:
        return None
    grants: list[tailcfg.CapGrant] = []
    known: set[tuple[Network, ...]] = set()
    for selector in flow.dst if not flow.is_self else (None,):
        mine = _own_prefixes(me, selector)
        if mine and mine not in known:
            known.add(mine)
            grants.append(tailcfg.CapGrant(dsts=mine, cap_map=dict(flow.capabilities or {})))
    if not grants:
        return None
    return tailcfg.FilterRule(src_ips=sources.texts, cap_grant=tuple(grants))


def _own_prefixes(me: _Me, selector: Selector | None) -> tuple[Network, ...]:
    """Return where a node grants capabilities: its addresses, and prefixes that it routes to."""
    addresses = me.node.addresses
    routed: list[Network] = []
    if selector is not None and selector.kind in (Kind.ADDRESSES, Kind.SERVICE):
        mine = [span for span in me.spans_of(selector) if me.leads_to(span)]
        addresses = tuple(a for a in addresses if any(span.holds(a) for span in mine))
        served = [spans.of_network(route) for route in me.routes.subnets]
        for span in mine if served else ():
            if any(span.meets(each) for each in served):
                routed += span.networks()
    elif selector is not None and (selector.kind, selector.name) not in me.keys:
        return ()
    own = [parse_prefix(f"{address_text(each)}/{each.max_prefixlen}") for each in addresses]
    return tuple(dict.fromkeys((*own, *routed)))


def fit_rules(rules: Rules, capver: int) -> Rules:
    """Return the part of a filter that a client of this capability version understands.

    The same object if that is all. Source: tailscale tailcfg/tailcfg.go (CapabilityVersion 120:
    peer relays).
    """
    if capver >= CAPVER_PEER_RELAY or not any(rule.cap_grant for rule in rules):
        return rules
    fitted = []
    for rule in rules:
        grants = tuple(
            tailcfg.CapGrant(dsts=grant.dsts, cap_map=kept)
            for grant in rule.cap_grant
            if (kept := {k: v for k, v in grant.cap_map.items() if k not in _RELAY})
        )
        if grants or not rule.cap_grant:
            fitted.append(rule if grants == rule.cap_grant else replace(rule, cap_grant=grants))
    return tuple(fitted)
