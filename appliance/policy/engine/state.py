"""The compiled state of a tailnet's policy: made once, then brought up to date by what changed.

A ``State`` is never changed after it is made; ``next_state`` makes the one after it and shares
all parts that the changed nodes do not touch. Who sees whom is kept as bits (one per node, by
slot), lists of addresses as sorted text. Not for rules as they are sent (``filters`` makes those
when a node asks). Sits on ``matches``.
"""

from __future__ import annotations

from bisect import bisect_left, insort
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping
from typing import TYPE_CHECKING

from appliance.policy.engine.bits import ones
from appliance.policy.engine.flows import Source
from appliance.policy.engine.matches import (
    NO_ROUTES,
    Matches,
    Routes,
    RuleIndex,
    routes_of,
    spans_of,
)
from appliance.policy.engine.sources import NOT_PICKED, Sources, Spelled, texts_of
from appliance.policy.text import spans
from appliance.policy.text.language import Background, Policy
from appliance.policy.text.selectors import Kind
from appliance.policy.text.spans import Span
from appliance.records import Node, NodeID, User, UserID

if TYPE_CHECKING:
    from appliance.policy.engine.filters import Kept

FEW = 32
"""Up to this many changed nodes are worked in one by one; more are cheaper all at once."""


MANY_FLIPS = 100_000
"""Bits that are flipped one by one; beyond, all are written at once."""


class Sight:
    """A visibility class: all nodes that see the same peers share one such object.

    ``nodes`` None means every node of the tailnet. A node never sees itself as a peer, so its own
    id in ``nodes`` means nothing. Compared by identity: a new object means "may have changed".
    """

    __slots__ = ("__weakref__", "_bits", "_ids", "_nodes")

    def __init__(self, nodes: frozenset[NodeID] | None = None) -> None:
        self._nodes = nodes
        self._bits: int | None = None
        self._ids: tuple[NodeID | None, ...] = ()

    @classmethod
    def of_bits(cls, bits: int, ids: tuple[NodeID | None, ...]) -> Sight:
        """Return the class that sees the nodes in these slots."""
        sight = cls()
        sight._bits, sight._ids = bits, ids
        return sight

    @property
    def bits(self) -> int:
        """The slots of the nodes that it sees; 0 for a class that was not made from slots."""
        return self._bits or 0

    @property
    def nodes(self) -> frozenset[NodeID] | None:
        """The nodes that it sees, made when first asked for; None means all."""
        if self._bits is not None and self._nodes is None:
            self._nodes = frozenset(
                node_id for slot in ones(self._bits) if (node_id := self._ids[slot]) is not None
            )
        return self._nodes

    def shows(self, node_id: NodeID) -> bool:
        """Return whether the class sees this node."""
        nodes = self.nodes
        return nodes is None or node_id in nodes

    def among(self, ids: Iterable[NodeID]) -> frozenset[NodeID]:
        """Return those of the nodes that the class sees."""
        nodes = self.nodes
        return frozenset(ids) if nodes is None else nodes.intersection(ids)

    def __repr__(self) -> str:
        return f"Sight({'everyone' if self.nodes is None else sorted(self.nodes)})"


EVERYONE = Sight()
NOBODY = Sight(frozenset())


