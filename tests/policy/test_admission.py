"""What is applied has been read, tested and compiled; anything else is refused with a reason."""

from __future__ import annotations

import pytest

from appliance.errors import Kind
from appliance.policy.answers.admission import TestsFailed, admit
from appliance.policy.engine.filters import fit_rules
from appliance.policy.text.language import Background
from appliance.policy.text.mistakes import PolicyError
from appliance.records import NodeID, UserID
from tests.policy.worlds import node, user

USERS = {UserID(1): user(1, "ann@example.com")}
NODES = {each.id: each for each in (node(1, user=UserID(1)), node(2, tags=("tag:a",)))}
GOOD = """{
  "tagOwners": {"tag:a": []},
  "grants": [
    {"src": ["*"], "dst": ["tag:a"], "ip": ["22"]},
    {"src": ["*"], "dst": ["tag:a"], "app": {"tailscale.com/cap/relay": [], "a.b/c": []}},
  ],
  "tests": [{"src": "ann@example.com", "accept": ["tag:a:22"]}],
}"""


def test_good_policy_is_admitted() -> None:
    admitted = admit(GOOD, USERS, NODES, Background())
    assert admitted.text == GOOD
    assert admitted.compiled.sight(NodeID(1)).shows(NodeID(2))


def test_policy_with_mistakes_is_refused() -> None:
    with pytest.raises(PolicyError) as caught:
        admit('{"acl": []}', USERS, NODES, Background())
    assert caught.value.kind is Kind.INVALID
    assert caught.value.code == "policy-invalid"


def test_policy_that_fails_its_own_tests_is_refused_but_not_at_the_start() -> None:
    text = GOOD.replace('"tag:a:22"]', '"tag:a:23"]')
    with pytest.raises(TestsFailed) as caught:
        admit(text, USERS, NODES, Background())
    assert caught.value.code == "policy-tests-failed"
    assert len(caught.value.failures) == 1
    assert admit(text, USERS, NODES, Background(), with_tests=False).compiled.state is not None


def test_old_clients_get_what_they_understand() -> None:
    rules = admit(GOOD, USERS, NODES, Background()).compiled.packet_filter(NodeID(2))
    assert fit_rules(rules, 130) is rules
    caps = [set(grant.cap_map) for rule in fit_rules(rules, 119) for grant in rule.cap_grant]
    assert caps == [{"a.b/c"}]
