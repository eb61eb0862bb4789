"""Policy and records to the decisions that the netmap shows: who sees whom, and the filters.

``compile`` starts from scratch, ``recompile`` goes on from what is there: its cost follows what
changed, and what did not change stays the same object. Not for encoding. Sits on ``state`` and
``filters``; ``tailnet.snapshot`` carries the result.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field

from appliance.policy.engine.filters import NO_RULES, Kept, Rules
from appliance.policy.engine.matches import names_of, synced_groups_of
from appliance.policy.engine.state import EVERYONE, NOBODY, Sight, State, first_state, next_state
from appliance.policy.text.language import UNWRITTEN, Background, Policy
from appliance.policy.text.postures import attributes_of
from appliance.records import Node, NodeID, User, UserID
from appliance.wire import tailcfg

__all__ = (
    "ALLOW_ALL",
    "EVERYONE",
    "NOBODY",
    "OPEN",
    "Background",
    "Compiled",
    "Sight",
    "compile",
    "recompile",
)

ALLOW_ALL: tuple[tailcfg.FilterRule, ...] = (
    tailcfg.FilterRule(
        src_ips=("*",),
        dst_ports=(tailcfg.NetPortRange(ip="*", ports=tailcfg.PortRange(first=0, last=65535)),),
    ),
)


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """What the policy says of every node. The same object is carried over while nothing changes.

    ``sights`` and ``filters`` name the nodes that differ from ``default_sight`` and
    ``default_filter``. ``state`` is what ``recompile`` goes on from, and where ``ssh``,
    ``nodeattrs`` and ``routes`` look; None where nothing was compiled yet.
    """

    default_sight: Sight = EVERYONE
    sights: Mapping[NodeID, Sight] = field(default_factory=dict)
    default_filter: tuple[tailcfg.FilterRule, ...] = ALLOW_ALL
    filters: Mapping[NodeID, tuple[tailcfg.FilterRule, ...]] = field(default_factory=dict)
    state: State | None = None

    def sight(self, viewer: NodeID) -> Sight:
        """Return the visibility class of a viewer."""
        return self.sights.get(viewer, self.default_sight) if self.sights else self.default_sight

    def sizes(self) -> Mapping[Sight, int]:
        """Count the viewers of each visibility class, without those that ``sights`` leaves out."""
        found: Counter[Sight] = Counter()
        if self.state is None or self.state.rule_index.policy is UNWRITTEN:
            found.update(self.sights.values())
            return found
        for matches, count in self.state.sizes.items():
            found[self.state.sights[matches]] += count
        return found

    def packet_filter(self, viewer: NodeID) -> tuple[tailcfg.FilterRule, ...]:
        """Return the rules that a node enforces for packets that reach it."""
        return self.filters.get(viewer, self.default_filter)


OPEN = Compiled()
"""The default policy: everything may reach everything."""

_NOTHING = Background()


class _Sights(Mapping[NodeID, Sight]):
    """The visibility class of every node, looked up when asked."""

    __slots__ = ("_state",)

    def __init__(self, state: State) -> None:
        self._state = state

    def __getitem__(self, node_id: NodeID) -> Sight:
        return self._state.sights[self._state.matches[node_id]]

    def __iter__(self) -> Iterator[NodeID]:
        return iter(self._state.matches)

    def __len__(self) -> int:
        return len(self._state.matches)


class _Filters(Mapping[NodeID, Rules]):
    """The packet filter of every node, made when asked."""

    __slots__ = ("_kept", "_state")

    def __init__(self, state: State, kept: Kept) -> None:
        self._state = state
        self._kept = kept

    def __getitem__(self, node_id: NodeID) -> Rules:
        return self._kept.rules(self._state, node_id)

    def __iter__(self) -> Iterator[NodeID]:
        return iter(self._state.matches)

    def __len__(self) -> int:
        return len(self._state.matches)


def compile(  # noqa: A001 - the word for it; nobody needs the builtin beside it
    policy: Policy,
    users: Mapping[UserID, User],
    nodes: Mapping[NodeID, Node],
    background: Background = _NOTHING,
) -> Compiled:
    """Compile a policy for a tailnet, from scratch."""
    return _compiled(first_state(policy, background, users, nodes), Kept())


def recompile(
    old: Compiled,
    policy: Policy,
    users: Mapping[UserID, User],
    nodes: Mapping[NodeID, Node],
    changed_nodes: Collection[NodeID],
    changed_users: Collection[UserID] = (),
    background: Background = _NOTHING,
) -> Compiled:
    """Return what ``compile`` would, sharing all that the changes leave as it was.

    ``changed_nodes`` came, went, or differ in anything; ``changed_users`` too (an e-mail, a name).
    Naming more than changed costs time and nothing else; if nothing changed that a policy looks
    at, ``old`` itself is the result. Another policy is compiled from scratch, and so is another
    background (roles, domains).
    """
    state = old.state
    if state is None or state.rule_index.policy is not policy or not _is_same(state, background):
        return compile(policy, users, nodes, background)
    known = state.nodes
    moved = {each for each in changed_nodes if _matters(state, known.get(each), nodes.get(each))}
    called = state.users
    owners = {each for each in changed_users if _names(called.get(each)) != _names(users.get(each))}
    if owners:
        moved.update(node.id for node in nodes.values() if node.user_id in owners)
    if not moved:
        return old
    kept = Kept() if state.kept is None else state.kept.heir(nodes)
    now = next_state(state, users, nodes, moved)
    if state.kept is not None and not any(_logs_in(each, moved) for each in (state, now)):
        kept.logins = state.kept.logins
    return _compiled(now, kept)


def _logs_in(state: State, moved: Collection[NodeID]) -> bool:
    """Return whether an SSH rule names one of these nodes, or may have an owner among theirs."""
    rest = ~state.rule_index.packets
    found = (state.matches.get(each) for each in moved)
    return any((s.src | s.dst | s.self_src | s.self_dst) & rest for s in found if s is not None)


def _matters(state: State, was: Node | None, now: Node | None) -> bool:
    """Return whether a node changed in anything that a policy looks at."""
    if was is None or now is None:
        return was is not now
    if was is now:
        return False
    here, there = was.hostinfo, now.hostinfo
    return (
        was.tags != now.tags
        or was.user_id != now.user_id
        or was.ipv4 != now.ipv4
        or was.ipv6 != now.ipv6
        or was.approved_routes != now.approved_routes
        or (here is not there and here.routable_ips != there.routable_ips)
        or here.os != there.os
        or (
            bool(state.rule_index.policy.postures)
            and (was.attributes != now.attributes or attributes_of(was) != attributes_of(now))
        )
    )


def _names(user: User | None) -> set[str]:
    """Return the words by which a policy may mean a user: their own, and those of their groups."""
    return set() if user is None else names_of(user) | synced_groups_of(user)


def _is_same(state: State, background: Background) -> bool:
    known = state.rule_index.background
    return known is background or known == background


def _compiled(state: State, kept: Kept) -> Compiled:
    state.kept = kept
    if state.rule_index.policy is UNWRITTEN:
        return Compiled(state=state)
    return Compiled(NOBODY, _Sights(state), NO_RULES, _Filters(state, kept), state)