class State:
    """Everything that follows from one policy for one set of nodes and users."""

    __slots__ = (
        "_anyone",
        "dst_nodes",
        "ids",
        "kept",
        "listed_nodes",
        "matches",
        "nodes",
        "owned",
        "picked4",
        "picked6",
        "routers",
        "rule_index",
        "sights",
        "sizes",
        "slots",
        "sources",
        "src_nodes",
        "users",
        "words",
    )

    def __init__(self, rule_index: RuleIndex) -> None:
        self.rule_index = rule_index
        self.nodes: Mapping[NodeID, Node] = {}
        self.users: Mapping[UserID, User] = {}
        self.slots: dict[NodeID, int] = {}
        self.ids: list[NodeID | None] = []
        self.matches: dict[NodeID, Matches] = {}
        self.sizes: dict[Matches, int] = {}
        self.routers: dict[NodeID, Routes] = {}
        """The routes of those that serve any: the same object while no such node changes."""
        self.owned: dict[UserID, tuple[NodeID, ...]] = {}
        flows, sources = len(rule_index.flows), len(rule_index.sources)
        self.src_nodes = [0] * flows
        self.dst_nodes = [0] * flows
        self.listed_nodes = [0] * sources
        self.picked4 = [0] * sources
        self.picked6 = [0] * sources
        self.words: list[tuple[str, ...]] = [()] * sources
        self.sources: list[Sources] = []
        self.sights: dict[Matches, Sight] = {}
        self.kept: Kept | None = None
        self.forget()

    def forget(self) -> None:
        """Forget what is only remembered."""
        self._anyone: tuple[Span, ...] | None = None

    def copy(self) -> State:
        """Return a state that may be changed without changing this one."""
        other = State.__new__(State)
        other.rule_index = self.rule_index
        other.nodes, other.users = self.nodes, self.users
        other.slots = dict(self.slots)
        other.ids = list(self.ids)
        other.matches = dict(self.matches)
        other.sizes = dict(self.sizes)
        other.routers = self.routers
        other.owned = dict(self.owned)
        other.src_nodes = list(self.src_nodes)
        other.dst_nodes = list(self.dst_nodes)
        other.listed_nodes = list(self.listed_nodes)
        other.picked4 = list(self.picked4)
        other.picked6 = list(self.picked6)
        other.words = list(self.words)
        other.sources = list(self.sources)
        other.sights = dict(self.sights)
        other.kept = None
        other.forget()
        return other

    @property
    def anyone(self) -> tuple[Span, ...]:
        """What ``*`` means as a source: the tailnet and all subnets that are served."""
        if self._anyone is None:
            served = (each for routes in self.routers.values() for each in routes.subnets)
            self._anyone = spans.union((*spans.TAILNET, *map(spans.of_network, served)))
        return self._anyone

    def routes(self, node_id: NodeID) -> Routes:
        """Return the routes that a node serves."""
        return self.routers.get(node_id, NO_ROUTES)

    def bits_of(self, nodes: Iterable[NodeID]) -> int:
        """Return the slots of some nodes."""
        bits = 0
        for node_id in nodes:
            bits |= 1 << self.slots[node_id]
        return bits


def first_state(
    policy: Policy,
    background: Background,
    users: Mapping[UserID, User],
    nodes: Mapping[NodeID, Node],
    rule_index: RuleIndex | None = None,
) -> State:
    """Compile from scratch; ``rule_index`` is that of the same policy and background, if there is."""
    state = State(rule_index or RuleIndex(policy, background))
    return _changed(state, users, nodes, nodes.keys())


def next_state(
    state: State,
    users: Mapping[UserID, User],
    nodes: Mapping[NodeID, Node],
    changed: Collection[NodeID],
) -> State:
    """Return the state after some nodes came, went or changed; the same if nothing follows."""
    return _changed(state.copy(), users, nodes, changed)


class _Moves:
    """What changed about the nodes, collected while they are worked in."""

    def __init__(self) -> None:
        self.src: defaultdict[int, int] = defaultdict(int)
        """For a set of flows, the slots where just these changed; so are the others."""
        self.dst: defaultdict[int, int] = defaultdict(int)
        self.listed: defaultdict[int, int] = defaultdict(int)
        self.picked4: defaultdict[int, int] = defaultdict(int)
        self.picked6: defaultdict[int, int] = defaultdict(int)
        self.sources = 0
        self.old_texts: dict[int, tuple[str, ...]] = {}
        self.new_texts: dict[int, tuple[str, ...]] = {}
        self.seen: list[tuple[int, Matches, Matches]] = []
        self.owners: set[UserID] = set()
        self.routes = False
        self.routers = False
        """Whether ``State.routers`` is a new one already."""


_NOTHING = Matches()


