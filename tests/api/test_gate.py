"""The API over the network: what counts as a key, what others are told, and how often they may ask."""

from __future__ import annotations

import base64
import logging

import pytest

from appliance.api import app, gate, keyuses
from appliance.records import Role
from tests.api.conftest import Remote, open_remote

NODES = "/api/v1/node"


def basic(name: str, password: str = "") -> dict[str, str]:
    return {"Authorization": "Basic " + base64.b64encode(f"{name}:{password}".encode()).decode()}


async def test_a_key_opens_the_api_as_bearer_or_as_user_name(remote: Remote) -> None:
    """B01: as Headscale's clients and as the hosted service's send it."""
    await remote.house.node("alice", "laptop")
    key = await remote.key()
    prefix, secret = key.removeprefix("hskey-api-").split("-")
    for headers in (
        {"Authorization": f"Bearer {key}"},
        {"Authorization": f"bearer   {key}"},
        {"Authorization": f"Bearer {prefix}.{secret}"},
        basic(key),
        basic(key, "ignored"),
    ):
        status, answer = await remote.call("GET", NODES, **headers)
        assert (status, answer["nodes"][0]["name"]) == (200, "laptop"), headers


@pytest.mark.parametrize(
    "value",
    [
        "",
        "Bearer",
        "Bearer ",
        "Bearer x",
        "Token KEY",
        "KEY",
        "Bearer KEY0",
        "Bearer KEY KEY",
        "Basic KEY",
        "Basic !!!",
        "Basic " + base64.b64encode(b"nocolon").decode(),
        "Basic " + base64.b64encode(b":KEY").decode(),
        "Basic " + base64.b64encode(b"\xff\xfe:").decode(),
        "Bearer hskey-oauthtok-000000000000.e30." + "A" * 43,
        "Bearer " + "x" * 8000,
    ],
)
async def test_anything_else_is_unauthorized_and_learns_nothing(remote: Remote, value: str) -> None:
    """B01: one word, and no data behind it."""
    key = await remote.key()
    headers = {"Authorization": value.replace("KEY", key)} if value else {}
    for method, path in (("GET", NODES), ("POST", "/api/v1/user"), ("GET", "/api/v1/nothing")):
        async with remote.client.request(method, path, headers=headers) as response:
            assert (response.status, await response.text()) == (401, "Unauthorized")
            assert "Bearer" in response.headers["WWW-Authenticate"]


async def test_two_authorizations_are_none(remote: Remote) -> None:
    key = await remote.key()
    headers = [("Authorization", f"Bearer {key}"), ("Authorization", "Bearer x")]
    async with remote.client.get(NODES, headers=headers) as response:
        assert response.status == 401


async def test_expired_and_deleted_keys_are_no_keys(remote: Remote) -> None:
    key = await remote.key()
    other = await remote.key()
    assert (await remote.call("POST", "/api/v1/apikey/expire", key, {"prefix": key}))[0] == 200
    assert (await remote.call("GET", NODES, key))[0] == 401
    assert (await remote.call("DELETE", f"/api/v1/apikey/{other}", other))[0] == 200
    assert (await remote.call("GET", NODES, other))[0] == 401
    third = await remote.key()
    remote.house.clock.advance(days=91)
    assert (await remote.call("GET", NODES, third))[0] == 401


async def test_the_audit_log_names_the_key(remote: Remote) -> None:
    key = await remote.key()
    assert (await remote.call("POST", "/api/v1/user", key, {"name": "bob"}))[0] == 200
    _, answer = await remote.call("GET", "/api/v1/audit?act=user", key)
    entry = answer["entries"][0]
    assert (entry["door"], entry["by"]) == ("api-key", key.split("-")[2])


async def test_a_key_does_what_its_user_may_now(remote: Remote) -> None:
    key = await remote.key_of("alice", Role.AUDITOR)
    assert (await remote.call("GET", NODES, key))[0] == 200
    assert (await remote.call("POST", "/api/v1/user", key, {"name": "bob"}))[0] == 403
    await remote.key_of("alice", Role.MEMBER)
    status, answer = await remote.call("GET", NODES, key)
    assert (status, answer) == (200, {"nodes": []}), "her own, of which there are none"
    assert (await remote.call("GET", "/api/v1/policy", key))[0] == 403


async def test_what_is_not_built_says_so_to_those_with_a_key(remote: Remote) -> None:
    key = await remote.key()
    assert (await remote.call("GET", "/api/v1/debug/node", key))[0] == 501
    assert (await remote.call("GET", "/api/v1/nothing", key))[0] == 404
    assert (await remote.call("GET", "/api/v1/debug/node"))[0] == 401


async def test_no_other_site_may_read_answers(remote: Remote) -> None:
    """CORS is off: a page of another site gets no leave, whatever it asks for."""
    key = await remote.key()
    asked = {"Origin": "https://evil.example", "Access-Control-Request-Method": "GET"}
    for method in ("GET", "OPTIONS"):
        headers = asked | {"Authorization": f"Bearer {key}"}
        async with remote.client.request(method, NODES, headers=headers) as response:
            assert not [name for name in response.headers if name.startswith("Access-Control")]
            assert response.headers["Cache-Control"] == "no-store"
    async with remote.client.options(NODES, headers=asked) as response:
        assert response.status == 401


@pytest.mark.parametrize(
    ("site", "status"),
    [("cross-site", 403), ("same-site", 403), ("same-origin", 200), ("none", 200), ("", 200)],
)
async def test_no_page_of_another_site_changes_anything(
    remote: Remote, site: str, status: int
) -> None:
    """A browser sends a key along that somebody typed into its prompt, whoever asks it to."""
    headers = basic(await remote.key()) | ({"Sec-Fetch-Site": site} if site else {})
    got, answer = await remote.call("POST", "/api/v1/user?name=carol", **headers)
    assert got == status, answer
    assert bool(remote.house.live.snapshot.users) == (status == 200)
    assert (await remote.call("GET", NODES, **headers))[0] == 200


