"""Which flows match a node: as source, and as destination.

A ``RuleIndex`` is a policy indexed for that question: it knows for every selector key (a tag, a
login, a group, ``autogroup:…``) the flows that mention it, and finds literal addresses without
trying them all. A node's matches depend on the node and its owner alone, so a change of
one node costs one look-up. Not for lists of addresses or rules (``state``, ``filters``). Sits on ``flows``.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from itertools import groupby
from typing import TypeAlias

from appliance.policy.engine.bits import of, union
from appliance.policy.engine.flows import Flow, Login, flows_of, logins_of
from appliance.policy.engine.spantable import Flows, SpanTable, is_internet
from appliance.policy.text import spans
from appliance.policy.text.language import Background, Policy
from appliance.policy.text.loginsections import local_part_domain
from appliance.policy.text.postures import NO_MORE, attributes_of
from appliance.policy.text.selectors import PEOPLE, Kind, Selector
from appliance.policy.text.spans import Span
from appliance.records import Address, AttributeValue, Network, Node, Role, User, UserID

Key = tuple[Kind, str]
_EVERYONE: Key = (Kind.EVERYONE, "")
Asked: TypeAlias = "tuple[tuple[str, bool, AttributeValue], ...]"
"""Attributes of a node: name, whether it is true or false (Python takes those for 1 and 0), value."""
MAX_ANSWERS = 4096
"""Different devices, to the eyes of postures, that are remembered: a tailnet has some dozens."""
_UNLISTED = frozenset({Kind.EVERYONE, Kind.DANGER_ALL, Kind.ADDRESSES, Kind.SERVICE})
"""Sources that rules spell by words or addresses of their own, not by those of nodes."""


@dataclass(frozen=True, slots=True)
class Matches:
    """The flows that match a node as source and as destination, as bitsets of flow numbers.

    Nodes with equal ones are one visibility class. ``src``: flows that may start at the node
    (or at a subnet behind it). ``dst``: flows that end at it. ``listed``: numbers of the sources that
    list all of its addresses; ``picked4`` and ``picked6``: of those that list one of them, because it
    lies in a prefix that is let in from devices in a posture only. ``owner`` is set if a flow to
    ``autogroup:self`` serves the user; then ``self_dst`` are these flows, and ``self_src`` those that
    may start at this node.
    """

    src: int = 0
    dst: int = 0
    listed: int = 0
    self_src: int = 0
    self_dst: int = 0
    owner: UserID | None = None
    picked4: int = 0
    picked6: int = 0
    _hash: int = field(init=False, repr=False, compare=False)
    """Cached, because it is asked of every class at every change."""

    def __post_init__(self) -> None:
        parts = self.src, self.dst, self.listed, self.self_src, self.self_dst, self.owner
        object.__setattr__(self, "_hash", hash((*parts, self.picked4, self.picked6)))

    def __hash__(self) -> int:
        return self._hash


@dataclass(frozen=True, slots=True)
class Routes:
    """The routes that a node serves: offered and approved."""

    subnets: tuple[Network, ...] = ()
    exits: tuple[Network, ...] = ()


NO_ROUTES = Routes()


def routes_of(node: Node) -> Routes:
    """Return the routes that a node serves."""
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


@dataclass(frozen=True, slots=True)
class Path:
    """The flows that lead to a route, those that come from it, and those that ``via`` steers."""

    towards: int
    back: int
    via: tuple[Flow, ...]


class RuleIndex:
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
        self.picks = SpanTable()
        """Spans that stand in sources with a posture, and these sources: of such a span only the
        addresses of devices are let in, for nothing else can be in a posture."""
        self.via: list[Flow] = []
        self.paths: dict[Network, Path] = {}
        self.selves = of(flow.number for flow in self.flows if flow.is_self)
        """Flows to ``autogroup:self``."""
        self.has_self = bool(self.selves)
        self._groups = groups_by_login(policy)
        self._mentions: defaultdict[Key, _Mention] = defaultdict(_Mention)
        self.literals = SpanTable()
        """Spans that flows name, but not as the destination of ``via``; those are beside it."""
        self.via_literals = SpanTable()
        self._via_mentions: defaultdict[Key, int] = defaultdict(int)
        self._via_tags: defaultdict[str, int] = defaultdict(int)
        self._postured: list[tuple[frozenset[str], int, int]] = []
        self._enter_sources()
        for flow in self.flows[len(packets) :]:
            bit = 1 << flow.number
            self._enter_source(flow, *((0, bit) if flow.is_self else (bit, 0)), 0)
        # The flows of one grant share their destinations, one after another.
        for _, group in groupby(self.flows, key=lambda flow: id(flow.dst)):
            self._enter_ends(tuple(group))
        self.steered = of(flow.number for flow in self.via)
        """Flows with ``via``: they go to what routers lead to, and to no node itself."""
        self._enter_postures()
        # Exit nodes have no capabilities to grant for what they lead to.
        self._carried = of(flow.number for flow in self.flows if flow.capabilities is None)
        self.exit_literals = 0
        for span, named in self.literals.items():
            if is_internet(span):
                self.exit_literals |= named.dst & self._carried

    def _enter_sources(self) -> None:
        """Enter the sources of all flows that are sent, each list of sources once."""
        others, selves = [0] * len(self.sources), [0] * len(self.sources)
        first: dict[int, Flow] = {}
        for flow in self.flows:
            if not flow.is_login:
                (selves if flow.is_self else others)[flow.source] |= 1 << flow.number
                first.setdefault(flow.source, flow)
        for number, flow in first.items():
            self._enter_source(flow, others[number], selves[number], 1 << number)

    def _enter_source(self, flow: Flow, others: int, selves: int, listed: int) -> None:
        """Enter who may start these flows; ``selves`` are those to ``autogroup:self``."""
        for selector in flow.src:
            if selector.kind in (Kind.ADDRESSES, Kind.SERVICE):
                for span in spans_of(selector, self.background):
                    self.literals.enter(span, src=others | selves)
                    self.picks.enter(span, src=listed if flow.postures else 0)
                continue
            mention = self._mentions[selector.kind, selector.name]
            if selector.kind in PEOPLE:
                mention.own |= selves
            mention.src |= others
            if others and (flow.postures or selector.kind not in _UNLISTED):
                mention.listed |= listed

    def _enter_ends(self, group: tuple[Flow, ...]) -> None:
        """Enter what flows end at that have the same destinations."""
        mask = of(flow.number for flow in group if not flow.via)
        steered = of(flow.number for flow in group if flow.via)
        for flow in group if steered else ():
            self.via += [flow] if flow.via else []
            for tag in flow.via:
                self._via_tags[tag] |= 1 << flow.number
        for selector in group[0].dst:
            if selector.kind in (Kind.ADDRESSES, Kind.SERVICE):
                for span in spans_of(selector, self.background):
                    self.literals.enter(span, dst=mask)
                    self.via_literals.enter(span, dst=steered)
                continue
            key = selector.kind, selector.name
            self._via_mentions[key] |= steered
            self._mentions[key].dst |= mask if selector.kind is not Kind.INTERNET else 0
            self.internet |= mask if selector.kind is Kind.INTERNET else 0
        if any(selector.kind in (Kind.EVERYONE, Kind.DANGER_ALL) for selector in group[0].dst):
            self.to_all |= mask
            self.opened |= of(
                flow.number
                for flow in group
                if not flow.via and not flow.postures and self._is_from_everyone(flow)
            )

    def _is_from_everyone(self, flow: Flow) -> bool:
        kinds = (Kind.EVERYONE, Kind.DANGER_ALL)
        return any(self._mentions[kind, ""].src >> flow.number & 1 for kind in kinds)

    def _enter_postures(self) -> None:
        masks: dict[frozenset[str], tuple[int, int]] = {}
        for flow in self.flows:
            if flow.postures:
                names = frozenset(flow.postures)
                flows, listed = masks.get(names, (0, 0))
                listed |= 0 if flow.is_login else 1 << flow.source
                masks[names] = flows | 1 << flow.number, listed
        self._postured = [(names, *both) for names, both in masks.items()]
        self._used = {name for names, *_ in self._postured for name in names}
        used = [condition for name in self._used for condition in self.policy.postures[name]]
        self._asked = sorted({condition.name for condition in used})
        self._missed_by: dict[Asked, tuple[tuple[int, int], ...]] = {}
        self.conditions = len(used) + len(self._postured)
        """What it takes to say in which postures in use a node is."""

    def asked_of(self, node: Node, more: Mapping[str, AttributeValue] = NO_MORE) -> Asked:
        """Return what postures ask of a node; with the same answers it is in the same ones.

        ``more`` is known of it besides.
        """
        known = attributes_of(node, more)
        return tuple(
            (name, isinstance(value, bool), value)
            for name in self._asked
            if (value := known.get(name)) is not None
        )

    def keys_of(self, node: Node, users: Mapping[UserID, User]) -> list[Key]:
        """Return the keys that a node answers to by its tags or its owner."""
        keys = [_EVERYONE, (Kind.DANGER_ALL, "")]
        if node.tags:
            keys.append((Kind.TAGGED, ""))
            keys += [(Kind.TAG, tag) for tag in node.tags]
            return keys
        user = users.get(node.user_id) if node.user_id is not None else None
        if user is not None:
            keys += user_keys(self._groups, self.background, user)
        return keys

    def matches(self, node: Node, users: Mapping[UserID, User], routes: Routes) -> Matches:
        """Return which flows name a node."""
        src = dst = listed = own = 0
        for key in self.keys_of(node, users):
            mention = self._mentions.get(key)
            if mention is not None:
                src |= mention.src
                dst |= mention.dst
                listed |= mention.listed
                own |= mention.own
        for named in self._named(node, routes):
            src |= named.src
            dst |= named.dst
        if self.via and node.tags and routes is not NO_ROUTES:
            steered = union(self._via_tags.get(tag, 0) for tag in node.tags)
            dst |= steered and steered & self._steered(routes)
        if routes.exits:
            dst |= self.internet | self.exit_literals
        own_src = own
        picked4 = picked6 = 0
        if self._postured:
            picked4, picked6 = self._picked(node.ipv4), self._picked(node.ipv6)
            for mask, sources in self._missed(node):
                src &= ~mask
                own_src &= ~mask
                listed &= ~sources
                picked4 &= ~sources
                picked6 &= ~sources
        owner = node.user_id if own else None
        return Matches(src, dst, listed, own_src, own, owner, picked4, picked6)

    def _picked(self, address: Address | None) -> int:
        """Return the sources with a posture that name an address by a span."""
        return 0 if address is None else self.picks.at(address).src

    def _named(self, node: Node, routes: Routes) -> Iterator[Flows]:
        """Return the flows that name an address of a node, or of a subnet behind it."""
        if self.literals:
            for address in node.addresses:
                yield self.literals.at(address)
            for route in routes.subnets:
                yield self.literals.meeting(spans.of_network(route))

    def _steered(self, routes: Routes) -> int:
        """Return the ``via`` flows to what a router with these routes leads to."""
        found = self._via_mentions.get((Kind.INTERNET, ""), 0) if routes.exits else 0
        for route in routes.subnets:
            mine = spans.of_network(route)
            found |= self.via_literals.meeting(mine).dst
            if any(span.meets(mine) for span in spans.TAILNET):
                found |= self._via_mentions.get(_EVERYONE, 0)
        return found

    def path(self, mine: Span) -> tuple[int, int, int]:
        """Return the flows that lead to a prefix, those that come from it, and those steered there.

        What leads to ``*`` or comes from a device in a posture is none of them.
        """
        named, others = self.literals.meeting(mine), self.packets & ~self.selves
        kinds = (Kind.EVERYONE, Kind.DANGER_ALL)
        back = union(self._mentions[kind, ""].src for kind in kinds) | named.src
        steered = self.via_literals.meeting(mine).dst
        if any(span.meets(mine) for span in spans.TAILNET):
            # With ``via`` that word is the tailnet only.
            steered |= self._via_mentions.get(_EVERYONE, 0)
        postured = union(flows for _, flows, _ in self._postured)
        return named.dst & others, back & others & ~postured, steered & others

    def starts_at(self, address: Address, keys: Iterable[Key]) -> int:
        """Return the flows whose sources name an address with these keys, ``*`` left aside."""
        found = self._mentions[Kind.DANGER_ALL, ""].src | self.literals.at(address).src
        for key in keys:
            if key != _EVERYONE and key in self._mentions:
                found |= self._mentions[key].src | self._mentions[key].own
        return found

    @property
    def from_everyone(self) -> int:
        """The flows that start at ``*``."""
        mention = self._mentions[_EVERYONE]
        return mention.src | mention.own

    def ends_at(self, address: Address, keys: Iterable[Key]) -> int:
        """Return the flows whose destinations name an address with these keys."""
        found = self.literals.at(address).dst | self.via_literals.at(address).dst
        words = [_EVERYONE, (Kind.DANGER_ALL, "")]
        if any(span.holds(address) for span in spans.INTERNET):
            words.append((Kind.INTERNET, ""))
            found |= self.internet
        for key in (*words, *keys):
            found |= self._via_mentions.get(key, 0)
            if key in self._mentions:
                found |= self._mentions[key].dst
        return found

    def spans_at(self, node: Node, routes: Routes) -> set[Span]:
        """Return the spans that hold an address of a node or meet a subnet that it routes to."""
        if not self.literals:
            return set()
        own = [spans.of_address(address) for address in node.addresses]
        own += [spans.of_network(route) for route in routes.subnets]
        return {span for each in own for span in self.literals.spans_meeting(each)}

    def _missed(
        self, node: Node, more: Mapping[str, AttributeValue] = NO_MORE
    ) -> tuple[tuple[int, int], ...]:
        """Return the flows and sources whose postures the node is in none of."""
        asked = self.asked_of(node, more)
        found = self._missed_by.get(asked)
        if found is None:
            known = {name: value for name, _, value in asked}
            held = {
                name
                for name in self._used
                if all(condition.holds(known) for condition in self.policy.postures[name])
            }
            found = tuple(
                (flows, sources)
                for names, flows, sources in self._postured
                if names.isdisjoint(held)
            )
            if len(self._missed_by) >= MAX_ANSWERS:
                self._missed_by.clear()
            self._missed_by[asked] = found
        return found

    def missed(self, node: Node | None, more: Mapping[str, AttributeValue] = NO_MORE) -> int:
        """Return the flows in whose postures a node is not; what is no node is in none.

        ``more`` is known of it besides.
        """
        if node is None or not self._postured:
            return union(flows for _, flows, _ in self._postured)
        return union(flows for flows, _ in self._missed(node, more))


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
    """Return the addresses that a selector spells out itself."""
    if selector.kind is Kind.SERVICE:
        addresses = background.services.get(selector.name, ())
        return tuple(spans.of_address(address) for address in addresses)
    return selector.spans


def names_of(user: User) -> set[str]:
    """Return the words that a policy may call a user by, in lower case."""
    return {user.login_name.lower(), user.email.lower(), f"{user.name.lower()}@"} - {""}


def synced_groups_of(user: User) -> set[str]:
    """Return the words that a policy may use for the groups which a user's provider names."""
    words = {f"group:{group}" for group in user.groups}
    # One with an @ in it would else be the word for a group of whatever provider stands behind that.
    plain = {word for word in words if "@" not in word}
    return plain | {f"{word}@{user.provider}" for word in words} if user.provider else plain


def groups_by_login(policy: Policy) -> dict[str, list[str]]:
    """Return the groups of every login that a policy names as a member."""
    found: defaultdict[str, list[str]] = defaultdict(list)
    for name, members in policy.groups.items():
        for login in members:
            found[login].append(name)
    return dict(found)


def user_keys(groups: Mapping[str, Iterable[str]], background: Background, user: User) -> list[Key]:
    """Return the keys that a user's untagged nodes answer to."""
    logins = names_of(user)
    keys: list[Key] = [(Kind.USER, login) for login in logins]
    keys += {(Kind.GROUP, name) for login in logins for name in groups.get(login, ())}
    keys += {(Kind.SYNCED_GROUP, word) for word in synced_groups_of(user)}
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
