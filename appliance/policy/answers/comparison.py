"""What another policy would change, node by node, before it is applied.

Not for applying it. Nodes are called by name, and what many of them share (who may come, whom one
sees) is compared once, so that a change of everything costs seconds at 5,000 nodes and not
gigabytes. Sits on ``compile``; ``policy diff`` prints it.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator, Mapping, Set
from dataclasses import dataclass, fields
from typing import TypeAlias

from appliance.policy.engine import nodeattrs
from appliance.policy.engine.compile import Compiled
from appliance.policy.engine.ssh import ssh_policy
from appliance.policy.engine.state import Sight, State
from appliance.policy.text import spans
from appliance.records import Node, NodeID
from appliance.wire import tailcfg
from appliance.wire.tailcfg.message import address_text

MAX_NAMES = 5
"""Sources that one line names; the rest is counted."""
MAX_LINE_CHARS = 160
"""Capabilities and attributes have values, and whole documents stand in some."""
_TAILNET = frozenset(span.text for span in spans.TAILNET)

_Who: TypeAlias = frozenset[str]
_Ends: TypeAlias = "Mapping[str, frozenset[_Who]]"
_NOBODY: frozenset[_Who] = frozenset()


@dataclass(frozen=True, slots=True)
class Change:
    """What would change for one node; empty tuples and False where nothing does."""

    node: str
    peers_gained: tuple[str, ...] = ()
    peers_lost: tuple[str, ...] = ()
    lets_in_now: tuple[str, ...] = ()
    keeps_out_now: tuple[str, ...] = ()
    attributes_gained: tuple[str, ...] = ()
    attributes_lost: tuple[str, ...] = ()
    ssh_changes: bool = False

    @property
    def is_empty(self) -> bool:
        """Return whether nothing would change."""
        return not any(getattr(self, each.name) for each in fields(self)[1:])


def compare(old: Compiled, new: Compiled) -> Iterator[Change]:
    """Return the nodes for which anything would change; both must be of the same nodes.

    One at a time: all of them together are large.
    """
    comparison = _Comparison(old, new)
    for node_id in sorted(_state(new).nodes):
        change = comparison.change(node_id)
        if not change.is_empty:
            yield change


def _state(compiled: Compiled) -> State:
    if compiled.state is None:
        raise ValueError("only policies that were compiled can be compared")
    return compiled.state


class _Comparison:
    """Two policies, and what was found out about parts that nodes share."""

    def __init__(self, old: Compiled, new: Compiled) -> None:
        self._old, self._new = old, new
        self._before, self._after = _state(old), _state(new)
        nodes = self._after.nodes
        self._names = {node_id: node.name for node_id, node in nodes.items()}
        self._everyone = frozenset(nodes)
        self._owners = {
            address_text(address): node for node in nodes.values() for address in node.addresses
        }
        # Keyed by identity, with the object beside it so that the identity stays its own.
        self._spelled: dict[int, tuple[tuple[str, ...], _Who]] = {}
        self._same: dict[_Who, _Who] = {}
        self._moves: dict[tuple[frozenset[_Who], frozenset[_Who]], tuple[str, str]] = {}
        self._seen: dict[
            tuple[int, int], tuple[Sight, Sight, tuple[str, ...], tuple[str, ...]]
        ] = {}
        self._logins: dict[tuple[int, int], tuple[object, object, bool]] = {}

    def change(self, node_id: NodeID) -> Change:
        """Compare all that one node is told."""
        gained, lost = self._peers(node_id)
        lets_in, keeps_out = self._filters(node_id)
        had, has = (_attributes(state, node_id) for state in (self._before, self._after))
        return Change(
            self._names[node_id],
            gained,
            lost,
            lets_in,
            keeps_out,
            attributes_gained=tuple(map(_cut, sorted(has - had))),
            attributes_lost=tuple(map(_cut, sorted(had - has))),
            ssh_changes=self._ssh_changes(node_id),
        )

    # ── peers ───────────────────────────────────────────────────────────────────────────────────

    def _peers(self, node_id: NodeID) -> tuple[tuple[str, ...], tuple[str, ...]]:
        old, new = self._old.sight(node_id), self._new.sight(node_id)
        known = self._seen.get((id(old), id(new)))
        if known is None:
            before, after = self._nodes(old), self._nodes(new)
            gained, lost = self._sorted(after - before), self._sorted(before - after)
            known = self._seen[id(old), id(new)] = old, new, gained, lost
        own = self._names[node_id]
        gained, lost = (tuple(n for n in names if n != own) for names in known[2:])
        return gained, lost

    def _nodes(self, sight: Sight) -> frozenset[NodeID]:
        return self._everyone if sight.nodes is None else sight.nodes

    def _sorted(self, nodes: Set[NodeID]) -> tuple[str, ...]:
        return tuple(sorted(self._names[each] for each in nodes))

    # ── packets ─────────────────────────────────────────────────────────────────────────────────

    def _filters(self, node_id: NodeID) -> tuple[tuple[str, ...], tuple[str, ...]]:
        before, after = (
            self._ends(compiled.packet_filter(node_id), self._after.nodes[node_id])
            for compiled in (self._old, self._new)
        )
        come, gone = [], []
        for end in sorted(before.keys() | after.keys()):
            lists = before.get(end, _NOBODY), after.get(end, _NOBODY)
            if lists[0] != lists[1]:
                gained, lost = self._moved(*lists)
                come += [_cut(f"{gained} {end}")] if gained else []
                gone += [_cut(f"{lost} {end}")] if lost else []
        return tuple(come), tuple(gone)

    def _moved(self, before: frozenset[_Who], after: frozenset[_Who]) -> tuple[str, str]:
        """Return who is let in now and who no longer."""
        known = self._moves.get((before, after))
        if known is None:
            had, has = frozenset[str]().union(*before), frozenset[str]().union(*after)
            known = self._moves[before, after] = _listed(has - had), _listed(had - has)
        return known

    def _ends(self, rules: tuple[tailcfg.FilterRule, ...], node: Node) -> _Ends:
        """Return whom a filter lets in, for each thing that it lets them to."""
        own = {address_text(address) for address in node.addresses}
        found: defaultdict[str, set[_Who]] = defaultdict(set)
        for rule in rules:
            who = self._who(rule.src_ips)
            for end in _ends_of(rule, own):
                found[end].add(who)
        return {end: frozenset(lists) for end, lists in found.items()}

    def _who(self, texts: tuple[str, ...]) -> _Who:
        """Name the nodes in a list of addresses that have all of theirs there."""
        known = self._spelled.get(id(texts))
        if known is not None:
            return known[1]
        given = set(texts)
        words = set()
        if given >= _TAILNET:
            given -= _TAILNET
            words.add("the whole tailnet")
        for text in given:
            node = self._owners.get(text)
            is_whole = node is not None and all(address_text(a) in given for a in node.addresses)
            words.add(node.name if node is not None and is_whole else text)
        if "*" in words:
            words = {"anyone"}
        who = frozenset(words)
        who = self._same.setdefault(who, who)
        self._spelled[id(texts)] = texts, who
        return who

    # ── logins ──────────────────────────────────────────────────────────────────────────────────

    def _ssh_changes(self, node_id: NodeID) -> bool:
        old, new = (ssh_policy(state, node_id) for state in (self._before, self._after))
        known = self._logins.get((id(old), id(new)))
        if known is None:
            known = self._logins[id(old), id(new)] = old, new, old != new
        return known[2]


def _ends_of(rule: tailcfg.FilterRule, own: Set[str]) -> Iterator[str]:
    """Spell what a rule lets to, one text for each; the node's own addresses need no word."""
    protocols = f" proto {','.join(map(str, rule.ip_proto))}" if rule.ip_proto else ""
    places: defaultdict[tailcfg.PortRange, set[str]] = defaultdict(set)
    for each in rule.dst_ports:
        places[each.ports].add(each.ip)
    for ports, texts in places.items():
        is_here = bool(own) and own <= texts
        for text in (texts - own) | {""} if is_here else texts:
            yield f"to {text + ' ' if text else ''}port {_ports(ports)}{protocols}"
    for grant in rule.cap_grant:
        for name, values in grant.cap_map.items():
            yield f"with {_valued(name, values)}"


def _listed(names: Set[str]) -> str:
    if not names:
        return ""
    first = sorted(names)[:MAX_NAMES]
    rest = len(names) - len(first)
    return ", ".join(first) + (f" and {rest} more" if rest else "")


def _attributes(state: State, node_id: NodeID) -> set[str]:
    return {_valued(*item) for item in nodeattrs.attributes(state, node_id).items()}


def _valued(name: str, values: tuple[tailcfg.Raw, ...]) -> str:
    """Spell a capability with its value, so that another value is a change."""
    text = ", ".join(bytes(value).decode() for value in values)
    return f"{name} {text}".strip()


def _cut(text: str) -> str:
    return text if len(text) <= MAX_LINE_CHARS else f"{text[:MAX_LINE_CHARS]}…"


def _ports(ports: tailcfg.PortRange) -> str:
    if (ports.first, ports.last) == (0, 65535):
        return "*"
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"
