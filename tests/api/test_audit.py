"""``/api/v1/audit``: what was changed through the API is there, in pages and filtered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from aiohttp.test_utils import TestClient, TestServer

from appliance.api import app
from appliance.store.errors import DatabaseAway
from tests.api.conftest import House

PATH = "/api/v1/audit"


async def act(house: House) -> None:
    """Make some changes by the API."""
    node = await house.node("alice", "laptop")
    for method, path, body in (
        ("POST", "/api/v1/user", {"name": "bob"}),
        ("POST", f"/api/v1/node/{node.id}/rename/desk", None),
        ("POST", f"/api/v1/node/{node.id}/user", {"user": "bob"}),
        ("POST", f"/api/v1/node/{node.id}/attributes/custom:x", {"value": 1, "comment": "why"}),
        ("DELETE", f"/api/v1/node/{node.id}", None),
    ):
        status, answer = await house.call(method, path, body)
        assert status == 200, answer


async def entries(house: House, query: str = "") -> list[dict[str, Any]]:
    status, answer = await house.call("GET", f"{PATH}{query}")
    assert status == 200, answer
    found: list[dict[str, Any]] = answer["entries"]
    return found


async def test_changes_are_told_with_what_was_before(house: House) -> None:
    """A2: each act of the route table is in the audit log, by whoever asked."""
    await act(house)
    found = await entries(house)
    assert [each["act"] for each in found[:5]] == [
        "node.delete",
        "node.set-attribute",
        "node.move",
        "node.rename",
        "user.create",
    ]
    renamed = found[3]
    assert (renamed["before"]["name"], renamed["after"]["name"]) == ("laptop", "desk")
    assert {each["by"] for each in found[:5]} == {"socket"}
    assert (found[0]["after"], found[4]["before"]) == (None, None)
    assert found[1]["reason"] == "why"


@pytest.mark.parametrize(
    ("query", "acts"),
    [
        ("?act=node.rename", ["node.rename"]),
        ("?act=user&since=2030-01-01T00:00:00Z&by=socket&kind=user&target=2", ["user.create"]),
        ("?kind=node&target=1&limit=2", ["node.delete", "node.set-attribute"]),
        ("?since=2031-01-01T00:00:00Z", []),
        ("?by=nobody", []),
    ],
)
async def test_entries_are_chosen(house: House, query: str, acts: list[str]) -> None:
    await act(house)
    assert [each["act"] for each in await entries(house, query)] == acts


async def test_pages_lead_to_the_first_entry(house: House) -> None:
    await act(house)
    whole = await entries(house)
    paged, query = [], "?limit=2"
    for _ in whole:
        _, answer = await house.call("GET", f"{PATH}{query}")
        paged += answer["entries"]
        if answer["next"] is None:
            break
        query = f"?limit=2&before={answer['next']}"
    assert paged == whole


@pytest.mark.parametrize(
    "query", ["?limit=0", "?limit=1001", "?kind=thing", "?target=x", "?since=soon", "?before=x"]
)
async def test_wrong_question_is_refused(house: House, query: str) -> None:
    assert (await house.call("GET", f"{PATH}{query}"))[0] == 400


async def test_database_that_is_away_is_said_in_words(house: House) -> None:
    async def away(*_: object, **__: object) -> list[Any]:
        raise DatabaseAway("gone fishing")

    site = app.build(replace(house.door, audit=away))
    async with TestClient(TestServer(site)) as client, client.get(PATH) as response:
        assert response.status == 503
        assert (await response.json(content_type=None))["message"] == "the database does not answer"
