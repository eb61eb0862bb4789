"""Explanations name the rule that lets through, or the nearest ones; comparisons name the nodes."""

from __future__ import annotations

import pytest

from appliance.errors import Invalid, NotFound
from appliance.policy.comparison import compare
from appliance.policy.compile import OPEN, compile  # noqa: A004 - its name
from appliance.policy.explain import explain
from appliance.policy.language import Background
from appliance.records import UserID
from tests.policy.worlds import node, read, user

USERS = {UserID(1): user(1, "ann@example.com"), UserID(2): user(2, "bob@example.com")}
NODES = {
    each.id: each
    for each in (node(1, user=UserID(1)), node(2, user=UserID(2)), node(3, tags=("tag:a",)))
}
DOCUMENT = {
    "tagOwners": {"tag:a": []},
    "hosts": {"printer": "10.0.0.9"},
    "acls": [
        {"action": "accept", "src": ["ann@example.com"], "dst": ["tag:a:22"]},
        {"action": "accept", "src": ["ann@example.com"], "dst": ["printer:631"], "proto": "tcp"},
    ],
}
COMPILED = compile(read(DOCUMENT), USERS, NODES, Background())
STATE = COMPILED.state


def test_rule_that_lets_through_is_named() -> None:
    assert STATE is not None
    answer = explain(STATE, "n1", "n3:22")
    assert answer.allowed
    assert str(answer).splitlines()[1] == "  by acls[0] (line 1): ann@example.com -> tag:a:22"
    assert explain(STATE, "100.64.0.1", "printer:631").allowed


def test_nearest_rules_say_why_they_do_not_match() -> None:
    assert STATE is not None
    answer = explain(STATE, "n1", "n3:80")
    assert not answer.allowed
    assert [(str(each.place), each.miss) for each in answer.reasons] == [
        ("acls[0] (line 1)", "another port"),
        ("acls[1] (line 1)", "the destination is not in dst"),
    ]
    assert explain(STATE, "n2", "n3:22").reasons[0].miss == "the source is not in src"
    assert explain(STATE, "n1", "printer:631", "udp").reasons[0].miss == "another protocol"
    assert "no rule comes near" in str(explain(STATE, "n2", "n1"))


@pytest.mark.parametrize("words", [("nobody", "n1"), ("n1", "nobody:22")])
def test_unknown_ends_are_refused(words: tuple[str, str]) -> None:
    assert STATE is not None
    with pytest.raises(NotFound):
        explain(STATE, *words)


@pytest.mark.parametrize(
    "words", [("n1", "n3:22-23", ""), ("n1", "n3", "nix"), ("10.0.0.1", "fd00::1", "")]
)
def test_unclear_questions_are_refused(words: tuple[str, str, str]) -> None:
    assert STATE is not None
    with pytest.raises(Invalid):
        explain(STATE, *words)


def test_comparison_names_what_changes_for_each_node() -> None:
    document = {
        **DOCUMENT,
        "acls": [{"action": "accept", "src": ["bob@example.com"], "dst": ["tag:a:80"]}],
    }
    changes = compare(COMPILED, compile(read(document), USERS, NODES, Background()))
    assert [str(change) for change in changes] == [
        "n1\n  - sees n3",
        "n2\n  + sees n3",
        "n3\n  + sees n2\n  - sees n1\n"
        + "".join(
            f"  + lets in {a} to {b} port 80\n"
            for a in ("100.64.0.2", "fd7a:115c:a1e0::2")
            for b in ("100.64.0.3", "fd7a:115c:a1e0::3")
        )
        + "\n".join(
            f"  - lets in {a} to {b} port 22"
            for a in ("100.64.0.1", "fd7a:115c:a1e0::1")
            for b in ("100.64.0.3", "fd7a:115c:a1e0::3")
        ),
    ]
    assert compare(COMPILED, COMPILED) == ()


def test_only_compiled_policies_can_be_compared() -> None:
    with pytest.raises(ValueError, match="compiled"):
        compare(OPEN, COMPILED)
