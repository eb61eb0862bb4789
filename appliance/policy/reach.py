"""May this address reach that one? One question, answered flow by flow, with the reason.

Reads the flows for one pair at a time, so it also answers for addresses that no node has. Not for
whole filters. ``selftest`` and ``explain`` ask it. Sits on ``state``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from enum import StrEnum

from appliance.policy import spans
from appliance.policy.bits import of
from appliance.policy.flows import Flow
from appliance.policy.ports import DEFAULT_PROTOCOLS
from appliance.policy.state import State
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
    def standing(self) -> tuple[int, int, int, int]:
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
    """Give an end for an address."""
    program = state.program
    keys = program.keys_of(node, state.users) if node is not None else ()
    starts = program.starts_at(address, keys)
    if _is_anyone(state, address):
        starts |= program.from_everyone
    ends, owner = program.ends_at(address, keys), None
    if node is not None:
        ends &= ~program.steered
    if node is not None and not node.tags:
        ends, owner = ends | program.selves, node.user_id
    missed = program.missed(node)
    return End(address, node, starts, ends, missed, owner)


def _is_anyone(state: State, address: Address) -> bool:
    """Tell whether ``*`` as a source means this address: in the tailnet or a subnet of it."""
    own = (spans.of_network(r) for each in state.routers.values() for r in each.subnets)
    return any(span.holds(address) for span in (*spans.TAILNET, *own))


def verdicts(
    state: State, src: End, dst: End, port: int | None = None, protocols: Iterable[int] = ()
) -> Iterator[Verdict]:
    """Say of every flow of packets whether it lets this through; port None means any one."""
    wanted = frozenset(protocols)
    for flow in state.program.flows:
        if not flow.is_login and flow.capabilities is None:
            verdict = verdict_of(flow, src, dst)
            if verdict.miss is None:
                verdict = Verdict(flow, _miss(flow, port, wanted), is_end=True)
            yield verdict


def verdict_of(flow: Flow, src: End, dst: End) -> Verdict:
    """Say whether a flow leads from one end to the other, whatever ports or users it is for."""
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


def opened(state: State, port: int, protocols: Iterable[int] = ()) -> int:
    """Give the flows that let packets to this port through, whoever sends them.

    Without protocols one of the default ones is enough.
    """
    wanted = frozenset(protocols)
    return of(
        flow.number
        for flow in state.program.flows
        if not flow.is_login and flow.capabilities is None and _miss(flow, port, wanted) is None
    )


def _miss(flow: Flow, port: int | None, protocols: frozenset[int]) -> Miss | None:
    if (protocols or DEFAULT_PROTOCOLS).isdisjoint(flow.protocols or DEFAULT_PROTOCOLS):
        return Miss.PROTOCOL
    if port is not None and not any(each.first <= port <= each.last for each in flow.ports):
        return Miss.PORT
    return None
