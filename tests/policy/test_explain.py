"""Explanations name the rule that lets through, or the nearest ones; comparisons name the nodes."""

from __future__ import annotations

import pytest

from appliance.errors import Invalid, NotFound
from appliance.policy.answers import selftest
from appliance.policy.answers.comparison import Change, compare
from appliance.policy.answers.explain import explain
from appliance.policy.engine.compile import OPEN, compile  # noqa: A004 - its name
from appliance.policy.text.language import Background
from appliance.records import NodeID, UserID
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


def test_rule_through_routers_does_not_lead_to_a_node() -> None:
    """Its filter has no such rule: ``via`` is about what routers lead to."""
    grant = {"src": ["*"], "dst": ["100.64.0.2"], "ip": ["*"], "via": ["tag:a"]}
    document = {"tagOwners": {"tag:a": []}, "grants": [grant]}
    state = compile(read(document), USERS, NODES, Background()).state
    assert state is not None
    answer = explain(state, "n1", "n2:22")
    assert not answer.allowed
    assert [each.miss for each in answer.reasons] == ["the destination is not in dst"]
    tests = [{"src": "ann@example.com", "accept": ["100.64.0.2:22"]}]
    policy = read({**document, "tests": tests})
    (failure,) = selftest.run(policy, USERS, NODES, Background())
    assert "expected ALLOWED, got DENIED" in failure.text


def test_own_devices_are_no_destination_for_others() -> None:
    """The source is in ``src``, so that this is not what is wrong."""
    acls = [
        {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:22"]},
        {"action": "accept", "src": ["bob@example.com"], "dst": ["autogroup:self:80"]},
    ]
    state = compile(read({"acls": acls}), USERS, NODES, Background()).state
    assert state is not None
    (reason,) = explain(state, "n1", "n2:22").reasons
    assert reason.place.index == 0
    assert reason.miss == "the destination is not in dst"


def test_long_lists_are_shortened() -> None:
    acls = [
        {
            "action": "accept",
            "src": ["ann@example.com", *(f"10.0.0.{n}" for n in range(40))],
            "dst": [f"tag:a:{','.join(str(port) for port in range(n + 1, n + 41))}"],
        }
        for n in range(200)
    ]
    state = compile(read({**DOCUMENT, "acls": acls}), USERS, NODES, Background()).state
    assert state is not None
    answer = explain(state, "n1", "n3")
    assert len(answer.reasons) == 50
    assert answer.reasons[0].rule.startswith("ann@example.com, 10.0.0.0, ")
    assert "and 29 more -> tag:a:1,2," in answer.reasons[0].rule
    assert answer.reasons[0].rule.endswith(",and 28 more")


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
    changes = list(compare(COMPILED, compile(read(document), USERS, NODES, Background())))
    assert changes == [
        Change("n1", peers_lost=("n3",)),
        Change("n2", peers_gained=("n3",)),
        Change(
            "n3",
            peers_gained=("n2",),
            peers_lost=("n1",),
            lets_in_now=("n2 to port 80",),
            keeps_out_now=("n1 to port 22",),
        ),
    ]
    assert list(compare(COMPILED, COMPILED)) == []


@pytest.mark.parametrize(
    ("section", "come", "gone"),
    [
        ({"acls": None}, "the whole tailnet to * port *", "n1 to port 22"),
        (
            {"acls": [{"action": "accept", "src": ["autogroup:danger-all"], "dst": ["tag:a:22"]}]},
            "anyone to port 22",
            "n1 to port 22",
        ),
        (
            {"acls": [{"action": "accept", "src": ["*"], "dst": ["tag:a:22"], "proto": "tcp"}]},
            "the whole tailnet to port 22 proto 6",
            "n1 to port 22",
        ),
        (
            {"acls": [{"action": "accept", "src": ["ann@example.com", "n2"], "dst": ["n3:22"]}]},
            "100.64.0.2, n1 to 100.64.0.3 port 22",
            "n1 to port 22",
        ),
        (
            {
                "grants": [
                    {"src": ["ann@example.com"], "dst": ["tag:a"], "app": {"x.com/y": [{"z": 1}]}}
                ]
            },
            'n1 with x.com/y {"z":1}',
            "",
        ),
    ],
)
def test_comparison_says_what_is_let_in(section: dict[str, object], come: str, gone: str) -> None:
    hosts = {"printer": "10.0.0.9", "n2": "100.64.0.2", "n3": "100.64.0.3"}
    document = {k: v for k, v in {**DOCUMENT, "hosts": hosts, **section}.items() if v is not None}
    changes = compare(COMPILED, compile(read(document), USERS, NODES, Background()))
    change = next(each for each in changes if each.node == "n3")
    assert change.lets_in_now == (come,)
    assert change.keeps_out_now == ((gone,) if gone else ())


def test_long_lists_are_counted() -> None:
    nodes = {NodeID(n): node(n, user=UserID(1)) for n in range(1, 10)}
    before, after = (
        compile(read({"acls": acls}), USERS, nodes, Background())
        for acls in (
            [],
            [{"action": "accept", "src": ["ann@example.com"], "dst": ["ann@example.com:22"]}],
        )
    )
    change = next(compare(before, after))
    assert change.lets_in_now == ("n1, n2, n3, n4, n5 and 4 more to port 22",)
    assert change.peers_gained == tuple(f"n{n}" for n in range(2, 10))


@pytest.mark.parametrize("attr", ["nodeAttrs", "ssh"])
def test_comparison_sees_attributes_and_logins(attr: str) -> None:
    value: object = [{"target": ["tag:a"], "attr": ["funnel"]}]
    if attr == "ssh":
        users = ["root"]
        value = [{"action": "accept", "src": ["ann@example.com"], "dst": ["tag:a"], "users": users}]
    after = compile(read({**DOCUMENT, attr: value}), USERS, NODES, Background())
    (change,) = compare(COMPILED, after)
    assert change.node == "n3"
    assert change.ssh_changes is (attr == "ssh")
    assert any("funnel" in word for word in change.attributes_gained) is (attr != "ssh")
    (back,) = compare(after, COMPILED)
    assert back.attributes_lost == change.attributes_gained


def test_only_compiled_policies_can_be_compared() -> None:
    with pytest.raises(ValueError, match="compiled"):
        list(compare(OPEN, COMPILED))
