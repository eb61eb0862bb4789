"""Node to standing: which flows name a node as source, which end at it.

A ``Program`` is a policy made ready for that question: it knows for every selector key (a tag, a
login, a group, ``autogroup:…``) the flows that mention it, and finds literal addresses without
trying them all. Standing depends on one node and its owner alone, so a change of one node costs
one look-up. Not for lists of addresses or rules (``state``, ``filters``). Sits on ``flows``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from appliance.policy import spans
from appliance.policy.bits import of
from appliance.policy.flows import Flow, Login, flows_of, logins_of
from appliance.policy.language import Background, Policy
from appliance.policy.loginsections import local_part_domain
from appliance.policy.postures import attributes_of
from appliance.policy.selectors import PEOPLE, Kind, Selector
from appliance.policy.spans import Span
from appliance.records import Address, Network, Node, Role, User, UserID

Key = tuple[Kind, str]
_EVERYONE: Key = (Kind.EVERYONE, "")
_UNLISTED = frozenset({Kind.EVERYONE, Kind.DANGER_ALL, Kind.ADDRESSES, Kind.SERVICE})
"""Sources that rules spell by words or addresses of their own, not by those of nodes."""


@dataclass(frozen=True, slots=True)
class Standing:
    """What the flows say of a node, as sets of flow numbers; nodes with equal ones are one class.

    ``src``: flows that may start at it (or at a subnet behind it). ``dst``: flows that end at it.
    ``listed``: numbers of sources that spell out its addresses. ``owner`` is set if a flow to
    ``autogroup:self`` serves the user: then ``self_dst`` are these flows and ``self_src`` those
    that may start at this node.
    """

    src: int = 0
    dst: int = 0
    listed: int = 0
    self_src: int = 0
    self_dst: int = 0
    owner: UserID | None = None


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes that a node serves: offered and approved."""

    subnets: tuple[Network, ...] = ()
    exits: tuple[Network, ...] = ()


NO_ROUTES = Routes()


def routes_of(node: Node) -> Routes:
    """Give the routes that a node serves."""
    if not node.approved_routes:
        return NO_ROUTES
    offered = set(node.hostinfo.routable_ips)
    served = [route for route in node.approved_routes if route in offered]
    if not served:
        return NO_ROUTES
    served.sort(key=lambda route: (route.version, int(route.network_address), route.prefixlen))
    return Routes(
        tuple(route for route in served if route.prefixlen),
        tuple(route for route in served if not route.prefixlen),
    )


@dataclass(slots=True)
class _Mention:
    """The flows and sources that one selector key stands in."""

    src: int = 0
    dst: int = 0
    listed: int = 0
    own: int = 0


@dataclass(slots=True)
class _Literal:
    """The flows that one span stands in."""

    src: int = 0
    dst: int = 0


@dataclass(frozen=True, slots=True)
class Path:
    """The flows that lead to a route, those that come from it, and those that ``via`` steers."""

    towards: int
    back: int
    via: tuple[Flow, ...]


