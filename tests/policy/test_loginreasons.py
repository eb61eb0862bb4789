"""Explanations of SSH logins are what the client will do, and name the rules and what they want."""

from __future__ import annotations

from datetime import timedelta
from itertools import permutations
from random import Random
from typing import Any

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.policy.answers.loginreasons import ANY, Granted, granted, nearest
from appliance.policy.engine.compile import compile  # noqa: A004 - its name
from appliance.policy.engine.ssh import check_period, decide, ssh_policy
from appliance.policy.engine.state import State
from appliance.policy.text.language import Background
from appliance.records import Node, NodeID, UserID
from appliance.wire import tailcfg
from appliance.wire.tailcfg.message import address_text
from tests.policy.oracle import Oracle
from tests.policy.worlds import (
    Document,
    node,
    random_document,
    random_ssh,
    random_world,
    read,
    user,
)

LOCAL_USERS = ("root", "web", "ann", "bob", "cid", "nobody")


def said(found: tuple[Granted, ...], user: str) -> Granted | None:
    """Read an explanation: which rule decides about a local user?"""
    deciding = [
        each
        for each in found
        if user in each.users or (ANY in each.users and user not in each.besides)
    ]
    assert len({each.reason for each in deciding}) == len(deciding) <= 1
    return deciding[0] if deciding else None


def is_same(found: Granted | None, action: tailcfg.SSHAction | None) -> bool:
    """Tell whether an explanation and what the client does are the same decision."""
    if found is None or action is None:
        return found is None and action is None
    is_told = action.hold_and_delegate != "", bool(action.recorders)
    is_recorded = bool(found.recorders) or found.must_record
    return is_told == (found.period is not None, is_recorded)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 1 << 48))
def test_explained_logins_are_what_the_client_decides(seed: int) -> None:
    rng = Random(seed)
    world = random_world(rng, rng.randint(2, 8))
    document = random_document(rng) | {"ssh": [random_ssh(rng) for _ in range(rng.randint(1, 5))]}
    state = compile(read(document), world.users, world.nodes, world.background).state
    assert state is not None
    for src, dst in permutations(world.nodes.values(), 2):
        texts = {address_text(address) for address in src.addresses}
        rules, found = ssh_policy(state, dst.id).rules, granted(state, src, dst)
        for name in LOCAL_USERS:
            action, period = decide(rules, texts, name), check_period(state, src.id, dst.id, name)
            one = granted(state, src, dst, name)
            assert [each.users for each in one] == ([] if action is None else [(name,)])
            for grant in (said(found, name), one[0] if one else None):
                assert is_same(grant, action), f"{src.name} -> {dst.name} as {name}"
                assert grant is None or grant.period == period
            if not one:
                check_nearest(Oracle(document, world), state, src, dst, name)


def check_nearest(oracle: Oracle, state: State, src: Node, dst: Node, name: str) -> None:
    """Compare why no rule lets in with a slow reading of the document."""
    found = nearest(state, src, dst, name)
    for reason in found:
        rule = oracle.document["ssh"][reason.place.index]
        assert reason.miss.startswith(slow_miss(oracle, rule, src, dst))
    misses = [slow_miss(oracle, rule, src, dst) for rule in oracle.document["ssh"]]
    assert len(found) >= min(3, sum("in src" not in miss or "posture" in miss for miss in misses))
    assert ("the user is not in users" in misses) == any("users" in each.miss for each in found)


def slow_miss(oracle: Oracle, rule: dict[str, Any], src: Node, dst: Node) -> str:
    """Say how far a rule brings a source which it does not let in."""
    if not any(oracle.is_named(word, src) for word in rule["src"]):
        return "the source is not in src"
    if "srcPosture" in rule and src.hostinfo.os != "macOS":
        return "the source is in src but not in the posture"
    is_own = not src.tags and not dst.tags and src.user_id is not None
    is_own = is_own and src.user_id == dst.user_id
    if any(is_own if w == "autogroup:self" else oracle.is_named(w, dst) for w in rule["dst"]):
        return "the user is not in users"
    return "the destination is not in dst"


# ── cases ───────────────────────────────────────────────────────────────────────────────────────