def _changed(
    state: State,
    users: Mapping[UserID, User],
    nodes: Mapping[NodeID, Node],
    changed: Collection[NodeID],
) -> State:
    moves = _Moves()
    old_nodes = state.nodes
    state.nodes, state.users = nodes, users
    interned = {matches: matches for matches in state.sizes}
    for node_id in changed:
        _move(state, moves, interned, node_id, old_nodes.get(node_id), nodes.get(node_id))
    _flip(state.src_nodes, moves.src)
    _flip(state.dst_nodes, moves.dst)
    _flip(state.listed_nodes, moves.listed)
    _flip(state.picked4, moves.picked4)
    _flip(state.picked6, moves.picked6)
    is_first = not state.sources and bool(state.rule_index.sources or not state.sights)
    _settle_sources(state, moves, everything=is_first or len(changed) > FEW)
    _settle_sights(state, moves, everything=len(changed) > FEW)
    return state


def _move(
    state: State,
    moves: _Moves,
    interned: dict[Matches, Matches],
    node_id: NodeID,
    was: Node | None,
    now: Node | None,
) -> None:
    """Work one node in: its slot, its matches, and the bits of the flows that name it."""
    before = state.matches.get(node_id, _NOTHING)
    after = _NOTHING
    is_new = node_id not in state.slots
    if now is not None:
        routes = routes_of(now)
        if routes is not NO_ROUTES or node_id in state.routers:
            moves.routes |= routes != state.routes(node_id)
            _set_routes(state, moves, node_id, routes)
        after = state.rule_index.matches(now, state.users, routes)
        after = interned.setdefault(after, after)
        slot = _take_slot(state, node_id)
    elif is_new:
        return
    else:
        slot = state.slots[node_id]
        if node_id in state.routers:
            moves.routes = True
            _set_routes(state, moves, node_id, NO_ROUTES)
    _count(state, node_id, before if not is_new else None, after if now is not None else None)
    moves.src[before.src ^ after.src] ^= 1 << slot
    moves.dst[before.dst ^ after.dst] ^= 1 << slot
    moves.listed[before.listed ^ after.listed] ^= 1 << slot
    moves.picked4[before.picked4 ^ after.picked4] ^= 1 << slot
    moves.picked6[before.picked6 ^ after.picked6] ^= 1 << slot
    old_texts, new_texts = texts_of(was), texts_of(now)
    moves.sources |= before.listed ^ after.listed
    moves.sources |= (before.picked4 ^ after.picked4) | (before.picked6 ^ after.picked6)
    if old_texts != new_texts:
        moves.sources |= before.listed | before.picked4 | before.picked6
        moves.sources |= after.listed | after.picked4 | after.picked6
    # A slot may go from a node that left to one that joined.
    moves.old_texts.setdefault(slot, old_texts)
    moves.new_texts[slot] = new_texts
    moves.seen.append((slot, before, after))
    if state.rule_index.has_self:
        _own(state, moves, node_id, was, now)
    if now is None:
        state.ids[slot] = None
        del state.slots[node_id]


def _set_routes(state: State, moves: _Moves, node_id: NodeID, routes: Routes) -> None:
    if not moves.routers:
        state.routers, moves.routers = dict(state.routers), True
    state.routers.pop(node_id, None)
    if routes is not NO_ROUTES:
        state.routers[node_id] = routes


def _take_slot(state: State, node_id: NodeID) -> int:
    slot = state.slots.get(node_id)
    if slot is None:
        slot = len(state.slots)
        # Freed slots are taken again, so that bits stay as long as the tailnet is large.
        if slot < len(state.ids):
            slot = state.ids.index(None)
            state.ids[slot] = node_id
        else:
            state.ids.append(node_id)
        state.slots[node_id] = slot
    return slot


def _count(state: State, node_id: NodeID, before: Matches | None, after: Matches | None) -> None:
    if before is not None:
        state.sizes[before] -= 1
        if not state.sizes[before]:
            del state.sizes[before]
    if after is None:
        state.matches.pop(node_id, None)
        return
    state.matches[node_id] = after
    state.sizes[after] = state.sizes.get(after, 0) + 1


