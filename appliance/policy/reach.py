"""May this address reach that one? One question, answered flow by flow, with the reason.

Reads the flows for one pair at a time, so it also answers for addresses that no node has. Not for
whole filters. ``selftest`` and ``explain`` ask it. Sits on ``state``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from appliance.policy import spans
from appliance.policy.flows import Flow
from appliance.policy.ports import DEFAULT_PROTOCOLS
from appliance.policy.selectors import Kind, Selector
from appliance.policy.standing import Key, spans_of
from appliance.policy.state import State
from appliance.records import Address, Node


class Miss(StrEnum):
    """Why a flow does not let a packet through; in the order in which they are found."""

    SOURCE = "the source is not in src"
    POSTURE = "the source is in src but not in the posture"
    DESTINATION = "the destination is not in dst"
    PROTOCOL = "another protocol"
    PORT = "another port"


@dataclass(frozen=True, slots=True)
class End:
    """One end of a packet: an address, and the node that has it, if one has."""

    address: Address
    node: Node | None
    keys: frozenset[Key]


@dataclass(frozen=True, slots=True)
class Verdict:
    """What one flow says; ``miss`` None lets the packet through."""

    flow: Flow
    miss: Miss | None


def end_of(state: State, address: Address, node: Node | None) -> End:
    """Give an end for an address."""
    keys = state.program.keys_of(node, state.users) if node is not None else ()
    return End(address, node, frozenset(keys))


def verdicts(
    state: State, src: End, dst: End, port: int | None = None, protocols: Iterable[int] = ()
) -> Iterator[Verdict]:
    """Say of every flow of packets whether it lets this through; port None means any one."""
    wanted = frozenset(protocols)
    for flow in state.program.flows:
        if not flow.is_login and flow.capabilities is None:
            yield Verdict(flow, _miss(state, flow, src, dst, port, wanted))


def may_reach(state: State, src: End, dst: End, port: int, protocols: Iterable[int] = ()) -> bool:
    """Tell whether any flow lets this through; without protocols one of the default ones is enough."""
    wanted = frozenset(protocols)
    return any(each.miss is None for each in verdicts(state, src, dst, port, wanted))


def _miss(
    state: State, flow: Flow, src: End, dst: End, port: int | None, protocols: frozenset[int]
) -> Miss | None:
    if not _starts(state, flow, src, dst):
        return Miss.SOURCE
    if flow.postures and not _is_in_posture(state, flow, src):
        return Miss.POSTURE
    if not is_end(state, flow, dst):
        return Miss.DESTINATION
    if (protocols or DEFAULT_PROTOCOLS).isdisjoint(flow.protocols or DEFAULT_PROTOCOLS):
        return Miss.PROTOCOL
    if port is not None and not any(each.first <= port <= each.last for each in flow.ports):
        return Miss.PORT
    return None


def _starts(state: State, flow: Flow, src: End, dst: End) -> bool:
    if flow.is_self and not _is_same_owner(src, dst):
        return False
    return any(_is_source(state, selector, src) for selector in flow.src)


def _is_same_owner(src: End, dst: End) -> bool:
    if src.node is None or dst.node is None or src.node.tags or dst.node.tags:
        return False
    return src.node.user_id is not None and src.node.user_id == dst.node.user_id


def _is_source(state: State, selector: Selector, src: End) -> bool:
    match selector.kind:
        case Kind.DANGER_ALL:
            return True
        case Kind.EVERYONE:
            own = (spans.of_network(r) for each in state.routers.values() for r in each.subnets)
            return any(span.holds(src.address) for span in (*spans.TAILNET, *own))
        case Kind.ADDRESSES | Kind.SERVICE:
            known = spans_of(selector, state.program.background)
            return any(span.holds(src.address) for span in known)
        case _:
            return (selector.kind, selector.name) in src.keys


def _is_in_posture(state: State, flow: Flow, src: End) -> bool:
    if src.node is None:
        return False
    return state.program.is_in_posture(frozenset(flow.postures), src.node)


def is_end(state: State, flow: Flow, dst: End) -> bool:
    """Tell whether a flow names this end as destination, whoever asks."""
    if flow.is_self:
        return dst.node is not None and not dst.node.tags
    return any(_is_destination(state, selector, dst) for selector in flow.dst)


def _is_destination(state: State, selector: Selector, dst: End) -> bool:
    match selector.kind:
        case Kind.EVERYONE | Kind.DANGER_ALL:
            return True
        case Kind.INTERNET:
            return any(span.holds(dst.address) for span in spans.INTERNET)
        case Kind.ADDRESSES | Kind.SERVICE:
            known = spans_of(selector, state.program.background)
            return any(span.holds(dst.address) for span in known)
        case _:
            return (selector.kind, selector.name) in dst.keys
