"""May this address reach that one? One question, answered flow by flow, with the reason.

Reads the flows for one pair at a time, so it also answers for addresses that no node has. Not for
whole filters. ``selftest`` and ``explain`` ask it. Sits on ``state``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import defaultdict
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from appliance.policy.engine.bits import union
from appliance.policy.engine.flows import Flow
from appliance.policy.engine.state import State
from appliance.policy.text import spans
from appliance.policy.text.ports import DEFAULT_PROTOCOLS, Ports
from appliance.records import Address, Node, UserID


class Miss(StrEnum):
    """Why a flow lets no packet and no login through; in the order in which they are found."""

    SOURCE = "the source is not in src"
    POSTURE = "the source is in src but not in the posture"
    DESTINATION = "the destination is not in dst"
    PROTOCOL = "another protocol"
    PORT = "another port"
    USER = "the user is not in users"


@dataclass(frozen=True, slots=True)
class End:
    """One end of a packet: an address, and the node that has it, if one has.

    ``starts`` and ``ends`` are the flows that name it as source and as destination; ``missed``
    those in whose postures it is not; ``owner`` the user whose untagged node it is.
    """

    address: Address
    node: Node | None
    starts: int
    ends: int
    missed: int
    owner: UserID | None

    @property
    def matches(self) -> tuple[int, int, int, int]:
        """What the answers depend on, besides the owner where a flow is to own devices."""
        return self.address.version, self.starts, self.ends, self.missed


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one flow says; ``miss`` None lets the packet through.

    ``is_end`` tells whether it ends at the destination, whoever asks.
    """

    flow: Flow
    miss: Miss | None
    is_end: bool


def end_of(state: State, address: Address, node: Node | None) -> End:
    """Return an end for an address."""
    rule_index = state.rule_index
    keys = rule_index.keys_of(node, state.users) if node is not None else ()
    starts = rule_index.starts_at(address, keys)
    if spans.among(state.anyone, address):
        starts |= rule_index.from_everyone
    ends, owner = rule_index.ends_at(address, keys), None
    if node is not None:
        ends &= ~rule_index.steered
    if node is not None and not node.tags:
        ends, owner = ends | rule_index.selves, node.user_id
    missed = rule_index.missed(node)
    return End(address, node, starts, ends, missed, owner)


def verdicts(
    state: State, src: End, dst: End, port: int | None = None, protocols: Iterable[int] = ()
) -> Iterator[Verdict]:
    """Return for every flow of packets whether it lets this through; port None means any one."""
    wanted = frozenset(protocols)
    for flow in state.rule_index.flows:
        if not flow.is_login and flow.capabilities is None:
            verdict = verdict_of(flow, src, dst)
            if verdict.miss is None:
                verdict = Verdict(flow, _miss(flow, port, wanted), is_end=True)
            yield verdict


def verdict_of(flow: Flow, src: End, dst: End) -> Verdict:
    """Return whether a flow leads from one end to the other, whatever ports or users it is for."""
    bit, miss = 1 << flow.number, None
    # Devices of users are ends of ``autogroup:self``, but for those of the same user only.
    is_own = src.owner is not None and src.owner == dst.owner
    is_end = bool(dst.ends & bit) and (is_own or not flow.is_self)
    if not src.starts & bit:
        miss = Miss.SOURCE
    elif src.missed & bit:
        miss = Miss.POSTURE
    elif not is_end:
        miss = Miss.DESTINATION
    return Verdict(flow, miss, is_end)


class Openings:
    """Which flows let packets to a port through, whoever sends them: asked for many ports.

    Keeps what changes from port to port, and the whole set at every ``STRIDE``-th change: policies
    may have a rule for every port, and as many claims about ports.
    """

    STRIDE = 64

    def __init__(self, state: State) -> None:
        self._by_protocols: defaultdict[tuple[int, ...], int] = defaultdict(int)
        changes: defaultdict[int, int] = defaultdict(int)
        for flow in state.rule_index.flows:
            if flow.is_login or flow.capabilities is not None:
                continue
            bit = 1 << flow.number
            self._by_protocols[flow.protocols] |= bit
            for first, last in _merged(flow.ports):
                changes[first] ^= bit
                changes[last + 1] ^= bit
        self._ports = sorted(changes)
        self._changes = [changes[port] for port in self._ports]
        self._whole: list[int] = []
        opened = 0
        for place, change in enumerate(self._changes):
            if place % self.STRIDE == 0:
                self._whole.append(opened)
            opened ^= change

    def at(self, port: int, protocols: Iterable[int] = ()) -> int:
        """Return the flows; without protocols one of the default ones is enough."""
        upto = bisect_right(self._ports, port)
        start = (upto - 1) // self.STRIDE if upto else 0
        found = self._whole[start] if upto else 0
        for change in self._changes[start * self.STRIDE : upto]:
            found ^= change
        wanted = frozenset(protocols) or DEFAULT_PROTOCOLS
        return found & union(
            flows
            for known, flows in self._by_protocols.items()
            if not wanted.isdisjoint(known or DEFAULT_PROTOCOLS)
        )


def _merged(ports: Iterable[Ports]) -> list[tuple[int, int]]:
    """Return the same ports as ranges that neither overlap nor touch."""
    merged: list[tuple[int, int]] = []
    for first, last in sorted(ports):
        if merged and first <= merged[-1][1] + 1:
            merged[-1] = merged[-1][0], max(last, merged[-1][1])
        else:
            merged.append((first, last))
    return merged


def _miss(flow: Flow, port: int | None, protocols: frozenset[int]) -> Miss | None:
    if (protocols or DEFAULT_PROTOCOLS).isdisjoint(flow.protocols or DEFAULT_PROTOCOLS):
        return Miss.PROTOCOL
    if port is not None and not any(each.first <= port <= each.last for each in flow.ports):
        return Miss.PORT
    return None
