"""Claims that a policy makes of itself: what they may name, and what is made up for them."""

from __future__ import annotations

import json
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.policy.answers import selftest
from appliance.policy.engine import reach
from appliance.policy.text.language import Background
from appliance.records import UserID
from tests.bench.policy import policy_text, tailnet
from tests.policy.worlds import (
    GROUPS,
    LOGINS,
    TAGS,
    node,
    random_document,
    random_world,
    read,
    user,
)

USERS = {UserID(1): user(1, "ann@example.com"), UserID(2): user(2, "bob@example.com")}
NODES = {each.id: each for each in (node(1, user=UserID(1)), node(3, tags=("tag:a",)))}
ACLS = [
    {"action": "accept", "src": ["*"], "dst": ["tag:a:22", "net:80"]},
    {"action": "accept", "src": ["bob@example.com"], "dst": ["tag:new:443"], "proto": "tcp"},
    {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:8080"]},
]


def failures(**claim: Any) -> list[str]:
    document = {
        "tagOwners": {"tag:a": [], "tag:new": []},
        "hosts": {"net": "10.0.0.0/8", "one": "10.0.0.1"},
        "acls": ACLS,
        "tests": [claim],
    }
    found = selftest.run(read(document), USERS, NODES, Background())
    return [each.text for each in found]


def test_claims_that_hold() -> None:
    assert failures(src="ann@example.com", accept=["tag:a:22", "one:80", "10.9.9.9:80"]) == []
    assert failures(src="ann@example.com", deny=["tag:a:23", "tag:new:443"]) == []
    assert failures(src="100.64.0.1", accept=["tag:a:22"]) == []
    assert failures(src="ann@example.com", accept=["autogroup:self:8080"]) == []


def test_users_and_tags_without_devices_are_made_up() -> None:
    assert failures(src="bob@example.com", accept=["tag:new:443", "tag:a:22"]) == []
    assert failures(src="tag:new", accept=["tag:a:22"], deny=["tag:new:443"]) == []


def test_users_who_have_not_logged_in_yet_are_made_up() -> None:
    """F11: a policy is written before its people come; ``notes`` says who is not there."""
    acls = [
        {"action": "accept", "src": ["later@example.com"], "dst": ["tag:a:443"]},
        {"action": "accept", "src": ["group:new"], "dst": ["zoe@:8080", "autogroup:self:22"]},
    ]
    claims: list[dict[str, Any]] = [
        {"src": "later@example.com", "accept": ["tag:a:443"], "deny": ["tag:a:22", "zoe@:8080"]},
        {"src": "Zoe@", "accept": ["zoe@:8080", "autogroup:self:22"], "deny": ["tag:a:443"]},
        {"src": "user:new@example.com", "accept": ["zoe@:8080"]},
        {"src": "tag:a", "deny": ["later@example.com:1", "zoe@:8080"]},
    ]
    document = {
        "groups": {"group:new": ["zoe@", "new@example.com"]},
        "tagOwners": {"tag:a": []},
        "acls": acls,
        "tests": claims,
        "ssh": [
            {
                "action": "accept",
                "src": ["later@example.com"],
                "dst": ["tag:a"],
                "users": ["root"],
            }
        ],
        "sshTests": [
            {"src": "later@example.com", "dst": ["tag:a"], "accept": ["root"], "deny": ["x"]},
            {"src": "zoe@", "dst": ["tag:a"], "deny": ["root"]},
        ],
    }
    for users, nodes in (({}, {}), (USERS, NODES)):
        assert selftest.run(read(document), users, nodes, Background()) == ()


def test_made_up_users_are_bounded() -> None:
    count = selftest.MAX_MADE_UP_USERS + 1
    claims = [{"src": f"u{n:05}@example.com", "deny": ["tag:a:1"]} for n in range(count)]
    document = {"tagOwners": {"tag:a": []}, "acls": [], "tests": claims}
    found = selftest.run(read(document), {}, {}, Background())
    assert [each.text for each in found] == [
        f'source "u{count - 1:05}@example.com" has no addresses'
    ]


@pytest.mark.parametrize(
    ("claim", "part"),
    [
        ({"src": "ann@example.com", "accept": ["tag:a:23"]}, "expected ALLOWED, got DENIED"),
        ({"src": "ann@example.com", "deny": ["tag:a:22"]}, "expected DENIED, got ALLOWED"),
        ({"src": "nobody@example.com", "accept": ["tag:new:443"]}, "expected ALLOWED, got DENIED"),
        ({"src": "bob@example.com", "accept": ["nobody@example.com:1"]}, "expected ALLOWED"),
        ({"src": "nobody@", "deny": ["tag:a:22"]}, "expected DENIED, got ALLOWED"),
        ({"src": "tag:b", "deny": ["tag:a:1"]}, "means nothing"),
        ({"src": "", "deny": ["tag:a:1"]}, "means nothing"),
        ({"src": "ann@example.com"}, "nothing is tested"),
        ({"src": "ann@example.com", "deny": ["net:1"]}, "one host"),
        ({"src": "ann@example.com", "deny": ["10.0.0.1/32:1"]}, "not for a prefix"),
        ({"src": "ann@example.com", "deny": ["tag:a:*"]}, "one port"),
        ({"src": "ann@example.com", "deny": ["tag:a:1-2"]}, "one port"),
        ({"src": "ann@example.com", "deny": ["tag:a"]}, 'port range "a": invalid first integer'),
        ({"src": "ann@example.com", "deny": ["*:1"]}, "no host that can be tested"),
        ({"src": "ann@example.com", "deny": ["autogroup:internet:1"]}, "no host that can be"),
        ({"src": "ann@example.com", "deny": ["tag:a:1"], "proto": "icmp"}, "has no ports"),
        ({"src": "ann@example.com", "deny": ["tag:a:1"], "proto": "x"}, "not known"),
    ],
)
def test_claims_that_fail(claim: dict[str, Any], part: str) -> None:
    found = failures(**claim)
    assert len(found) == 1
    assert part in found[0]


def test_description_begins_as_the_hosted_service_says_it() -> None:
    text = selftest.describe(selftest.run(read({"tests": [{"src": "x"}]}), {}, {}, Background()))
    assert text.startswith("test(s) failed\ntests[0] (line 1): ")


def test_what_one_claim_says_of_its_source_is_not_said_in_the_next() -> None:
    document = {
        "tagOwners": {"tag:a": []},
        "postures": {"posture:high": ["custom:level > 2"]},
        "acls": [
            {"action": "accept", "src": ["*"], "dst": ["tag:a:22"], "srcPosture": ["posture:high"]}
        ],
        "tests": [
            {
                "src": "ann@example.com",
                "srcPostureAttrs": {"custom:level": 3},
                "accept": ["tag:a:22"],
            },
            {"src": "ann@example.com", "deny": ["tag:a:22"]},
        ],
    }
    assert selftest.run(read(document), USERS, NODES, Background()) == ()


def test_tests_that_ask_for_too_much_fail_with_a_reason(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(selftest, "MAX_WORK", 3)
    claim = {"src": "autogroup:member", "accept": ["autogroup:tagged:22"]}
    assert "the tests ask for too much" in failures(**claim)[0]


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 48))
def test_claims_are_answered_as_pair_by_pair(seed: int) -> None:
    """The bench looks at groups of ends; here every address is asked about every other one."""
    rng = Random(seed)
    world = random_world(rng, rng.randint(0, 8))
    words = (*TAGS, *GROUPS, *LOGINS, "autogroup:member", "autogroup:tagged", "100.64.0.2")
    document = random_document(rng)
    document["tests"] = [
        {
            "src": rng.choice(words),
            rng.choice(("accept", "deny")): [
                f"{rng.choice((*words, 'autogroup:self'))}:{rng.choice((22, 80, 443, 7))}"
            ],
        }
        for _ in range(6)
    ]
    policy = read(document)
    bench = selftest._Bench(policy, world.users, world.nodes, world.background, None)
    for claim in policy.tests:
        (word,) = claim.accept or claim.deny
        sources, problem = bench._sources(claim.src)
        ends, port, other_problem = bench._destinations(word, sources)
        failures = list(bench.run_test(claim))
        if problem or other_problem:
            assert len(failures) == 1
            continue
        answers = {
            any(each.miss is None for each in reach.verdicts(bench._state, src, dst, port))
            for src in sources
            for dst in ends
            if src.address.version == dst.address.version
        }
        holds = answers == {True} if claim.accept else True not in answers
        assert bool(failures) is not holds, (claim, answers)


