"""Every route for every role and every scope: nothing is reachable that the table does not allow.

And what users may do without a scope, each with things of their own and of others.
"""

from __future__ import annotations

from collections.abc import Collection

import pytest

from appliance.api import app
from appliance.api.routes import AnyRoute
from appliance.identity.principals import LOCAL
from appliance.identity.roles import scopes_of
from appliance.identity.scopes import OWN, Scope, covers
from appliance.records import Role
from appliance.tailnet import apikeys, people, users
from tests.api.conftest import Remote

REMOTE = [route for route in app.ROUTES if not route.is_local]
HERE = {"X-Test-Source": "127.0.0.1"}
"""This machine is not bounded by source; the keys have a bucket each."""


def path_of(route: AnyRoute) -> str:
    """Name things that are not there: what is allowed answers 404 or 400, and changes nothing."""
    path = route.path.replace("{tailnet}", "-")
    for name in route.parameters:
        path = path.replace(f"{{{name}}}", "999999" if name.endswith("_id") else "nothing")
    return path


async def is_let_in(remote: Remote, route: AnyRoute, key: str) -> bool:
    """Tell whether a key gets beyond the scope check of a route."""
    body: object = None if route.method == "GET" else {}
    status, answer = await remote.call(route.method, path_of(route), key, body, **HERE)
    assert status not in (401, 404) or answer["code"] == 5, (route.path, status)
    assert status not in (405, 429), (route.path, status)
    return not (status == 403 and answer["title"] == "scope-missing")


def may(route: AnyRoute, scopes: Collection[Scope]) -> bool:
    wanted = [scope for scope in (route.scope, route.or_scope) if scope is not None]
    return route.scope is None or any(covers(scopes, scope) for scope in wanted)


def is_decided_within(route: AnyRoute, scopes: Collection[Scope]) -> bool:
    """Tell whether the handler asks for a scope itself, by what the request names."""
    if route.or_scope is None or route.scope is None:
        return False
    return not (covers(scopes, route.scope) and covers(scopes, route.or_scope))


@pytest.mark.parametrize("role", Role)
async def test_every_route_for_every_role(remote: Remote, role: Role) -> None:
    key = await remote.key_of("alice", role)
    scopes = scopes_of(role)
    for route in REMOTE:
        allowed = may(route, scopes) or route.own
        let_in = await is_let_in(remote, route, key)
        if allowed and is_decided_within(route, scopes):
            continue
        assert let_in is allowed, (route.method, route.path, role)


@pytest.mark.parametrize("scope", Scope)
async def test_every_route_for_every_scope(remote: Remote, scope: Scope) -> None:
    key = await remote.key(scopes=[scope.value])
    for route in REMOTE:
        allowed = may(route, {scope})
        let_in = await is_let_in(remote, route, key)
        if allowed and is_decided_within(route, {scope}):
            continue
        assert let_in is allowed, (route.method, route.path, scope)


async def test_a_key_with_scopes_has_nothing_of_its_users(remote: Remote) -> None:
    """A key for the policy must not reach the nodes of the administrator who made it."""
    key = await remote.key_of("alice", Role.ADMIN, scopes=["policy_file:read"])
    for route in REMOTE:
        if route.own:
            assert not await is_let_in(remote, route, key), route.path


async def test_no_route_is_reachable_without_a_key_or_with_a_wrong_one(remote: Remote) -> None:
    for route in REMOTE:
        for key in ("", "x", "hskey-api-" + "0" * 12 + "-" + "0" * 64):
            status, answer = await remote.call(route.method, path_of(route), key, **HERE)
            assert (status, answer) == (401, "Unauthorized"), route.path


async def test_what_is_local_is_not_there_for_anybody(remote: Remote) -> None:
    key = await remote.key()
    for route in app.ROUTES:
        if route.is_local:
            status, _ = await remote.call(route.method, path_of(route), key, {}, **HERE)
            assert status == 404, route.path


