"""Texts made to be expensive: refused with a place, or read and compiled in little time."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from random import Random
from typing import Any

import pytest

from appliance.errors import Invalid
from appliance.policy.answers.admission import admit
from appliance.policy.engine import limits
from appliance.policy.engine.routes import RouteTable, elect
from appliance.policy.text.document import MAX_TEXT_CHARS, decode
from appliance.policy.text.language import Background
from appliance.policy.text.mistakes import PolicyError
from tests.bench.policy import tailnet
from tests.policy.worlds import node, read
from tests.support.pace import patience

NODES = 300
LIMIT_S = 4.0
"""CPU time, with room for a slow machine: the worst of these take 0.8 s on a quiet one."""
BACKGROUND = Background(domains=frozenset({"example.com"}))


def accept(src: list[str], dst: list[str]) -> dict[str, Any]:
    return {"action": "accept", "src": src, "dst": dst}


def ranges(count: int) -> list[str]:
    return [f"100.64.0.0-100.65.{n >> 8}.{n & 255}" for n in range(count)]


EXPENSIVE: dict[str, Callable[[], dict[str, Any]]] = {
    "one rule for each port, from lists that overlap": lambda: {
        "acls": [
            accept(["autogroup:member", f"u{n % 75}@example.com"], [f"autogroup:member:{n + 1}"])
            for n in range(8000)
        ]
    },
    "long sources and long destinations": lambda: {
        "acls": [
            accept(
                [f"10.{n >> 8}.{n & 255}.0/24" for n in range(18_000)],
                [f"11.{n >> 8}.{n & 255}.0/24:22" for n in range(18_000)],
            )
        ]
    },
    "ranges around all nodes": lambda: {
        "acls": [accept(["*"], [f"{r}:*" for r in ranges(20_000)])]
    },
    "many sources with one word of their own": lambda: {
        "grants": [
            {
                "src": ["autogroup:member", f"1.1.{n >> 8}.{n & 255}"],
                "dst": ["autogroup:member"],
                "app": {"a.b/c": []},
            }
            for n in range(8000)
        ]
    },
    "routers by tag for every address": lambda: {
        "tagOwners": {f"tag:t{n}": [] for n in range(30)},
        "grants": [
            {
                "src": ["*"],
                "dst": [f"10.{n % 20}.{n >> 8}.{n & 255}"],
                "ip": ["*"],
                "via": [f"tag:t{n % 30}"],
            }
            for n in range(8000)
        ],
    },
    "own devices by port": lambda: {
        "acls": [accept(["autogroup:member"], [f"autogroup:self:{n + 1}"]) for n in range(8000)]
    },
    "claims about everyone": lambda: {
        "acls": [accept([f"u{n}@example.com"], [f"u{n}@example.com:22"]) for n in range(75)],
        "tests": [{"src": "autogroup:member", "deny": ["autogroup:member:23"]}] * 15_000,
    },
    "logins of everyone": lambda: {
        "ssh": [
            {
                "action": "accept",
                "src": ["autogroup:member"],
                "dst": ["autogroup:tagged"],
                "users": [f"x{n}"],
            }
            for n in range(100)
        ],
        "sshTests": [{"src": "autogroup:member", "dst": ["autogroup:tagged"], "deny": ["x"]}]
        * 9000,
    },
    "a rule for every port, and claims about as many": lambda: {
        "acls": [accept(["*"], [f"*:{n + 1}"]) for n in range(8000)],
        "tests": [
            {"src": "autogroup:member", "deny": [f"10.0.0.1:{20_000 + n}"]} for n in range(9000)
        ],
    },
    "claims about postures": lambda: {
        "postures": {f"posture:p{n}": [f"custom:a{n} == 'x'"] for n in range(50)},
        "acls": [
            {**accept(["autogroup:member"], [f"*:{n + 1}"]), "srcPosture": [f"posture:p{n % 50}"]}
            for n in range(1000)
        ],
        "tests": [
            {
                "src": "autogroup:member",
                "srcPostureAttrs": {"custom:a1": str(n)},
                "deny": [f"10.0.0.1:{20_000 + n}"],
            }
            for n in range(8000)
        ],
    },
    "prefixes with a posture each": lambda: {
        "postures": {f"posture:p{n}": ["node:os == 'linux'"] * 2 for n in range(500)},
        "acls": [
            {
                **accept([f"100.64.0.0/{10 + n % 20}"], ["*:*"]),
                "srcPosture": [f"posture:p{n % 500}"],
            }
            for n in range(1000)
        ],
    },
    "claims about the logins of many groups": lambda: {
        "tagOwners": {f"tag:t{n}": [] for n in range(30)},
        "groups": {
            f"group:g{n}": [f"u{(n * 7 + k) % 75}@example.com" for k in range(40)]
            for n in range(300)
        },
        "ssh": [
            {
                "action": "accept",
                "src": [f"group:g{n}"],
                "dst": [f"tag:t{n % 30}"],
                "users": ["a"],
            }
            for n in range(300)
        ],
        "sshTests": [
            {
                "src": f"group:g{n % 300}",
                "dst": [f"tag:t{(n * k) % 30}" for k in range(1, 6)],
                "deny": ["x"],
            }
            for n in range(6000)
        ],
    },
    "logins cut by user": lambda: {
        "ssh": [
            {
                "action": "check",
                "src": ["autogroup:member"],
                "dst": ["autogroup:member"],
                "users": ["localpart:*@example.com", f"x{n}"],
            }
            for n in range(1000)
        ],
        "sshTests": [{"src": "u1@example.com", "dst": ["autogroup:member"], "deny": ["x"]}],
    },
    "IPv6 prefixes": lambda: {
        "acls": [
            accept(
                [f"fd00:{n:x}::{n:x}/120" for n in range(18_000)],
                [f"fd01:{n:x}::/64:22" for n in range(18_000)],
            )
        ]
    },
    "ipsets of ipsets": lambda: {
        "ipsets": {
            "ipset:a": [f"add 10.{n >> 8}.{n & 255}.0/25" for n in range(2000)],
            **{
                f"ipset:b{k}": ["ipset:a", *(f"ipset:b{j}" for j in range(max(0, k - 14), k))]
                for k in range(95)
            },
        }
    },
}


@pytest.mark.parametrize("name", EXPENSIVE)
def test_expensive_texts_are_bounded(name: str) -> None:
    text = json.dumps(EXPENSIVE[name](), separators=(",", ":"))
    assert len(text) <= MAX_TEXT_CHARS
    users, nodes = tailnet(NODES, Random(1))
    started = time.process_time()
    try:
        compiled = admit(text, users, nodes, BACKGROUND).compiled
    except Invalid as error:
        said = error.sentence
    else:
        said = ""
        assert compiled.state is not None
        some = list(nodes)[:3]
        table = RouteTable(compiled.state, elect(compiled.state, lambda _: True))
        assert all(compiled.sight(each) is not None for each in some)
        assert all(table.seen(each) is not None for each in some)
        for each in some:
            compiled.packet_filter(each)
    assert time.process_time() - started < patience(LIMIT_S)
    assert len(said) < 30_000


@pytest.mark.parametrize(
    ("document", "part"),
    [
        (
            {"acls": [accept(["*"], [f"*:{n + 1}" for n in range(limits.MAX_RULES + 1)])]},
            "more than 8192 rules",
        ),
        (
            {
                "grants": [
                    {"src": ["*"], "dst": ranges(600), "ip": [f"tcp:{n + 1}" for n in range(600)]}
                ]
            },
            "more than 250000 addresses and ports",
        ),
        (
            {"ssh": [{"action": "accept", "src": [], "dst": [], "users": ["x"]}] * 1001},
            "more than 1000 entries in ssh",
        ),
        ({"nodeAttrs": [{"target": ["*"]}] * 1001}, "more than 1000 entries in nodeAttrs"),
        ({"tagOwners": {f"tag:t{n}": [] for n in range(10_001)}}, "more than 10000 tags"),
        (
            {"postures": {f"posture:p{n}": ["node:os == 'linux'"] for n in range(501)}},
            "more than 500 postures or",
        ),
        (
            {"postures": {"posture:p": ["node:os == 'linux'"] * 1001}},
            "or 1000 conditions in all",
        ),
    ],
)
def test_products_are_refused_with_their_place(document: dict[str, Any], part: str) -> None:
    with pytest.raises(PolicyError) as caught:
        decode(json.dumps(document))
    assert part in caught.value.sentence
    assert caught.value.mistakes[0].spot.column > 1


def test_a_rule_list_that_no_node_could_be_told_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(limits, "MAX_TOLD", 3)
    monkeypatch.setattr("appliance.policy.answers.admission.MAX_TOLD", 3)
    document = {"tagOwners": {"tag:a": []}, "acls": [accept(["tag:a"], ["tag:a:22"])]}
    one = {each.id: each for each in [node(1, tags=("tag:a",))]}
    two = {**one, **{each.id: each for each in [node(2, tags=("tag:a",))]}}
    assert admit(json.dumps(document), {}, one, BACKGROUND).policy.acls
    with pytest.raises(Invalid, match="list 4 source addresses"):
        admit(json.dumps(document), {}, two, BACKGROUND)
    # In force already: the tailnet may have grown since.
    assert admit(json.dumps(document), {}, two, BACKGROUND, with_tests=False).policy.acls


def test_ssh_rules_that_no_node_could_be_told_are_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.policy.engine.limits.MAX_LOGINS_TOLD", 11)
    monkeypatch.setattr("appliance.policy.answers.admission.MAX_LOGINS_TOLD", 11)
    rule = {"action": "accept", "src": ["tag:a"], "dst": ["tag:b"], "users": ["root"]}
    own = {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self"]}
    tags: dict[str, list[str]] = {"tag:a": [], "tag:b": []}
    nodes = {each.id: each for each in (node(1, tags=("tag:a",)), node(2, tags=("tag:b",)))}
    once = json.dumps({"tagOwners": tags, "ssh": [rule]})
    twice = json.dumps({"tagOwners": tags, "ssh": [rule, rule]})
    assert admit(once, {}, nodes, BACKGROUND).policy.ssh
    with pytest.raises(Invalid, match="SSH rules of one node would come to 12 source addresses"):
        admit(twice, {}, nodes, BACKGROUND)
    assert admit(twice, {}, nodes, BACKGROUND, with_tests=False).policy.ssh
    # Rules that meet at no node do not add up.
    apart = {**rule, "src": ["tag:b"], "dst": ["tag:a"]}
    text = json.dumps({"tagOwners": tags, "ssh": [rule, apart, {**own, "users": ["root"]}]})
    assert admit(text, {}, nodes, BACKGROUND).policy.ssh


def test_long_words_are_cut_in_mistakes() -> None:
    with pytest.raises(PolicyError) as caught:
        read({"acls": [accept(["x" * 100_000], ["*:*"])]})
    assert len(caught.value.sentence) < 1200