USERS = {
    UserID(1): user(1, "ann@example.com"),
    UserID(2): user(2, "bob@example.com"),
    UserID(3): user(3, "cid@example.org"),
}
NODES = {
    each.id: each
    for each in (
        node(1, user=UserID(1)),
        node(2, user=UserID(2)),
        node(3, user=UserID(3)),
        node(4, tags=("tag:a",)),
        node(5, tags=("tag:rec",)),
        node(6, user=UserID(1)),
    )
}


def state_of(*rules: Document) -> State:
    """Compile a policy with these SSH rules."""
    document = {"tagOwners": {"tag:a": [], "tag:rec": [], "tag:none": []}, "ssh": rules}
    background = Background(domains=frozenset({"example.com"}))
    state = compile(read(document), USERS, NODES, background).state
    assert state is not None
    return state


def rule(action: str, src: str, dst: str, *users: str, **more: object) -> Document:
    return {"action": action, "src": [src], "dst": [dst], "users": list(users), **more}


def ends(src: int, dst: int) -> tuple[Node, Node]:
    return NODES[NodeID(src)], NODES[NodeID(dst)]


def test_rules_that_check_decide_before_those_that_accept() -> None:
    state = state_of(
        rule("accept", "ann@example.com", "tag:a", "autogroup:nonroot", "web"),
        rule("check", "autogroup:member", "tag:a", "web", "root", checkPeriod="always"),
        rule("accept", "autogroup:member", "tag:a", "root"),
    )
    check, accept = granted(state, *ends(1, 4))
    assert (check.reason.place.index, check.users, check.period) == (
        1,
        ("root", "web"),
        timedelta(0),
    )
    assert (accept.reason.place.index, accept.users, accept.period) == (0, (ANY,), None)
    assert accept.besides == ("root", "web")
    assert (
        str(accept.reason) == "ssh[0] (line 1): ann@example.com -> tag:a as autogroup:nonroot, web"
    )


def test_own_devices_and_those_of_others_are_told_apart() -> None:
    state = state_of(rule("check", "autogroup:member", "autogroup:self", "autogroup:nonroot"))
    (own,) = granted(state, *ends(1, 6))
    assert (own.users, own.besides, own.period) == ((ANY,), ("root",), timedelta(hours=12))
    (reason,) = nearest(state, *ends(1, 2))
    assert reason.miss == "the destination is not in dst"
    assert [each.miss for each in nearest(state, *ends(1, 6), "root")] == [
        "the user is not in users"
    ]
    # A tag is no user, and no end of that rule.
    assert nearest(state, *ends(4, 1)) == ()


def test_local_part_is_that_of_the_source_owner() -> None:
    state = state_of(rule("accept", "autogroup:member", "tag:a", "localpart:*@example.com"))
    assert [each.users for each in granted(state, *ends(1, 4))] == [("ann",)]
    assert granted(state, *ends(3, 4)) == ()
    wants = "localpart: wants an owner at example.com and takes that name, it is"
    (reason,) = nearest(state, *ends(3, 4))
    assert reason.miss == f"the source is nobody in users: {wants} cid@example.org"
    (reason,) = nearest(state, *ends(2, 4), "ann")
    assert reason.miss == f"the user is not in users: {wants} bob@example.com"


def test_owners_devices_are_told_of_rules_with_local_parts() -> None:
    """Recorded of the hosted service: such a rule opens a source's own devices to its owner."""
    state = state_of(rule("accept", "autogroup:member", "tag:a", "localpart:*@example.com"))
    (grant,) = granted(state, *ends(1, 6))
    assert (grant.users, grant.is_own) == (("ann",), True)
    assert [each.is_own for each in granted(state, *ends(1, 4))] == [False]


def test_recorders_are_named() -> None:
    for dst, must, expected in (
        ("tag:rec", True, (5,)),
        ("tag:none", False, ()),
        ("", False, None),
    ):
        more = {"recorder": [dst], "enforceRecorder": must} if dst else {}
        state = state_of(rule("accept", "autogroup:member", "tag:a", "root", **more))
        (grant,) = granted(state, *ends(1, 4))
        assert (grant.recorders, grant.must_record) == (expected, must)


def test_sources_that_are_not_meant_are_near_only_at_the_destination() -> None:
    state = state_of(
        rule("accept", "bob@example.com", "tag:a", "root"),
        rule("accept", "bob@example.com", "tag:rec", "root"),
    )
    (reason,) = nearest(state, *ends(1, 4))
    assert str(reason) == (
        "ssh[0] (line 1): bob@example.com -> tag:a as root: the source is not in src"
    )