def test_many_claims_about_a_large_tailnet_are_tested() -> None:
    """A bound on work must not meet those who have many devices and test their policy well."""
    rng = Random(1)
    users, nodes = tailnet(2000, rng)
    document = json.loads(policy_text(len(users), rng))
    words = [*document["groups"], *(f"tag:t{n}" for n in range(30)), "autogroup:member"]
    document["tests"] = [
        {"src": rng.choice(words), "deny": [f"{rng.choice(words)}:9999"]} for _ in range(300)
    ]
    document["sshTests"] = [
        {"src": rng.choice(words), "dst": [f"tag:t{n % 30}"], "deny": ["nobody"]}
        for n in range(100)
    ]
    found = selftest.run(read(document), users, nodes, Background())
    assert not any("ask for too much" in each.text for each in found)


def test_addresses_of_different_families_are_no_pair() -> None:
    """The device has both, the rule and the destination only one: nothing is missing."""
    document = {
        "tagOwners": {"tag:a": []},
        "acls": [{"action": "accept", "src": ["100.64.0.0/10"], "dst": ["10.0.0.1:80"]}],
        "tests": [{"src": "tag:a", "accept": ["10.0.0.1:80"], "deny": ["[fd00::1]:80"]}],
    }
    assert selftest.run(read(document), USERS, NODES, Background()) == ()
