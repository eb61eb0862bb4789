"""What people ask about a policy, answered: what is wrong with it, what it would change, and why.

The same answers with a server (``policy`` sends them) and without one (the command line makes them
from a dump), so nothing here knows HTTP or a live tailnet. Not for judging (``policy.admission``)
nor for putting a policy in force. Sits on the ``policy`` package.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

from msgspec import Struct

from appliance.errors import Rejected
from appliance.policy.answers import selftest
from appliance.policy.answers.admission import Admitted, TestsFailed
from appliance.policy.answers.comparison import Change, compare
from appliance.policy.answers.notes import notes
from appliance.policy.engine import approvers
from appliance.policy.engine.compile import compile  # noqa: A004 - its name
from appliance.policy.text import mistakes
from appliance.policy.text.document import decode
from appliance.policy.text.language import UNWRITTEN, Background, Policy
from appliance.policy.text.mistakes import PolicyError
from appliance.records import Node, NodeID, User, UserID
from appliance.wire.hujson import Spot

MAX_MISTAKES = 500
"""Mistakes and failed tests in one answer; a person mends the first few and asks again."""
MAX_WORDS = 40
"""Words of one kind that are listed for one node; the rest is counted."""


class Subjects(NamedTuple):
    """The tailnet that a policy is about."""

    users: Mapping[UserID, User]
    nodes: Mapping[NodeID, Node]
    background: Background


class Mistake(Struct, frozen=True, kw_only=True):
    """Something wrong with a text, and where; both count from 1."""

    line: int
    column: int
    message: str


class Tested(Struct, frozen=True, kw_only=True):
    """Which of the policy's own tests do not hold, out of how many."""

    ok: bool
    tests: int
    mistakes: tuple[Mistake, ...] = ()


class Checked(Struct, frozen=True, kw_only=True, omit_defaults=True):
    """What is worth a look in a policy that may be put in force; nothing in Headscale's answer."""

    notes: tuple[Mistake, ...] = ()


class NodeChange(Struct, frozen=True, kw_only=True, rename="camel"):
    """What would change for one node; ``more`` counts what is left out of long lists."""

    node: str
    peers_gained: tuple[str, ...] = ()
    peers_lost: tuple[str, ...] = ()
    lets_in: tuple[str, ...] = ()
    keeps_out: tuple[str, ...] = ()
    attributes_gained: tuple[str, ...] = ()
    attributes_lost: tuple[str, ...] = ()
    routes_approved: tuple[str, ...] = ()
    ssh_changes: bool = False
    more: int = 0


class Difference(Struct, frozen=True, kw_only=True):
    """What another policy would change, node by node, out of how many nodes."""

    nodes: int
    changes: tuple[NodeChange, ...] = ()


def mistakes_of(refusal: Rejected) -> tuple[Mistake, ...]:
    """Return where a policy that was refused is wrong; () for a refusal of another kind."""
    match refusal:
        case PolicyError():
            found = [(each.spot, each.text) for each in refusal.mistakes]
        case TestsFailed():
            found = [
                (each.place.spot, f"{each.place.section}[{each.place.index}]: {each.text}")
                for each in refusal.failures
            ]
        case _:
            return ()
    return tuple(_mistake(spot, text) for spot, text in found[:MAX_MISTAKES])


def _mistake(spot: Spot, text: str) -> Mistake:
    return Mistake(line=spot.line, column=spot.column, message=text)


def checked(admitted: Admitted, users: Mapping[UserID, User]) -> Checked:
    """Return what is worth a look in a policy that may be put in force for these users."""
    found = notes(admitted.text, admitted.policy, users)
    return Checked(notes=tuple(_mistake(each.spot, each.text) for each in found))


def check_written(text: str) -> None:
    """Raise PolicyError for a text with nothing in it.

    The language takes it for ``{}``, which lets everything through: nobody means that who sends a
    file that a broken pipe left empty, or a body without the text.
    """
    if not text.strip():
        words = "the text is empty; write {} if everything may reach everything"
        raise PolicyError([mistakes.Mistake(Spot(1, 1), words)])


def test(text: str, subjects: Subjects) -> Tested:
    """Run the tests of a text against it. Raises PolicyError if it cannot be read."""
    policy = read(text, subjects.background)
    failures = selftest.run(policy, *subjects)
    return Tested(
        ok=not failures,
        tests=count_tests(policy),
        mistakes=mistakes_of(TestsFailed(failures)) if failures else (),
    )


def count_tests(policy: Policy) -> int:
    """Count the entries of ``tests`` and ``sshTests``."""
    return len(policy.tests) + len(policy.ssh_tests)


def read(text: str, background: Background) -> Policy:
    """Read a text for a tailnet. Raises PolicyError."""
    check_written(text)
    return decode(text, domains=background.domains, providers=background.providers)


def diff(old: Policy | None, new: Policy, subjects: Subjects) -> Difference:
    """Compare two policies for a tailnet; ``old`` None is the one that nobody wrote.

    Compiles both from scratch, so it may run in any thread.
    """
    before = compile(UNWRITTEN if old is None else old, *subjects)
    after = compile(new, *subjects)
    waiting = _approved(new, subjects)
    found = [_shown(each, waiting.pop(each.node, ())) for each in compare(before, after)]
    found += [_shown(Change(node), routes) for node, routes in waiting.items()]
    return Difference(nodes=len(subjects.nodes), changes=tuple(found))


def _approved(policy: Policy, subjects: Subjects) -> dict[str, tuple[str, ...]]:
    """Return the routes that setting the policy would approve, by the node's name."""
    found = {}
    for node in subjects.nodes.values():
        given = approvers.approved(policy, subjects.background, node, subjects.users)
        fresh = tuple(str(route) for route in given if route not in node.approved_routes)
        if fresh:
            found[node.name] = fresh
    return found


def _shown(change: Change, routes: tuple[str, ...]) -> NodeChange:
    lists = (
        change.peers_gained,
        change.peers_lost,
        change.lets_in_now,
        change.keeps_out_now,
        change.attributes_gained,
        change.attributes_lost,
        routes,
    )
    cut = [each[:MAX_WORDS] for each in lists]
    return NodeChange(
        node=change.node,
        peers_gained=cut[0],
        peers_lost=cut[1],
        lets_in=cut[2],
        keeps_out=cut[3],
        attributes_gained=cut[4],
        attributes_lost=cut[5],
        routes_approved=cut[6],
        ssh_changes=change.ssh_changes,
        more=sum(map(len, lists)) - sum(map(len, cut)),
    )