def _flip(column: list[int], changes: Mapping[int, int]) -> None:
    """Flip slots in the columns of sets of flows."""
    if not column or sum(map(int.bit_count, changes)) <= len(column) + MANY_FLIPS:
        for flows, slots in changes.items():
            for number in ones(flows):
                column[number] ^= slots
        return
    # Most flows change for most nodes: write a line for each slot, then read by columns.
    rows: defaultdict[int, int] = defaultdict(int)
    for flows, slots in changes.items():
        for slot in ones(slots):
            rows[slot] ^= flows
    lines = [f"{rows[slot]:0{len(column)}b}" for slot in range(max(rows, default=-1), -1, -1)]
    for number, marks in enumerate(map("".join, zip(*lines, strict=True)), 1):
        column[-number] ^= int(marks, 2)


def _own(state: State, moves: _Moves, node_id: NodeID, was: Node | None, now: Node | None) -> None:
    """Keep the list of each user's untagged nodes."""
    old = was.user_id if was is not None and not was.tags else None
    new = now.user_id if now is not None and not now.tags else None
    moves.owners.update(owner for owner in (old, new) if owner is not None)
    if old == new:
        return
    if old is not None:
        rest = tuple(each for each in state.owned[old] if each != node_id)
        state.owned[old] = rest
        if not rest:
            del state.owned[old]
    if new is not None:
        state.owned[new] = (*state.owned.get(new, ()), node_id)


# ── lists of sources ────────────────────────────────────────────────────────────────────────────


def _settle_sources(state: State, moves: _Moves, *, everything: bool) -> None:
    """Spell out anew the sources that name a moved node, or everyone if routes changed."""
    rule_index = state.rule_index
    if everything or moves.routes:
        for number, source in enumerate(rule_index.sources):
            words = _words(state, source)
            if words != state.words[number]:
                state.words[number] = words
                moves.sources |= 1 << number
    ids = tuple(state.ids)
    if everything or not state.sources:
        pool: dict[Spelled, Sources] = {}
        state.sources = [_spell(state, number, pool) for number in range(len(rule_index.sources))]
    else:
        touched = list(ones(moves.sources))
        pool = {
            (each.nodes, each.words, each.picked): each
            for number, each in enumerate(state.sources)
            if not moves.sources >> number & 1
        }
        for number in touched:
            state.sources[number] = _respell(state, number, moves, pool)
    for each in pool.values():
        each.look_at(ids, state.nodes)


def _words(state: State, source: Source) -> tuple[str, ...]:
    """Return what a list of sources says besides all addresses of nodes."""
    if source.postures:
        return ()  # only devices can be in a posture
    selectors = source.selectors
    if any(selector.kind is Kind.DANGER_ALL for selector in selectors):
        return ("*",)
    words: set[str] = set()
    for selector in selectors:
        if selector.kind is Kind.EVERYONE:
            words.update(span.text for span in spans.TAILNET)
            for routes in state.routers.values():
                words.update(str(route) for route in routes.subnets)
        elif selector.kind in (Kind.ADDRESSES, Kind.SERVICE):
            words.update(span.text for span in spans_of(selector, state.rule_index.background))
        elif selector.kind is Kind.INTERNET:
            words.update(spans.INTERNET_TEXTS)
    return tuple(sorted(words))


def _spelled(state: State, number: int) -> Spelled:
    """Return what a list of sources is made of."""
    words = state.words[number]
    nodes = 0 if words == ("*",) else state.listed_nodes[number]
    return nodes, words, (state.picked4[number], state.picked6[number])


def _spell(state: State, number: int, pool: dict[Spelled, Sources]) -> Sources:
    key = _spelled(state, number)
    known = pool.get(key)
    if known is None:
        known = pool[key] = Sources(*key)
    return known


