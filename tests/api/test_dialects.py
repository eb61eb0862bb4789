"""What clients of Headscale 0.27 to 0.30 send is understood, whichever of them sends it."""

from __future__ import annotations

from typing import Any

import pytest

from tests.api.conftest import House

NEVER = {"expiry": None}
AT_NEW_YEAR = {"expiry": "2031-01-01T00:00:00Z"}
NOW = {"expiry": "2030-01-01T12:00:00Z"}


@pytest.mark.parametrize(
    ("query", "body", "shown"),
    [
        ("?disableExpiry=true", None, NEVER),
        ("?disable_expiry=true", None, NEVER),
        ("?disableExpiry=1", None, NEVER),
        ("?disableExpiry=True", {}, NEVER),
        ("?disableExpiry=true", {"disableExpiry": True}, NEVER),
        ("", {"disableExpiry": True}, NEVER),
        ("", {"disable_expiry": True}, NEVER),
        ("", {"disableExpiry": "true"}, NEVER),
        ("?disableExpiry=true", {"expiry": None}, NEVER),
        ("?expiry=2031-01-01T00:00:00Z", None, AT_NEW_YEAR),
        ("?expiry=2031-01-01T00%3A00%3A00.000Z&disableExpiry=false", None, AT_NEW_YEAR),
        ("", {"expiry": "2031-01-01T00:00:00Z", "disable_expiry": False}, AT_NEW_YEAR),
        ("", None, NOW),
        ("?colour=red", {"colour": "red"}, NOW),
    ],
)
async def test_expiry_is_read_from_query_and_body(
    house: House, query: str, body: Any, shown: dict[str, str | None]
) -> None:
    """X1: in releases up to 0.29 the members are in the query, from 0.30 on in the body."""
    node = await house.node("alice", "laptop")
    status, answer = await house.call("POST", f"/api/v1/node/{node.id}/expire{query}", body)
    assert status == 200, answer
    assert {"expiry": answer["node"]["expiry"]} == shown


@pytest.mark.parametrize(
    ("query", "body", "said"),
    [
        ("?disableExpiry=true&expiry=2031-01-01T00:00:00Z", None, "not both"),
        ("?disableExpiry=true", {"expiry": "2031-01-01T00:00:00Z"}, "not both"),
        ("?disableExpiry=true", {"disableExpiry": False}, "given twice"),
        ("", {"disableExpiry": False, "disable_expiry": True}, "given twice"),
        ("?disableExpiry=maybe", None, "disableExpiry cannot be read"),
        ("?disableExpiry=", None, "disableExpiry"),
        ("?expiry=", None, "expiry is empty"),
        ("", {"expiry": ""}, "expiry is empty"),
        ("?expiry=soon", None, "expiry 'soon'"),
        ("", {"disableExpiry": [True]}, "disableExpiry cannot be read: expected true or false"),
        ("", "disableExpiry", "a JSON object"),
    ],
)
async def test_expiry_that_is_not_understood_changes_nothing(
    house: House, query: str, body: Any, said: str
) -> None:
    """X1: a node must not run out because the server misunderstood."""
    node = await house.node("alice", "laptop")
    status, answer = await house.call("POST", f"/api/v1/node/{node.id}/expire{query}", body)
    assert (status, said in answer["message"]) == (400, True), answer
    assert house.live.snapshot.nodes[node.id].expires_at == node.expires_at


@pytest.mark.parametrize(
    ("method", "path", "body", "noun", "shown"),
    [
        (
            "POST",
            "/api/v1/user",
            {"name": "bob", "display_name": "Bob", "picture_url": "https://x.example/b.png"},
            "user",
            {"displayName": "Bob", "profilePicUrl": "https://x.example/b.png"},
        ),
        (
            "POST",
            "/api/v1/preauthkey",
            {"user": "1", "acl_tags": ["tag:srv"], "reusable": "true"},
            "preAuthKey",
            {"aclTags": ["tag:srv"], "reusable": True, "ephemeral": False},
        ),
    ],
)
async def test_members_in_snake_case_count(
    house: House, method: str, path: str, body: Any, noun: str, shown: dict[str, Any]
) -> None:
    """X5: releases up to 0.29 read both spellings; a key without its tags is another key."""
    await house.user("alice")
    status, answer = await house.call(method, path, body)
    assert status == 200, answer
    assert {name: answer[noun][name] for name in shown} == shown
