"""Words for people whom nobody knows: which are noted, where, and what they may have been."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from typing import Any

import pytest

from appliance.policy.answers.notes import MAX_NOTES, notes
from appliance.policy.text.document import decode
from appliance.records import User, UserID

NOON = datetime(2030, 1, 1, tzinfo=UTC)
USERS = {
    UserID(1): User(UserID(1), "alice", NOON, email="Alice@example.com"),
    UserID(2): User(UserID(2), "bob", NOON),
}
EXAMPLE = frozenset({"example.com"})


def noted(text: str, users: Mapping[UserID, User] = USERS) -> list[str]:
    return [str(each) for each in notes(text, decode(text, domains=EXAMPLE), users)]


def test_a_misspelt_name_is_noted_where_it_stands() -> None:
    text = """{
  // alice@exmaple.com is in a comment too
  "groups": {"group:a": ["ALICE@example.com", "bob@"]},
  "acls": [
    {"action": "accept", "src": ["alice@exmaple.com", "group:a"], "dst": ["*:*"]},
    {"action": "accept", "src": ["alice@exmaple.com"], "dst": ["bob@:22"]},
  ],
}"""
    assert noted(text) == [
        'line 5, column 34: nobody is called "alice@exmaple.com" here: the word matches no user '
        'now; did you mean "alice@example.com"?'
    ]


@pytest.mark.parametrize(
    "section",
    [
        {"groups": {"group:a": ["Zoe@x.org"]}},
        {"acls": [{"action": "accept", "src": ["zoe@x.org"], "dst": ["*:*"]}]},
        {"acls": [{"action": "accept", "src": ["*"], "dst": ["zoe@x.org:22,80"]}]},
        {"acls": [{"action": "accept", "src": ["*"], "dst": ["user:zoe@x.org:*"]}]},
        {"grants": [{"src": ["zoe@x.org"], "dst": ["*"], "ip": ["*"]}]},
        {"grants": [{"src": ["*"], "dst": ["user:zoe@x.org"], "ip": ["*"]}]},
        {"tagOwners": {"tag:a": ["zoe@x.org"]}},
        {"autoApprovers": {"routes": {"10.0.0.0/8": ["zoe@x.org"]}}},
        {"autoApprovers": {"exitNode": ["zoe@x.org"]}},
        {"tests": [{"src": "zoe@x.org", "deny": ["10.0.0.1:1"]}]},
        {"tests": [{"src": "10.0.0.1", "deny": ["user:zoe@x.org:1"]}]},
        {"sshTests": [{"src": "zoe@x.org", "dst": ["10.0.0.1"], "deny": ["root"]}]},
        {"sshTests": [{"src": "bob@", "dst": ["zoe@x.org"], "deny": ["root"]}]},
        {"nodeAttrs": [{"target": ["zoe@x.org"], "attr": ["funnel"]}]},
        {
            "ssh": [
                {
                    "src": ["zoe@x.org"],
                    "dst": ["autogroup:self"],
                    "action": "accept",
                    "users": ["a"],
                }
            ]
        },
    ],
)
def test_every_section_that_names_people_is_looked_at(section: Any) -> None:
    text = json.dumps(section)
    column = text.rindex('"', 0, text.lower().index("zoe@")) + 1
    assert noted(text) == [
        f'line 1, column {column}: nobody is called "zoe@x.org" here: the word matches no user now'
    ]


@pytest.mark.parametrize(
    "section",
    [
        {},
        {"groups": {"group:a": ["alice@example.com", "alice@", "BOB@"]}},
        {"acls": [{"action": "accept", "src": ["user:*@example.com"], "dst": ["alice@:*"]}]},
        {"acls": [{"action": "accept", "src": ["autogroup:member", "10.0.0.1"], "dst": ["*:*"]}]},
        {
            "grants": [
                {"src": ["*"], "dst": ["*"], "app": {"example.com/cap": [{"for": ["zoe@x.org"]}]}}
            ]
        },
    ],
)
def test_words_that_match_somebody_or_are_for_nobody_are_not_noted(section: Any) -> None:
    assert noted(json.dumps(section)) == []


def test_many_are_counted() -> None:
    people = [f"u{number}@x.org" for number in range(MAX_NOTES + 5)]
    lines = noted(json.dumps({"groups": {"group:a": people}}), {})
    assert len(lines) == MAX_NOTES + 1
    assert lines[-1].endswith("5 more words match no user now")
    assert len(noted(json.dumps({"groups": {"group:a": people[:MAX_NOTES]}}), {})) == MAX_NOTES


def test_parts_without_effect_are_noted_where_they_stand() -> None:
    """F8: documents of the hosted service are read whole; what has no effect here is said."""
    text = """{
  "DERPMap": {"Regions": {"900": {"RegionID": 900}}},
  "attrConfig": {"custom:tier": {"type": "string"}},
  "tagOwners": {"tag:k8s": []},
  "autoApprovers": {
    "Services": {"svc:web": ["tag:k8s", "zoe@x.org"], "tag:k8s": ["tag:k8s"]},
  },
}"""
    lines = noted(text)
    assert [line.partition(" is kept")[0] for line in lines[:-1]] == [
        "line 2, column 3: derpMap",
        "line 3, column 3: attrConfig",
        "line 6, column 5: autoApprovers.services",
    ]
    assert all("no effect here" in line for line in lines[:-1])
    assert lines[-1].startswith('line 6, column 41: nobody is called "zoe@x.org"')
    assert noted('{"derpMap": null, "autoApprovers": {"exitNode": []}}') == []


def test_services_approved_by_nobody_else_approve_no_route() -> None:
    policy = decode('{"autoApprovers": {"services": {"svc:web": ["bob@"]}}}')
    assert (policy.approvers.routes, policy.approvers.exit_node) == ((), ())
    assert [service.name for service, _ in policy.approvers.services] == ["svc:web"]
