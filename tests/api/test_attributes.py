"""Posture attributes over the API, in the hosted service's shape."""

from __future__ import annotations

import logging
from dataclasses import replace
from datetime import timedelta
from typing import Any

import pytest

from appliance.identity.principals import LOCAL
from appliance.wire import tailcfg
from tests.api.conftest import House

CHANGE = "/api/v1/device-attributes"
LATER = "2030-01-01T14:00:00Z"


async def attributes_of(house: House, node_id: int) -> Any:
    status, answer = await house.call("GET", f"/api/v1/node/{node_id}/attributes")
    assert status == 200
    return answer


async def test_attributes_are_set_shown_and_removed(house: House) -> None:
    node = await house.node("alice", "laptop")
    path = f"/api/v1/node/{node.id}/attributes"
    assert await attributes_of(house, node.id) == {"attributes": {}, "expiries": {}}
    status, answer = await house.call("POST", f"{path}/custom:level", {"value": 4})
    assert (status, answer) == (200, {"attributes": {"custom:level": 4}, "expiries": {}})
    body = {"value": True, "expiry": "2030-01-01T15:00:00+01:00", "comment": "on call"}
    status, answer = await house.call("POST", f"{path}/custom:oncall", body)
    assert (status, answer["expiries"]) == (200, {"custom:oncall": LATER})
    await house.call("POST", f"{path}/ip:country", {"value": "DE", "expiry": None})
    known = {"custom:level": 4, "custom:oncall": True, "ip:country": "DE"}
    assert await attributes_of(house, node.id) == {
        "attributes": known,
        "expiries": {"custom:oncall": LATER},
    }
    assert await house.call("DELETE", f"{path}/custom:oncall") == (200, {})
    assert await attributes_of(house, node.id) == {
        "attributes": {"custom:level": 4, "ip:country": "DE"},
        "expiries": {},
    }


async def test_what_the_node_reports_is_shown_with_what_it_was_given(house: House) -> None:
    node = await house.node("alice", "laptop")
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        hostinfo = tailcfg.Hostinfo(os="macOS", os_version="15.1", ipn_version="1.80.2-t1")
        edit.put(replace(edit.nodes[node.id], hostinfo=hostinfo))
    await house.call("POST", f"/api/v1/node/{node.id}/attributes/custom:level", {"value": 2.5})
    assert (await attributes_of(house, node.id))["attributes"] == {
        "custom:level": 2.5,
        "node:os": "macos",
        "node:osVersion": "15.1",
        "node:tsAutoUpdate": False,
        "node:tsReleaseTrack": "stable",
        "node:tsVersion": "1.80.2",
    }


async def test_values_keep_their_types(house: House) -> None:
    node = await house.node("alice", "laptop")
    path = f"/api/v1/node/{node.id}/attributes/custom:x"
    for value in (1, True, "1", "true", 1.5, False, 0, ""):
        _, answer = await house.call("POST", path, {"value": value})
        kept = answer["attributes"]["custom:x"]
        assert (kept, type(kept)) == (value, type(value))


async def test_attribute_goes_when_its_time_is_over(house: House) -> None:
    node = await house.node("alice", "laptop")
    path = f"/api/v1/node/{node.id}/attributes/custom:level"
    await house.call("POST", path, {"value": 4, "expiry": LATER})
    house.clock.now += timedelta(hours=2)
    await house.live.tick()
    assert await attributes_of(house, node.id) == {"attributes": {}, "expiries": {}}
    assert (await house.call("DELETE", path))[0] == 404


@pytest.mark.parametrize(
    ("method", "path", "body", "status", "says"),
    [
        ("GET", "9/attributes", None, 404, "no node"),
        ("GET", "x/attributes", None, 400, "ids are numbers"),
        ("POST", "9/attributes/custom:a", {"value": 1}, 404, "no node"),
        ("POST", "1/attributes/node:os", {"value": "macos"}, 400, "for the node itself"),
        ("POST", "1/attributes/level", {"value": 1}, 400, "custom:"),
        ("POST", "1/attributes/custom:a%2Fb", {"value": 1}, 400, "letters"),
        ("POST", "1/attributes/custom:a", {}, 400, "text, a number, true or false"),
        ("POST", "1/attributes/custom:a", None, 400, "text, a number, true or false"),
        ("POST", "1/attributes/custom:a", {"value": None}, 400, "text, a number"),
        ("POST", "1/attributes/custom:a", {"value": [1]}, 400, "text, a number"),
        ("POST", "1/attributes/custom:a", {"value": 1, "expiry": "soon"}, 400, "expiry"),
        ("POST", "1/attributes/custom:a", {"value": 1, "expiry": "2029-12-31T00:00:00Z"}, 400,
         "expired already"),
        ("POST", "1/attributes/custom:LEVEL", {"value": 1}, 409, "its case only"),
        ("DELETE", "1/attributes/custom:a", None, 404, "no attribute custom:a"),
        ("DELETE", "1/attributes/node:os", None, 400, "for the node itself"),
        ("PUT", "1/attributes/custom:a", {"value": 1}, 405, "PUT"),
    ],
)  # fmt: skip
async def test_wrong_request_is_refused(
    house: House, method: str, path: str, body: Any, status: int, says: str
) -> None:
    await house.node("alice", "laptop")
    await house.call("POST", "/api/v1/node/1/attributes/custom:level", {"value": 1})
    answered, answer = await house.call(method, f"/api/v1/node/{path}", body)
    assert (answered, says in answer["message"]) == (status, True), answer
    assert (await attributes_of(house, 1))["attributes"] == {"custom:level": 1}