class Program:
    """A policy, its flows, and the tables that find the flows of a node."""

    def __init__(self, policy: Policy, background: Background) -> None:
        self.policy = policy
        self.background = background
        packets, self.sources = flows_of(policy)
        self.packets = (1 << len(packets)) - 1
        """The flows that are sent as rules; the others are of SSH rules."""
        self.logins: tuple[Login, ...] = logins_of(policy, len(packets))
        self.by_user = of(
            each.others.number
            for each in self.logins
            if each.others is not None and any(map(local_part_domain, each.rule.users))
        )
        """The flows of SSH rules that are cut by user: their sources are told of them too."""
        own = (f for each in self.logins for f in (each.others, each.own, each.recorders) if f)
        self.flows: tuple[Flow, ...] = (*packets, *own)
        self.opened = 0
        """Flows from everyone to everyone: whoever stands in one sees all."""
        self.to_all = 0
        """Flows to ``*``: whoever may start one sees all."""
        self.internet = 0
        self.picked: set[int] = set()
        """Sources that list some addresses of devices in a posture: those in a literal span."""
        self.via: list[Flow] = []
        self.paths: dict[Network, Path] = {}
        self.has_self = any(flow.is_self for flow in self.flows)
        self._groups = groups_by_login(policy)
        self._mentions: defaultdict[Key, _Mention] = defaultdict(_Mention)
        self._literals: defaultdict[Span, _Literal] = defaultdict(_Literal)
        self._postured: list[tuple[frozenset[str], int, int]] = []
        for flow in self.flows:
            self._enter(flow)
        self._enter_postures()
        self._index = _SpanIndex(self._literals)
        # Exit nodes have no capabilities to grant for what they lead to.
        self._carried = of(flow.number for flow in self.flows if flow.capabilities is None)
        self.exit_literals = 0
        for span, literal in self._literals.items():
            if not spans.subtract((span,), spans.INTERNET):
                self.exit_literals |= literal.dst & self._carried

    def _enter(self, flow: Flow) -> None:
        bit, listed = 1 << flow.number, 0 if flow.is_login else 1 << flow.source
        for selector in flow.src:
            self._enter_source(selector, flow, bit, listed)
        if flow.via:
            self.via.append(flow)
            return
        for selector in flow.dst:
            key = selector.kind, selector.name
            match selector.kind:
                case Kind.ADDRESSES | Kind.SERVICE:
                    for span in spans_of(selector, self.background):
                        self._literals[span].dst |= bit
                case Kind.INTERNET:
                    self.internet |= bit
                case _:
                    self._mentions[key].dst |= bit
        if any(selector.kind in (Kind.EVERYONE, Kind.DANGER_ALL) for selector in flow.dst):
            self.to_all |= bit
            everyone = any(s.kind in (Kind.EVERYONE, Kind.DANGER_ALL) for s in flow.src)
            if everyone and not flow.postures:
                self.opened |= bit

    def _enter_source(self, selector: Selector, flow: Flow, bit: int, listed: int) -> None:
        if selector.kind in (Kind.ADDRESSES, Kind.SERVICE):
            for span in spans_of(selector, self.background):
                self._literals[span].src |= bit
            if flow.postures and not flow.is_login:
                self.picked.add(flow.source)
            return
        mention = self._mentions[selector.kind, selector.name]
        if flow.is_self:
            if selector.kind in PEOPLE:
                mention.own |= bit
            return
        mention.src |= bit
        if flow.postures or selector.kind not in _UNLISTED:
            mention.listed |= listed

    def _enter_postures(self) -> None:
        masks: dict[frozenset[str], tuple[int, int]] = {}
        for flow in self.flows:
            if flow.postures:
                names = frozenset(flow.postures)
                flows, listed = masks.get(names, (0, 0))
                listed |= 0 if flow.is_login else 1 << flow.source
                masks[names] = flows | 1 << flow.number, listed
        self._postured = [(names, *both) for names, both in masks.items()]

    def keys_of(self, node: Node, users: Mapping[UserID, User]) -> list[Key]:
        """Give the keys that a node answers to by its tags or its owner."""
        keys = [_EVERYONE, (Kind.DANGER_ALL, "")]
        if node.tags:
            keys.append((Kind.TAGGED, ""))
            keys += [(Kind.TAG, tag) for tag in node.tags]
            return keys
        user = users.get(node.user_id) if node.user_id is not None else None
        if user is not None:
            keys += user_keys(self._groups, self.background, user)
        return keys

    def standing(self, node: Node, users: Mapping[UserID, User], routes: Routes) -> Standing:
        """Say which flows name a node."""
        src = dst = listed = own = 0
        for key in self.keys_of(node, users):
            mention = self._mentions.get(key)
            if mention is not None:
                src |= mention.src
                dst |= mention.dst
                listed |= mention.listed
                own |= mention.own
        src, dst = self._literal(node, routes, src, dst)
        for flow in self.via if node.tags else ():
            if not flow.via.isdisjoint(node.tags) and self.carries(flow, routes):
                dst |= 1 << flow.number
        if routes.exits:
            dst |= self.internet | self.exit_literals
        own_src = own
        if self._postured:
            for mask, sources in self._missed(node):
                src &= ~mask
                own_src &= ~mask
                listed &= ~sources
        return Standing(src, dst, listed, own_src, own, node.user_id if own else None)

    def _literal(self, node: Node, routes: Routes, src: int, dst: int) -> tuple[int, int]:
        if not self._literals:
            return src, dst
        for address in node.addresses:
            for literal in self._index.at(address):
                src |= literal.src
                dst |= literal.dst
        for route in routes.subnets:
            mine = spans.of_network(route)
            for span, literal in self._literals.items():
                if span.meets(mine):
                    src |= literal.src
                    dst |= literal.dst
        return src, dst

    def _missed(self, node: Node) -> list[tuple[int, int]]:
        """Give the flows and sources whose postures the node is in none of."""
        known = attributes_of(node, self.background.attributes.get(node.id, {}))
        return [
            (flows, sources)
            for names, flows, sources in self._postured
            if not self._is_in_any(names, known)
        ]

    def is_in_posture(self, names: frozenset[str], node: Node) -> bool:
        """Tell whether a node is in one of these postures."""
        known = attributes_of(node, self.background.attributes.get(node.id, {}))
        return self._is_in_any(names, known)

    def _is_in_any(self, names: frozenset[str], known: Mapping[str, str | float | bool]) -> bool:
        return any(
            all(condition.holds(known) for condition in self.policy.postures[name])
            for name in names
        )

    def carries(self, flow: Flow, routes: Routes) -> bool:
        """Tell whether a router with these routes leads to what a ``via`` flow names."""
        return any(via_spans(selector, routes, self.background) for selector in flow.dst)