def _respell(
    state: State,
    number: int,
    moves: _Moves,
    pool: dict[Spelled, Sources],
) -> Sources:
    """Spell a list anew from the one before, taking out and putting in what moved."""
    old, key = state.sources[number], _spelled(state, number)
    nodes, words, picked = key
    known = pool.get(key)
    is_of_nodes = old.is_of_nodes and not words and picked == NOT_PICKED
    if known is not None or old.known_texts is None or not is_of_nodes:
        # With words of its own an address may stand there twice, once for each reason.
        return known or _spell(state, number, pool)
    texts = list(old.known_texts)
    for slot, gone in moves.old_texts.items():
        if old.nodes >> slot & 1:
            for text in gone:
                del texts[bisect_left(texts, text)]
    for slot, come in moves.new_texts.items():
        if nodes >> slot & 1:
            for text in come:
                insort(texts, text)
    known = pool[key] = Sources(nodes, words, texts=tuple(texts))
    return known


# ── who sees whom ───────────────────────────────────────────────────────────────────────────────


def _settle_sights(state: State, moves: _Moves, *, everything: bool) -> None:
    """Bring the visibility classes up to date; an unchanged class keeps its object."""
    for gone in state.sights.keys() - state.sizes.keys():
        del state.sights[gone]
    known = state.sights
    missing = [matches for matches in state.sizes if matches not in known]
    ids = tuple(state.ids)
    by_bits = {sight.bits: sight for sight in known.values() if sight is not EVERYONE}
    if everything:
        for matches in list(known):
            _see(state, matches, ids, by_bits)
    else:
        _follow(state, moves, ids, by_bits)
    for matches in missing:
        _see(state, matches, ids, by_bits)


def _follow(
    state: State, moves: _Moves, ids: tuple[NodeID | None, ...], by_bits: dict[int, Sight]
) -> None:
    """Let every class see the moved nodes that it sees now, and no longer those that it does not.

    A moved node costs a look at each class, however many nodes and rules there are.
    """
    packets = state.rule_index.packets
    moved = [
        (1 << slot, was.src & packets, was.dst & packets, now.src & packets, now.dst & packets)
        for slot, was, now in moves.seen
    ]
    for matches, sight in list(state.sights.items()):
        if sight is EVERYONE:
            continue
        if matches.owner is not None and matches.owner in moves.owners:
            _see(state, matches, ids, by_bits)
            continue
        src, dst, bits, is_moved = matches.src, matches.dst, sight.bits, False
        for bit, was_src, was_dst, now_src, now_dst in moved:
            if bool(src & now_dst or dst & now_src) is not bool(src & was_dst or dst & was_src):
                bits ^= bit
                is_moved = True
        if is_moved:
            state.sights[matches] = _class(bits, ids, by_bits)


def _see(
    state: State,
    matches: Matches,
    ids: tuple[NodeID | None, ...],
    by_bits: dict[int, Sight],
) -> None:
    rule_index = state.rule_index
    if matches.src & rule_index.to_all or (matches.src | matches.dst) & rule_index.opened:
        state.sights[matches] = EVERYONE
        return
    state.sights[matches] = _class(seen_by(state, matches), ids, by_bits)


def _class(bits: int, ids: tuple[NodeID | None, ...], by_bits: dict[int, Sight]) -> Sight:
    known = by_bits.get(bits)
    if known is None or not _same_nodes(known, bits, ids):
        known = by_bits[bits] = Sight.of_bits(bits, ids)
    return known


def _same_nodes(sight: Sight, bits: int, ids: tuple[NodeID | None, ...]) -> bool:
    """Return whether the slots still belong to the nodes that a class was made for."""
    old = sight._ids  # noqa: SLF001 - it is one of us
    return old is ids or all(old[slot] == ids[slot] for slot in ones(bits))


def seen_by(state: State, matches: Matches) -> int:
    """Return the slots of all nodes that a class sees: rules let one of the two reach the other."""
    bits, packets = 0, state.rule_index.packets
    for column, flows in ((state.dst_nodes, matches.src), (state.src_nodes, matches.dst)):
        for number in ones(flows & packets):
            bits |= column[number]
    if matches.owner is not None:
        for other in state.owned.get(matches.owner, ()):
            its = state.matches[other]
            if (matches.self_src & its.self_dst | its.self_src & matches.self_dst) & packets:
                bits |= 1 << state.slots[other]
    return bits