async def test_members_see_and_change_their_own_only(remote: Remote) -> None:
    house = remote.house
    mine, theirs = await house.node("alice", "mine"), await house.node("bob", "theirs")
    tagged = await house.node("bob", "tagged", ("tag:ci",))
    alice, bob = await house.user("alice"), await house.user("bob")
    key = await remote.key_of("alice", Role.MEMBER)
    await remote.key_of("bob", Role.MEMBER)
    nobodys = await remote.key()
    listed = {each.user_id: each for each in house.live.snapshot.api_keys.values()}

    _, answer = await remote.call("GET", "/api/v1/node", key)
    assert [node["id"] for node in answer["nodes"]] == [str(mine.id)]
    for query in ("?user=bob", "?user=tagged-devices", "?user=nobody"):
        _, answer = await remote.call("GET", f"/api/v1/node{query}", key)
        assert [node["name"] for node in answer["nodes"]] in ([], ["mine"])
    for query in ("", "?name=bob", f"?id={bob}", "?email=x"):
        _, answer = await remote.call("GET", f"/api/v1/user{query}", key)
        assert {user["id"] for user in answer["users"]} <= {str(alice)}
    _, answer = await remote.call("GET", "/api/v1/apikey", key)
    assert [each["id"] for each in answer["apiKeys"]] == [str(listed[alice].id)]

    before = house.live.snapshot
    for node in (theirs, tagged):
        place = f"/api/v1/node/{node.id}"
        for method, path in (
            ("GET", place),
            ("DELETE", place),
            ("POST", f"{place}/expire"),
            ("POST", f"{place}/rename/stolen"),
        ):
            status, told = await remote.call(method, path, key)
            assert (status, "yours" in told["message"]) == (404, True), path
    for other in (listed[bob], apikeys.find(before, nobodys)):
        assert other is not None
        for verb in ("expire", "rotate"):
            for name in ({"id": str(other.id)}, {"prefix": other.prefix}):
                assert (await remote.call("POST", f"/api/v1/apikey/{verb}", key, name))[0] == 404
        assert (await remote.call("DELETE", f"/api/v1/apikey/{other.prefix}", key))[0] == 404
        assert (await remote.call("DELETE", f"/api/v1/apikey/-?id={other.id}", key))[0] == 404
    for body in ({"user": str(bob)}, {"scopes": ["all"]}, {"scopes": ["users:read"]}):
        assert (await remote.call("POST", "/api/v1/apikey", key, body))[0] == 403
    place = f"/api/v1/node/{mine.id}"
    never = {"disableExpiry": True}
    assert (await remote.call("POST", f"{place}/expire", key, never))[0] == 403
    later = {"expiry": "2035-01-01T00:00:00Z"}
    assert (await remote.call("POST", f"{place}/expire", key, later))[0] == 403
    after = house.live.snapshot
    assert (after.nodes, after.users, after.api_keys) == (
        before.nodes,
        before.users,
        before.api_keys,
    )

    assert (await remote.call("GET", place, key))[0] == 200
    assert (await remote.call("POST", f"{place}/rename/desk", key))[0] == 200
    assert (await remote.call("POST", f"{place}/expire", key))[0] == 200
    assert (await remote.call("DELETE", place, key))[0] == 200
    status, made = await remote.call("POST", "/api/v1/apikey", key, {})
    assert status == 200
    assert (await remote.call("GET", "/api/v1/user", made["apiKey"]))[1]["users"][0][
        "name"
    ] == "alice"
    assert (await remote.call("DELETE", f"/api/v1/apikey/{made['apiKey']}", key))[0] == 200


def test_every_route_for_ones_own_is_in_the_test_above() -> None:
    assert {(route.method, route.path) for route in app.ROUTES if route.own} == {
        ("GET", "/api/v1/user"),
        ("GET", "/api/v1/node"),
        ("GET", "/api/v1/node/{node_id}"),
        ("DELETE", "/api/v1/node/{node_id}"),
        ("POST", "/api/v1/node/{node_id}/expire"),
        ("POST", "/api/v1/node/{node_id}/rename/{name}"),
        ("GET", "/api/v1/apikey"),
        ("POST", "/api/v1/apikey"),
        ("POST", "/api/v1/apikey/expire"),
        ("POST", "/api/v1/apikey/rotate"),
        ("DELETE", "/api/v1/apikey/{prefix}"),
    }