def via_spans(selector: Selector, routes: Routes, background: Background) -> tuple[str, ...]:
    """Spell the part of a ``via`` destination that a router leads to; empty if none."""
    match selector.kind:
        case Kind.INTERNET:
            return spans.INTERNET_TEXTS if routes.exits else ()
        case Kind.EVERYONE:
            served = [spans.of_network(route) for route in routes.subnets]
            return tuple(
                span.text for span in spans.TAILNET if any(span.meets(each) for each in served)
            )
        case Kind.ADDRESSES | Kind.SERVICE:
            served = [spans.of_network(route) for route in routes.subnets]
            return tuple(
                span.text
                for span in spans_of(selector, background)
                if any(span.meets(each) for each in served)
            )
        case _:
            return ()


def spans_of(selector: Selector, background: Background) -> tuple[Span, ...]:
    """Give the addresses that a selector spells out itself."""
    if selector.kind is Kind.SERVICE:
        addresses = background.services.get(selector.name, ())
        return tuple(spans.of_address(address) for address in addresses)
    return selector.spans


def names_of(user: User) -> set[str]:
    """Give the words that a policy may call a user by, in lower case."""
    return {user.login_name.lower(), user.email.lower(), f"{user.name.lower()}@"} - {""}


def groups_by_login(policy: Policy) -> dict[str, list[str]]:
    """Give the groups of every login that a policy names as a member."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, members in policy.groups.items():
        for login in members:
            found[login].append(name)
    return dict(found)


def user_keys(groups: Mapping[str, Iterable[str]], background: Background, user: User) -> list[Key]:
    """Give the keys that a user's untagged nodes answer to."""
    logins = names_of(user)
    keys: list[Key] = [(Kind.USER, login) for login in logins]
    keys += {(Kind.GROUP, name) for login in logins for name in groups.get(login, ())}
    if user.id in background.guests:
        keys.append((Kind.SHARED, ""))
        return keys
    keys.append((Kind.MEMBER, ""))
    keys += [(Kind.DOMAIN, login.rpartition("@")[2]) for login in logins if login[-1] != "@"]
    role = background.roles.get(user.id, Role.MEMBER)
    keys.append((Kind.ROLE, role))
    if role is Role.OWNER:
        # The recorded owner stands in autogroup:admin too.
        keys.append((Kind.ROLE, Role.ADMIN))
    return keys


class _SpanIndex:
    """Finds the spans around an address: cut into prefixes, one look-up per length in use."""

    def __init__(self, literals: Mapping[Span, _Literal]) -> None:
        tables: defaultdict[tuple[int, int], defaultdict[int, list[_Literal]]] = defaultdict(
            lambda: defaultdict(list)
        )
        for span, literal in literals.items():
            for network in span.networks():
                shift = network.max_prefixlen - network.prefixlen
                table = tables[span.family, shift]
                table[int(network.network_address) >> shift].append(literal)
        self._tables: dict[int, list[tuple[int, dict[int, list[_Literal]]]]] = {4: [], 6: []}
        for (family, shift), found in tables.items():
            self._tables[family].append((shift, dict(found)))

    def at(self, address: Address) -> Iterable[_Literal]:
        """Walk over the spans that hold an address."""
        number = int(address)
        for shift, table in self._tables[address.version]:
            yield from table.get(number >> shift, ())
