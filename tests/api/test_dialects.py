"""What clients of Headscale 0.27 to 0.30 send is understood, whichever of them sends it."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from appliance.api import app
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


async def test_nodes_of_a_user_who_is_not_there_are_refused(house: House) -> None:
    """X6: a typo in a script's loop must not look like "no nodes"."""
    await house.node("alice", "laptop")
    await house.node("alice", "server", tags=("tag:srv",))
    status, answer = await house.call("GET", "/api/v1/node?user=nobody")
    assert (status, answer["message"]) == (404, "there is no user named 'nobody'")
    status, answer = await house.call("GET", "/api/v1/preauthkey?user=99")
    assert (status, "no user" in answer["message"]) == (404, True)
    _, answer = await house.call("GET", "/api/v1/node?user=alice")
    assert [node["name"] for node in answer["nodes"]] == ["laptop"]
    _, answer = await house.call("GET", "/api/v1/node?user=tagged-devices")
    assert [node["name"] for node in answer["nodes"]] == ["server"]


async def test_keys_are_named_as_clients_up_to_0_27_do(house: House) -> None:
    """B12: {user, key} instead of {id}; ?user= chooses whose keys are listed."""
    alice, bob = await house.user("alice"), await house.user("bob")
    _, made = await house.call("POST", "/api/v1/preauthkey", {"user": str(alice)})
    text = made["preAuthKey"]["key"]
    _, listed = await house.call("GET", f"/api/v1/preauthkey?user={bob}")
    assert listed == {"preAuthKeys": []}
    _, listed = await house.call("GET", f"/api/v1/preauthkey?user={alice}")
    masked = listed["preAuthKeys"][0]["key"]
    path = "/api/v1/preauthkey/expire"
    for body in ({"user": str(bob), "key": text}, {"key": text[:-1] + "!"}, {"user": "1"}, {}):
        status, _ = await house.call("POST", path, body)
        assert status in (400, 404), body
    status, _ = await house.call("POST", path, {"id": "77", "key": text})
    assert status == 400
    [key] = house.live.snapshot.auth_keys.values()
    house.clock.advance(60)
    for body in ({"user": str(alice), "key": text}, {"user": int(alice), "key": masked}):
        assert await house.call("POST", path, body) == (200, {})
    [key] = house.live.snapshot.auth_keys.values()
    assert key.expires_at == house.clock()


async def test_node_is_moved_as_clients_up_to_0_27_do(house: House) -> None:
    """B12, F11: POST …/user, by id or by name; a tagged node becomes the user's."""
    node = await house.node("alice", "server", tags=("tag:srv",))
    bob = await house.user("bob")
    path = f"/api/v1/node/{node.id}/user"
    for strange in ("nobody", "77", ""):
        status, answer = await house.call("POST", path, {"user": strange})
        assert status in (400, 404), answer
    for user in (str(bob), int(bob), "bob"):
        status, answer = await house.call("POST", path, {"user": user})
        assert (status, answer["node"]["user"]["name"], answer["node"]["tags"]) == (200, "bob", [])


async def test_routes_are_masked_as_the_peer_does(house: House) -> None:
    """B12: approve_routes takes 10.1.0.1/16 for 10.1.0.0/16."""
    node = await house.node("alice", "router")
    path = f"/api/v1/node/{node.id}/approve_routes"
    status, answer = await house.call("POST", path, {"routes": ["10.1.0.1/16"]})
    assert (status, answer["node"]["approvedRoutes"]) == (200, ["10.1.0.0/16"])


@pytest.mark.parametrize("noun", ["node", "user"])
async def test_empty_name_is_refused_as_a_name(house: House, noun: str) -> None:
    """F11: renaming to nothing says what is wrong with the name, not that the page is missing."""
    await house.node("alice", "laptop")
    status, answer = await house.call("POST", f"/api/v1/{noun}/1/rename/")
    assert (status, "''" in answer["message"]) == (400, True), answer


@pytest.mark.parametrize("release", ["0.27", "0.28", "0.29", "0.30"])
async def test_answers_are_of_the_release_that_version_names(house: House, release: str) -> None:
    """B12: consoles choose by /version; up to 0.27 they look for tags by who gave them."""
    await house.node("alice", "server", tags=("tag:srv",))
    site = app.build(replace(house.door, release=release))
    async with TestClient(TestServer(site)) as client:
        async with client.get("/version") as response:
            assert (await response.json())["version"] == f"{release}.0"
        for path in ("/api/v1/node", "/api/v1/node/1"):
            async with client.get(path) as response:
                answer = await response.json()
            node = answer["node"] if "node" in answer else answer["nodes"][0]
            assert node["tags"] == ["tag:srv"]
            old = {
                name: node[name]
                for name in ("forcedTags", "validTags", "invalidTags")
                if name in node
            }
            wanted = {"forcedTags": ["tag:srv"], "validTags": [], "invalidTags": []}
            assert old == (wanted if release == "0.27" else {})