@pytest.mark.parametrize("role", [Role.IT_ADMIN, Role.ADMIN])
async def test_nobody_rises_above_their_role(remote: Remote, role: Role) -> None:
    """By a role, by a key, by an invitation, or by becoming somebody who may do more."""
    house = remote.house
    boss = await house.user("boss")
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        users.set_role(edit, boss, Role.OWNER)
    key = await remote.key_of("alice", role)
    alice = await house.user("alice")
    calls: list[tuple[str, str, object]] = [
        ("POST", f"/api/v1/user/{alice}/role", {"role": "owner"}),
        ("POST", f"/api/v1/user/{alice}/role", {"role": "member"}),
        ("POST", f"/api/v1/user/{boss}/role", {"role": "member"}),
        ("POST", f"/api/v1/user/{boss}/rename/nobody", None),
        ("DELETE", f"/api/v1/user/{boss}", None),
        ("POST", f"/api/v1/user/{boss}/unlink", None),
        ("POST", "/api/v1/user", {"name": "x", "role": "owner"}),
        ("POST", "/api/v1/invitation", {"name": "boss"}),
    ]
    if role is Role.IT_ADMIN:
        calls += [
            ("POST", "/api/v1/user", {"name": "x", "role": "admin"}),
            ("POST", "/api/v1/user", {"name": "x", "role": "network-admin"}),
            ("POST", "/api/v1/invitation", {"name": "x", "role": "admin"}),
            ("POST", "/api/v1/apikey", {"scopes": ["policy_file"]}),
            ("POST", "/api/v1/apikey", {"user": str(boss)}),
        ]
    before = house.live.snapshot
    for method, path, body in calls:
        status, answer = await remote.call(method, path, key, body)
        assert status == 403, (path, body, answer)
    after = house.live.snapshot
    assert (after.users, after.api_keys) == (before.users, before.api_keys)


async def test_an_administrator_gets_no_key_of_the_owner_nor_one_above(remote: Remote) -> None:
    """With either the administrator could become the owner."""
    owners = await remote.key_of("boss", Role.OWNER)
    boss = await remote.house.user("boss")
    nobodys = await remote.key()
    key = await remote.key_of("alice", Role.ADMIN)
    before = remote.house.live.snapshot
    calls: tuple[tuple[str, object], ...] = (
        ("", {"user": str(boss)}),
        ("", {"user": str(boss), "scopes": ["all"]}),
        ("/rotate", {"prefix": owners}),
        ("/rotate", {"prefix": nobodys}),
    )
    for path, body in calls:
        status, answer = await remote.call("POST", f"/api/v1/apikey{path}", key, body)
        assert status == 403, (path, body, answer)
    assert remote.house.live.snapshot.api_keys == before.api_keys
    for path, body in calls[:1] + calls[2:]:
        assert (await remote.call("POST", f"/api/v1/apikey{path}", nobodys, body))[0] == 200
    for prefix in (owners, nobodys):
        rotated = {"prefix": prefix}
        assert (await remote.call("POST", "/api/v1/apikey/rotate", owners, rotated))[0] == 200


async def test_a_key_that_makes_keys_gets_nothing_that_is_a_users(remote: Remote) -> None:
    """What is a member's needs no scope, so it is not in the member's scopes."""
    theirs = await remote.key_of("bob", Role.MEMBER)
    bob = await remote.house.user("bob")
    key = await remote.key(scopes=["api_access_tokens"])
    before = remote.house.live.snapshot
    for path, body in (("", {"user": str(bob)}), ("/rotate", {"prefix": theirs})):
        status, answer = await remote.call("POST", f"/api/v1/apikey{path}", key, body)
        assert status == 403, (path, body, answer)
    assert remote.house.live.snapshot.api_keys == before.api_keys


async def test_a_client_gets_no_key_by_rotating_one(remote: Remote) -> None:
    """It would be free of the tags that bind the client."""
    narrow = await remote.key(scopes=["auth_keys"])
    body = {
        "keyType": "client",
        "scopes": ["api_access_tokens", "auth_keys"],
        "tags": ["tag:ci"],
    }
    made = (await remote.house.call("POST", "/api/v2/tailnet/-/keys", body))[1]
    form = {"client_secret": made["key"]}
    async with remote.client.post("/api/v2/oauth/token", data=form) as response:
        token = (await response.json())["access_token"]
    rotated = {"prefix": narrow}
    status, answer = await remote.call("POST", "/api/v1/apikey/rotate", token, rotated)
    assert (status, "OAuth client" in answer["message"]) == (403, True), answer


def test_what_is_ones_own_is_known_to_those_who_hand_out_keys() -> None:
    needed = {route.scope for route in app.ROUTES if route.own and route.scope is not None}
    assert all(covers(OWN, scope) for scope in needed)


async def test_an_account_is_linked_to_nobody_who_may_do_more(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    boss = await remote.house.user("boss")
    await remote.key_of("boss", Role.ADMIN)
    key = await remote.key_of("alice", Role.IT_ADMIN)

    async def issuer(_name: str) -> str:
        return "https://idp.example"

    monkeypatch.setattr(type(remote.house.door), "issuer_of", staticmethod(issuer), raising=False)
    linked: list[object] = []
    monkeypatch.setattr(people, "link", lambda *given, **_: linked.append(given))
    body = {"provider": "oidc", "subject": "alice's own"}
    status, _ = await remote.call("POST", f"/api/v1/user/{boss}/link", key, body)
    assert (status, linked) == (403, [])
