"""Why one node may log in to another by SSH, and as whom: an answer for people.

What lets in is read off the rules that the destination is told, in the order in which it asks them,
so that it is what the client will do. Not for deciding (``ssh`` does). Sits on ``ssh`` and
``reach``; the API and the command line print it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import timedelta
from itertools import product

from appliance.policy.answers.explain import NEAREST, Reason, distance, shortened
from appliance.policy.engine.flows import Login
from appliance.policy.engine.reach import End, Miss, Verdict, end_of, verdict_of, verdicts
from appliance.policy.engine.ssh import in_order, period_of, recorders_of, rules_of
from appliance.policy.engine.state import State
from appliance.policy.text.loginsections import local_part_domain
from appliance.records import Node, NodeID
from appliance.wire import tailcfg
from appliance.wire.tailcfg.message import address_text

ANY = "*"
"""Among local users: all that no rule for the source names."""


SSH_PORT = 22
TCP = 6


@dataclass(frozen=True, slots=True)
class Granted:
    """A rule that lets the source in, and decides about ``users`` before every other rule.

    If ``users`` holds ANY, ``besides`` lists the exceptions: local users who are refused, or about
    whom another rule decides. ``period`` is how long a check stays good: zero asks at each login, None
    means no check. ``recorders`` None: sessions are not recorded; (): no node matches the recorder, and
    sessions are refused if ``must_record``, else unrecorded. ``is_own``: the destination belongs to
    the source's owner and the rule does not name it; with ``localpart:`` it gets the rule all the same.
    """

    reason: Reason
    period: timedelta | None
    users: tuple[str, ...]
    besides: tuple[str, ...]
    recorders: tuple[NodeID, ...] | None
    must_record: bool
    is_own: bool


def granted(state: State, src: Node, dst: Node, user: str = "") -> tuple[Granted, ...]:
    """Return which rules let ``src`` in at ``dst``, in the order asked; as ``user``, or as anybody."""
    told = list(_told(state, src, dst))
    names = {user} if user else {ANY, *(name for _, rule in told for name in rule.ssh_users)}
    undecided = set(names)
    decided: dict[int, tuple[Login, list[str]]] = {}
    for login, rule in told:
        mapped = rule.ssh_users
        # Only a rule for anybody may decide about names that are not its own.
        asked = list(undecided) if mapped.get(ANY) else [n for n in mapped if n in undecided]
        users = [name for name in asked if mapped.get(name, mapped.get(ANY, ""))]
        if users:
            undecided.difference_update(users)
            decided.setdefault(login.rule.place.index, (login, []))[1].extend(users)
    ends = end_of(state, src.addresses[0], src), end_of(state, dst.addresses[0], dst)
    return tuple(
        _granted(state, login, ends, sorted(users), sorted(names - set(users)))
        for login, users in decided.values()
    )


def nearest(state: State, src: Node, dst: Node, user: str = "") -> tuple[Reason, ...]:
    """Return which rules come nearest to letting ``src`` in, and why each does not.

    The answer makes sense only where ``granted`` gives nothing.
    """
    one, other = (end_of(state, node.addresses[0], node) for node in (src, dst))
    near = [
        (verdict, login)
        for login in state.rule_index.logins
        if (verdict := _verdict(login, one, other)) is not None
        # As for packets: of those that miss the source only those that end at the destination.
        if verdict.miss is not Miss.SOURCE or verdict.is_end
    ]
    near.sort(key=lambda pair: distance(pair[0]))
    return tuple(
        Reason(login.rule.place, _text(login), _miss(state, verdict, login, src, user))
        for verdict, login in near[:NEAREST]
    )


def arrives(state: State, src: Node, dst: Node) -> bool:
    """Return whether packets to the port of SSH get through; without them no rule for SSH counts."""
    return any(
        verdict.miss is None
        for one, other in product(src.addresses, dst.addresses)
        if one.version == other.version
        for verdict in verdicts(
            state, end_of(state, one, src), end_of(state, other, dst), SSH_PORT, (TCP,)
        )
    )


def _told(state: State, src: Node, dst: Node) -> Iterator[tuple[Login, tailcfg.SSHRule]]:
    """Return what the destination is told of the source, with the rules of the policy behind it."""
    texts = {address_text(address) for address in src.addresses}
    matches = state.matches[src.id]
    starts = matches.src | matches.self_src
    # Rules that name the same nodes share one list; beside its id it is kept, so that this stays.
    named: dict[int, tuple[bool, tuple[tailcfg.SSHPrincipal, ...]]] = {}
    for login in in_order(state):
        flows = [flow for flow in (login.others, login.own) if flow is not None]
        if not any(starts >> flow.number & 1 for flow in flows):
            continue
        for rule in rules_of(state, login, dst.id):
            key = id(rule.principals)
            if key not in named:
                is_named = any(each.node_ip in texts for each in rule.principals)
                named[key] = is_named, rule.principals
            if named[key][0]:
                yield login, rule


def _granted(
    state: State, login: Login, ends: tuple[End, End], users: list[str], others: list[str]
) -> Granted:
    verdict = _verdict(login, *ends)
    return Granted(
        Reason(login.rule.place, _text(login)),
        period=period_of(login) if login.rule.is_check else None,
        users=tuple(users),
        besides=tuple(others) if ANY in users else (),
        recorders=None if login.recorders is None else recorders_of(state, login),
        must_record=login.rule.enforce_recorder,
        is_own=verdict is not None and verdict.miss is Miss.DESTINATION,
    )


def _verdict(login: Login, src: End, dst: End) -> Verdict | None:
    """Return how far the source comes with a rule, by that part of it which brings it farthest."""
    flows = [flow for flow in (login.others, login.own) if flow is not None]
    found = [verdict_of(flow, src, dst) for flow in flows]
    return min(found, key=distance, default=None)


def _miss(state: State, verdict: Verdict, login: Login, src: Node, user: str) -> str:
    if verdict.miss is not None:
        return str(verdict.miss)
    domains = [domain for each in login.rule.users if (domain := local_part_domain(each))]
    if not domains:
        return str(Miss.USER)
    owner = state.users.get(src.user_id) if src.user_id is not None and not src.tags else None
    whose = "it has none" if owner is None else f"it is {owner.login_name}"
    word = Miss.USER if user else "the source is nobody in users"
    wanted = " or ".join(domains)
    return f"{word}: localpart: wants an owner at {wanted} and takes that name, {whose}"


def _text(login: Login) -> str:
    rule = login.rule
    flow = login.others or login.own
    postures = flow.postures if flow is not None else ()
    posture = f" in {', '.join(postures)}" if postures else ""
    src, dst = (shortened([each.written for each in words]) for words in (rule.src, rule.dst))
    return f"{src}{posture} -> {dst} as {shortened(list(rule.users))}"