async def test_bodies_are_bounded(remote: Remote) -> None:
    key = await remote.key()
    headers = {"Authorization": f"Bearer {key}"}
    data = b'{"name":"' + b"x" * 300_000 + b'"}'
    async with remote.client.post("/api/v1/user", data=data, headers=headers) as response:
        assert response.status == 413


async def test_a_source_may_ask_so_often_and_another_one_still(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "SOURCE_BURST", 5.0)
    key = await remote.key()
    async with open_remote(remote.house) as tight:
        statuses = [(await tight.call("GET", NODES, key))[0] for _ in range(7)]
        assert statuses == [200] * 5 + [429] * 2
        async with tight.client.get(NODES) as response:
            assert response.headers["Retry-After"] == "1"
        other = {"X-Test-Source": "198.51.100.1"}
        assert (await tight.call("GET", NODES, key, **other))[0] == 200
        here = {"X-Test-Source": "127.0.0.1"}
        assert (await tight.call("GET", NODES, key, **here))[0] == 200, "a proxy of this machine"
        tight.ticks.append(1.0)
        assert (await tight.call("GET", NODES, key))[0] == 200


async def test_a_key_may_ask_so_often_from_wherever(
    remote: Remote, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gate, "KEY_BURST", 3.0)
    key, other = await remote.key(), await remote.key()
    async with open_remote(remote.house) as tight:
        for number in range(3):
            source = {"X-Test-Source": f"192.0.2.{number + 10}"}
            assert (await tight.call("GET", NODES, key, **source))[0] == 200
        assert (await tight.call("GET", NODES, key))[0] == 429
        assert (await tight.call("GET", NODES, other))[0] == 200


async def test_members_do_not_flood_the_audit_log(remote: Remote) -> None:
    """With as many keys as they like; what administrators do is not bounded so."""
    node = await remote.house.node("bob", "desk")
    keys = [await remote.key_of("bob", Role.MEMBER) for _ in range(2)]
    statuses = [
        (await remote.call("POST", f"{NODES}/{node.id}/rename/n{i}", keys[i % 2]))[0]
        for i in range(int(gate.OWN_BURST) + 1)
    ]
    assert statuses == [200] * int(gate.OWN_BURST) + [429]
    assert (await remote.call("GET", NODES, keys[0]))[0] == 200
    path = f"{NODES}/{node.id}/rename/x"
    assert (await remote.call("POST", path, await remote.key()))[0] == 200


async def test_guessing_is_bounded_counted_and_written_once(
    remote: Remote, caplog: pytest.LogCaptureFixture
) -> None:
    key = await remote.key()
    guess = "hskey-api-" + "0" * 12 + "-" + "0" * 64
    with caplog.at_level(logging.WARNING, logger="appliance.api.gate"):
        statuses = [(await remote.call("GET", NODES, guess))[0] for _ in range(70)]
    assert statuses == [401] * 60 + [429] * 10
    assert remote.gate.counters.unknown == 60
    assert [record.message for record in caplog.records] == ["api key refused"]
    assert (caplog.records[0].__dict__["remote"], "0000" in caplog.text) == ("192.0.2.7", False)
    assert (await remote.call("GET", NODES, key))[0] == 429, "nothing of a guesser is looked at"
    other = {"X-Test-Source": "198.51.100.1"}
    assert (await remote.call("GET", NODES, key, **other))[0] == 200
    remote.ticks.append(2.0)
    assert (await remote.call("GET", NODES, key))[0] == 200


async def test_a_program_with_an_expired_key_does_not_lock_out_its_neighbours(
    remote: Remote,
) -> None:
    old, good = await remote.key(), await remote.key()
    await remote.call("POST", "/api/v1/apikey/expire", good, {"prefix": old})
    for _ in range(70):
        assert (await remote.call("GET", NODES, old))[0] == 401
    assert remote.gate.counters.expired == 70
    assert (await remote.call("GET", NODES, good))[0] == 200


async def test_uses_are_shown_at_once_and_written_in_bulk(remote: Remote) -> None:
    house, key = remote.house, await remote.key()
    version = house.live.snapshot.version
    for _ in range(5):
        _, answer = await remote.call("GET", "/api/v1/apikey", key)
    assert answer["apiKeys"][0]["lastSeen"] == house.clock().isoformat().replace("+00:00", "Z")
    assert house.live.snapshot.version == version, "no commit for a request"
    await keyuses.write(house.door, house.live)
    assert next(iter(house.live.snapshot.api_keys.values())).last_used_at == house.clock()
    assert house.live.snapshot.version == version + 1
    _, answer = await remote.call("GET", "/api/v1/audit?kind=apikey", key)
    assert [entry["act"] for entry in answer["entries"]] == ["apikey.create"], "use is no change"
    await keyuses.write(house.door, house.live)
    assert house.live.snapshot.version == version + 1, "nothing new, nothing written"


async def test_routes_of_the_local_socket_are_not_on_the_network(remote: Remote) -> None:
    key = await remote.key()
    for path in ("/metrics", "/debug"):
        assert (await remote.call("GET", path, key))[0] == 404
    local = [route for route in app.ROUTES if route.is_local]
    for route in local:
        path = route.path.replace("{", "").replace("}", "")
        assert (await remote.call(route.method, path, key))[0] in (404, 405)