async def test_many_attributes_of_many_nodes_are_changed_at_once(house: House) -> None:
    for name in ("laptop", "phone", "tablet"):
        await house.node("alice", name)
    await house.call("POST", "/api/v1/node/1/attributes/custom:level", {"value": 1})
    version = house.live.snapshot.version
    wanted = {
        "1": {
            "custom:Level": {"value": 2},
            "custom:level": None,  # makes room, though it stands behind
            "custom:other": None,  # is not there, and need not be
        },
        "2": {"ip:country": {"value": "DE", "expiry": LATER}, "custom:on": {"value": False}},
        "3": {},
    }
    status, answer = await house.call("PATCH", CHANGE, {"nodes": wanted, "comment": "why"})
    assert status == 200
    assert answer["nodes"] == {
        "1": {"attributes": {"custom:Level": 2}, "expiries": {}},
        "2": {
            "attributes": {"custom:on": False, "ip:country": "DE"},
            "expiries": {"ip:country": LATER},
        },
        "3": {"attributes": {}, "expiries": {}},
    }
    assert await attributes_of(house, 2) == answer["nodes"]["2"]
    assert house.live.snapshot.version == version + 1
    empty: tuple[Any, ...] = (None, {}, {"nodes": {}}, {"nodes": None})
    for nothing in empty:
        assert await house.call("PATCH", CHANGE, nothing) == (200, {"nodes": {}})


@pytest.mark.parametrize(
    ("nodes", "status", "says"),
    [
        ({"9": {}}, 404, "no node"),
        ({"9": {"custom:a": None}}, 404, "no node"),
        ({"x": {"custom:a": {"value": 1}}}, 400, "ids are numbers"),
        ({"2": {"level": {"value": 1}}}, 400, "custom:"),
        ({"2": {"node:os": None}}, 400, "for the node itself"),
        ({"2": {"custom:a": {"value": [1]}}}, 400, "text, a number"),
        ({"2": {"custom:a": {}}}, 400, "text, a number"),
        ({"2": {"custom:a": 4}}, 400, "nodes cannot be read"),
        ({"2": {"custom:a": {"value": 1, "expiry": "soon"}}}, 400, "expiry of custom:a"),
        ({"2": None}, 400, "nodes cannot be read"),
    ],
)
async def test_nothing_is_changed_if_one_change_is_refused(
    house: House, nodes: dict[str, Any], status: int, says: str
) -> None:
    for name in ("laptop", "phone"):
        await house.node("alice", name)
    before = house.live.snapshot
    good = {"1": {"custom:a": {"value": 1}}}
    answered, answer = await house.call("PATCH", CHANGE, {"nodes": {**good, **nodes}})
    assert (answered, says in answer["message"]) == (status, True), answer
    assert house.live.snapshot is before


async def test_the_log_says_who_set_what_and_why(
    house: House, caplog: pytest.LogCaptureFixture
) -> None:
    await house.node("alice", "laptop")
    path = "/api/v1/node/1/attributes/custom:level"
    with caplog.at_level(logging.INFO, "appliance.live.told"):
        await house.call("POST", path, {"value": "secret", "comment": "ticket 7\n\x1b[31m"})
        await house.call("DELETE", path)
    put, removed = caplog.records
    assert (put.message, put.__dict__["node"], put.__dict__["attribute"]) == (
        "attribute set", "laptop", "custom:level",
    )  # fmt: skip
    assert put.__dict__["by"] == str(LOCAL)
    assert put.__dict__["reason"].strip() == "ticket 7 [31m"
    assert removed.message == "attribute removed"
    assert "secret" not in caplog.text
