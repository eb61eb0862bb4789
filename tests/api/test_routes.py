"""The route table: what is mounted, who may call it, and the document that describes it."""

from __future__ import annotations

from collections.abc import Collection
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from appliance.api import app, openapi
from appliance.api.mount import Identify
from appliance.identity.principals import Principal, PrincipalKind
from appliance.identity.scopes import LOCAL_CALLER, Caller, Scope, covers
from tests.api.conftest import House

READING = {("POST", f"/api/v1/policy/{verb}") for verb in ("check", "test", "diff", "explain")}


def mounted() -> set[tuple[str, str]]:
    return {(route.method, route.path) for route in app.ROUTES}


def test_document_and_routes_agree() -> None:
    """A2: every route is in the document, and nothing else is."""
    document = openapi.document(app.ROUTES)
    described = {
        (method.upper(), path) for path, calls in document["paths"].items() for method in calls
    }
    assert described == mounted()
    assert len(described) == len(app.ROUTES)


def test_document_refers_to_nothing_that_is_not_there() -> None:
    document = openapi.document(app.ROUTES)

    def references(part: Any) -> Collection[str]:
        if isinstance(part, dict):
            own = {part["$ref"]} if isinstance(part.get("$ref"), str) else set()
            return own.union(*map(references, part.values()))
        return set().union(*map(references, part)) if isinstance(part, list) else set()

    schemas = document["components"]["schemas"]
    assert schemas["Node"]["properties"]["createdAt"]["format"] == "date-time"
    names = {reference.rpartition("/")[2] for reference in references(document)}
    assert names <= set(schemas)
    operations = [
        call["operationId"] for calls in document["paths"].values() for call in calls.values()
    ]
    assert len(set(operations)) == len(operations)


async def test_every_described_route_is_mounted(house: House) -> None:
    """A2: the application and the table are one."""
    resources = {
        (route.method, route.resource.canonical)
        for route in app.build(house.door).router.routes()
        if route.resource is not None and route.method != "HEAD"
    }
    assert mounted() <= resources
    others = {path for _, path in resources - mounted()} - {
        path.replace(":.*", "") for path in app.NOT_BUILT
    }
    assert {path for path in others if path.startswith("/api/")} == {
        "/api/v1/openapi.json",
        "/api/v1/openapi.yaml",
        "/api/v1/docs",
    }


@pytest.mark.parametrize(
    ("method", "path"),
    [
        ("POST", "/api/v1/debug/node"),
        ("GET", "/api/v2/tailnet/-/devices"),
    ],
)
async def test_what_is_not_built_says_so(house: House, method: str, path: str) -> None:
    """B12: 405 and 404 hide from consoles that the call exists elsewhere."""
    status, answer = await house.call(method, path)
    assert (status, answer["code"], "not have this call" in answer["message"]) == (501, 12, True)


UNAUDITED = ("/ssh/", "/auth/", "/certificate/")
"""Changes of nothing that is kept in a tailnet."""


def test_every_change_has_an_act_and_a_scope() -> None:
    """A2: what changes something is in the audit log under a name, and needs more than reading."""
    for route in app.ROUTES:
        where = f"{route.method} {route.path}"
        is_reading = route.method == "GET" or (route.method, route.path) in READING
        assert is_reading or route.act or any(each in where for each in UNAUDITED), where
        if route.scope is not None:
            assert route.scope.is_read == is_reading, where
        assert route.summary, where


async def test_description_is_served_without_foreign_assets(house: House) -> None:
    async with house.client.get("/api/v1/openapi.json") as response:
        assert (await response.json())["openapi"].startswith("3.1")
    async with house.client.get("/api/v1/docs") as response:
        page = await response.text()
        assert "default-src 'none'" in response.headers["Content-Security-Policy"]
    assert "/api/v1/node/{node_id}/expire" in page
    assert "http" not in page.replace("Headwater", "")
    assert "<script" not in page


@pytest.mark.parametrize(
    ("held", "wanted", "may"),
    [
        ({Scope.ALL}, Scope.USERS, True),
        ({Scope.ALL_READ}, Scope.USERS_READ, True),
        ({Scope.ALL_READ}, Scope.USERS, False),
        ({Scope.USERS}, Scope.USERS_READ, True),
        ({Scope.USERS_READ}, Scope.USERS, False),
        ({Scope.DEVICES_CORE}, Scope.USERS_READ, False),
        ({Scope.DEVICES_CORE}, Scope.DEVICES_ROUTES_READ, False),
        (set(), Scope.USERS_READ, False),
    ],
)
def test_scope_covers(held: set[Scope], wanted: Scope, may: bool) -> None:
    assert covers(held, wanted) is may


def identify(scopes: set[Scope]) -> Identify:
    async def who(request: web.Request) -> Caller:
        if "Authorization" not in request.headers:
            raise web.HTTPUnauthorized
        return Caller(Principal(PrincipalKind.LOCAL, "token"), frozenset(scopes))

    return who


@pytest.mark.parametrize(
    ("scopes", "allowed"),
    [(set(), 1), ({Scope.ALL_READ}, None), ({Scope.ALL}, None)],
    ids=["none", "read", "all"],
)
async def test_routes_behind_keys_ask_for_their_scope(
    house: House, scopes: set[Scope], allowed: int | None
) -> None:
    """A2: the same rows behind keys: no key 401, a key without the scope 403, before all else."""
    site = app.build(house.door, identify(scopes))
    async with TestClient(TestServer(site)) as client:
        open_to_caller = 0
        for route in app.ROUTES:
            path = route.path.replace("{", "").replace("}", "")
            async with client.request(route.method, path) as response:
                assert response.status == 401
                assert (await response.json(content_type=None))["code"] == 16
            headers = {"Authorization": "Bearer x"}
            async with client.request(route.method, path, headers=headers) as response:
                is_open = route.scope is None or covers(scopes, route.scope)
                assert (response.status != 403) is is_open, route.path
                open_to_caller += is_open
    assert allowed is None or open_to_caller == allowed


def test_local_socket_may_do_everything() -> None:
    assert all(covers(LOCAL_CALLER.scopes, scope) for scope in Scope)
