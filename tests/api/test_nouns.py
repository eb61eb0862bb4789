"""The API's nouns: what the recorded cases leave open, and how it refuses."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Network
from typing import Any

import pytest

from appliance.api.routes import MAX_BODY_BYTES
from appliance.identity.principals import LOCAL
from appliance.live.policy import PolicySource
from tests.api.conftest import House
from tests.support.builder import define_tags


async def test_key_is_whole_once_and_masked_afterwards(house: House) -> None:
    user = await house.user("alice")
    status, answer = await house.call("POST", "/api/v1/preauthkey", {"user": str(user)})
    assert status == 200
    text = answer["preAuthKey"]["key"]
    assert len(text) == len("hskey-auth-") + 12 + 1 + 64
    _, listed = await house.call("GET", "/api/v1/preauthkey")
    assert listed["preAuthKeys"][0]["key"] == text[:23] + "-***"
    assert text[24:] not in str(listed)


async def test_key_without_expiration_lives_an_hour(house: House) -> None:
    user = await house.user("alice")
    for body in ({"user": str(user)}, {"user": str(user), "expiration": None, "aclTags": None}):
        _, answer = await house.call("POST", "/api/v1/preauthkey", body)
        assert answer["preAuthKey"]["expiration"] == "2030-01-01T13:00:00Z"


async def test_user_may_be_a_number_and_unknown_members_are_ignored(house: House) -> None:
    user = await house.user("alice")
    status, answer = await house.call(
        "POST", "/api/v1/preauthkey", {"user": int(user), "colour": "red"}
    )
    assert status == 200
    assert answer["preAuthKey"]["user"]["name"] == "alice"


async def test_refusal_serves_old_and_new_clients(house: House) -> None:
    status, answer = await house.call("DELETE", "/api/v1/user/77")
    assert status == 404
    assert answer["status"] == 404
    assert answer["detail"] == answer["message"] == answer["errors"][0]["message"]
    assert answer["code"] == 5
    assert answer["details"] == []
    assert answer["type"] == "urn:headwater:user-unknown"


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", "/api/v1/user", {"name": ""}, 400),
        ("POST", "/api/v1/user", {"name": 7}, 400),
        ("POST", "/api/v1/user", [1], 400),
        ("GET", "/api/v1/user?id=x", None, 400),
        ("GET", "/api/v1/user?tailnet=other", None, 404),
        ("POST", "/api/v1/preauthkey", {"user": "1", "expiration": "soon"}, 400),
        ("POST", "/api/v1/preauthkey", {"aclTags": ["nope"]}, 400),
        ("POST", "/api/v1/preauthkey", {"aclTags": "tag:a"}, 400),
        ("DELETE", "/api/v1/preauthkey", None, 400),
        ("POST", "/api/v1/node/1/approve_routes", {"routes": ["10.0.0.1/40"]}, 400),
        ("POST", "/api/v1/node/1/expire", {"expiry": "2031-01-01T00:00:00"}, 400),
        (
            "POST",
            "/api/v1/node/1/expire",
            {"expiry": "2031-01-01T00:00:00Z", "disableExpiry": True},
            400,
        ),
        ("POST", "/api/v1/node/1/rename/UPPER_case!", None, 400),
        ("POST", "/api/v1/node/1/tags", {"tags": ["web"]}, 400),
        ("POST", "/api/v1/node/backfillips", None, 400),
        ("GET", "/api/v1/nothing", None, 404),
        ("PUT", "/api/v1/user", None, 405),
        ("GET", "/api/v1/node/99999999999999999999999", None, 400),
    ],
)
async def test_wrong_request_is_refused(
    house: House, method: str, path: str, body: Any, status: int
) -> None:
    await house.node("alice", "laptop")
    answered, answer = await house.call(method, path, body)
    assert answered == status, answer
    assert answer["message"]


async def test_huge_and_broken_bodies_are_refused(house: House) -> None:
    for data, status in ((b"x" * (MAX_BODY_BYTES + 1), 413), (b"{", 400), (b"\xff", 400)):
        async with house.client.post("/api/v1/user", data=data) as response:
            assert response.status == status


async def test_node_expires_now_later_and_never(house: House) -> None:
    node = await house.node("alice", "laptop")
    path = f"/api/v1/node/{node.id}/expire"
    _, answer = await house.call("POST", path)
    assert answer["node"]["expiry"] == "2030-01-01T12:00:00Z"
    _, answer = await house.call("POST", path, {"expiry": "2031-06-01T00:00:00+02:00"})
    assert answer["node"]["expiry"] == "2031-05-31T22:00:00Z"
    _, answer = await house.call("POST", path, {"disableExpiry": True})
    assert answer["node"]["expiry"] is None


async def test_renamed_node_has_its_new_name(house: House) -> None:
    node = await house.node("alice", "laptop")
    await house.node("alice", "phone")
    status, answer = await house.call("POST", f"/api/v1/node/{node.id}/rename/desk")
    assert (status, answer["node"]["givenName"]) == (200, "desk")
    assert answer["node"]["name"] == "laptop"
    status, answer = await house.call("POST", f"/api/v1/node/{node.id}/rename/phone")
    assert (status, "phone" in answer["detail"]) == (400, True)


async def test_without_a_policy_no_tag_can_be_set(house: House) -> None:
    """X7: as Headscale, whose scripts take 200 for a tag that is there."""
    node = await house.node("alice", "server")
    status, answer = await house.call("POST", f"/api/v1/node/{node.id}/tags", {"tags": ["tag:b"]})
    assert (status, "no policy is in force" in answer["detail"]) == (400, True)
    assert house.live.snapshot.nodes[node.id].tags == ()


async def test_tagged_node_is_listed_under_the_pseudo_user(house: House) -> None:
    node = await house.node("alice", "server")
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        define_tags(edit, "tag:b")
    status, answer = await house.call("POST", f"/api/v1/node/{node.id}/tags", {"tags": ["tag:b"]})
    assert (status, answer["node"]["tags"], answer["node"]["user"]) == (200, ["tag:b"], None)
    _, listed = await house.call("GET", "/api/v1/node")
    assert listed["nodes"][0]["user"]["id"] == "2147455555"
    assert listed["nodes"][0]["user"]["name"] == "tagged-devices"
    _, listed = await house.call("GET", "/api/v1/node?user=alice")
    assert listed["nodes"] == []


async def test_approved_routes_are_shown_and_taken_back(house: House) -> None:
    node = await house.node("alice", "router")
    path = f"/api/v1/node/{node.id}/approve_routes"
    _, answer = await house.call("POST", path, {"routes": ["10.0.0.0/8", "0.0.0.0/0"]})
    assert set(answer["node"]["approvedRoutes"]) == {"10.0.0.0/8", "0.0.0.0/0", "::/0"}
    assert answer["node"]["subnetRoutes"] == []
    _, answer = await house.call("POST", path, {"routes": []})
    assert answer["node"]["approvedRoutes"] == []


async def test_user_with_nodes_stays(house: House) -> None:
    user = await house.user("alice")
    node = await house.node("alice", "laptop")
    status, answer = await house.call("DELETE", f"/api/v1/user/{user}")
    assert (status, "1 node" in answer["message"]) == (400, True)
    await house.call("DELETE", f"/api/v1/node/{node.id}")
    assert (await house.call("DELETE", f"/api/v1/user/{user}"))[0] == 200
    assert (await house.call("GET", "/api/v1/preauthkey"))[1] == {"preAuthKeys": []}


async def test_health_says_when_the_database_is_gone(house: House) -> None:
    assert await house.call("GET", "/health") == (200, {"status": "pass"})
    house.wells.append(False)
    assert await house.call("GET", "/health") == (500, {"status": "fail"})
    assert await house.call("GET", "/api/v1/health") == (
        500,
        {
            "databaseConnectivity": False,
            "databaseTrouble": "the database does not answer: it sleeps",
        },
    )


async def test_health_says_when_a_policy_was_refused(house: House) -> None:
    keeper = house.door.policies[house.live.id]
    await keeper.take_over(PolicySource("settings", text="{"))
    assert await house.call("GET", "/health") == (200, {"status": "warn"})
    status, answer = await house.call("GET", "/api/v1/health")
    assert (status, answer["databaseConnectivity"]) == (200, True)
    assert "line 1, column 2" in answer["policyTrouble"]["default"]
    await keeper.take_over(PolicySource("settings", text="{}"))
    assert await house.call("GET", "/health") == (200, {"status": "pass"})


async def test_health_gives_the_warnings_of_the_site(house: House) -> None:
    """B14: what config check warns of is still wrong while the server runs."""
    house.warnings.append("no relay: nodes that cannot reach one another directly are cut off")
    assert await house.call("GET", "/health") == (200, {"status": "pass"})
    _, answer = await house.call("GET", "/api/v1/health")
    assert answer == {"databaseConnectivity": True, "warnings": house.warnings}


async def test_node_that_asked_to_be_ephemeral_is_shown_as_that(house: House) -> None:
    """Real clients, 10: not only keys make nodes ephemeral."""
    await house.node("alice", "laptop")
    await house.node("alice", "fleeting", ephemeral=True)
    _, answer = await house.call("GET", "/api/v1/node")
    assert [node.get("ephemeral") for node in answer["nodes"]] == [None, True]


async def test_backfill_is_planned_before_it_is_done(house: House) -> None:
    """B11, F7: the plan changes nothing, and says what then is done."""
    await house.node("alice", "laptop")
    snapshot = house.live.snapshot
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        edit.set_settings(replace(snapshot.settings, prefix_v4=IPv4Network("100.99.0.0/24")))
    before = house.live.snapshot
    path = "/api/v1/node/backfillips"
    planned = await house.call("POST", f"{path}?plan=true")
    assert planned == (
        200,
        {"changes": ["laptop (1) lost 100.64.0.1", "laptop (1) got 100.99.0.1"]},
    )
    assert house.live.snapshot is before
    assert (await house.call("POST", path))[0] == 400
    assert await house.call("POST", f"{path}?confirmed=true") == planned
    [node] = house.live.snapshot.nodes.values()
    assert str(node.ipv4) == "100.99.0.1"
    assert await house.call("POST", f"{path}?plan=true") == (200, {"changes": []})


async def test_version_is_one_that_consoles_parse(house: House) -> None:
    _, answer = await house.call("GET", "/version")
    assert [int(part) for part in answer["version"].split(".")] >= [0, 28, 0]
    assert answer["headwater"]


async def test_metrics_are_plain_text(house: House) -> None:
    async with house.client.get("/metrics") as response:
        assert response.status == 200
        assert (await response.text()).startswith("headwater_build_info")
