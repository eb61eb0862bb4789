"""``/api/v1/apikey`` in Headscale's shapes; who may make which key is in ``test_callers``."""

from __future__ import annotations

import re
from datetime import timedelta

import pytest

from appliance.tailnet import apikeys
from tests.api.conftest import House
from tests.support.clock import NOON

PATH = "/api/v1/apikey"
TEXT = re.compile(r"hskey-api-[0-9a-f]{12}-[0-9a-f]{64}")


async def made(house: House, **body: object) -> str:
    status, answer = await house.call("POST", PATH, body)
    assert status == 200, answer
    assert list(answer) == ["apiKey"]
    assert TEXT.fullmatch(answer["apiKey"])
    text: str = answer["apiKey"]
    return text


async def listed(house: House) -> list[dict[str, object]]:
    status, answer = await house.call("GET", PATH)
    assert status == 200
    keys: list[dict[str, object]] = answer["apiKeys"]
    return keys


async def test_a_key_is_shown_once_and_listed_masked(house: House) -> None:
    """D01."""
    text = await made(house, expiration="2030-03-02T12:00:00Z")
    prefix = text.split("-")[2]
    assert await listed(house) == [
        {
            "id": "1",
            "prefix": f"hskey-api-{prefix}-***",
            "expiration": "2030-03-02T12:00:00Z",
            "createdAt": NOON.isoformat().replace("+00:00", "Z"),
            "lastSeen": None,
        }
    ]
    assert text.split("-")[3] not in str(house.live.snapshot.api_keys)


async def test_without_an_expiration_a_key_lives_for_90_days(house: House) -> None:
    for body in ({}, {"expiration": None}):
        await made(house, **body)
    assert {key.expires_at for key in house.live.snapshot.api_keys.values()} == {
        NOON + timedelta(days=90)
    }


async def test_what_headscales_keys_do_not_have_is_shown_where_it_is_there(house: House) -> None:
    alice = await house.user("alice")
    await made(house, scopes=["users:read", "policy_file"], description="wall\x1b[31m display")
    await made(house, user=str(alice))
    first, second = await listed(house)
    assert first["scopes"] == ["policy_file", "users:read"]
    assert first["description"] == "wall[31m display"
    assert (second["user"], "scopes" in second) == (str(alice), False)


@pytest.mark.parametrize("by", ["id", "prefix", "masked", "text"])
async def test_keys_are_expired_and_deleted_by_id_or_prefix(house: House, by: str) -> None:
    """D01: Headplane names keys by prefix, the command line by both."""
    text = await made(house)
    key = next(iter(house.live.snapshot.api_keys.values()))
    name = {"id": "1", "prefix": key.prefix, "masked": apikeys.shown(key), "text": text}[by]
    body = {"id": name} if by == "id" else {"prefix": name}
    assert await house.call("POST", f"{PATH}/expire", body) == (200, {})
    assert apikeys.is_expired(house.live.snapshot.api_keys[key.id], house.clock())
    place = f"{PATH}/-?id={name}" if by == "id" else f"{PATH}/{name}"
    assert await house.call("DELETE", place) == (200, {})
    assert await listed(house) == []


@pytest.mark.parametrize(
    ("method", "path", "body", "status"),
    [
        ("POST", f"{PATH}/expire", {}, 400),
        ("POST", f"{PATH}/expire", {"id": "1", "prefix": "x"}, 400),
        ("POST", f"{PATH}/expire", {"prefix": "unknown"}, 404),
        ("POST", f"{PATH}/expire", {"id": "99"}, 404),
        ("DELETE", f"{PATH}/unknown", None, 404),
        ("DELETE", f"{PATH}/unknown?id=1", None, 400),
        ("DELETE", f"{PATH}/?id=99", None, 404),
        ("DELETE", f"{PATH}/", None, 400),
        ("POST", PATH, {"expiration": "tomorrow"}, 400),
        ("POST", PATH, {"scopes": ["everything"]}, 400),
        ("POST", PATH, {"user": "77"}, 404),
        ("POST", f"{PATH}/rotate", {"id": "1", "grace": "soon"}, 400),
        ("POST", f"{PATH}/rotate", {"id": "1", "grace": "30d"}, 400),
    ],
)
async def test_refusals(house: House, method: str, path: str, body: object, status: int) -> None:
    """D02."""
    await made(house)
    got, answer = await house.call(method, path, body)
    assert (got, bool(answer["message"])) == (status, True)


async def test_rotation_gives_a_successor_and_ends_the_old_key_later(house: House) -> None:
    await made(house, expiration=(NOON + timedelta(days=30)).isoformat())
    status, answer = await house.call("POST", f"{PATH}/rotate", {"id": "1", "grace": "10m"})
    assert (status, bool(TEXT.fullmatch(answer["apiKey"]))) == (200, True)
    old, new = await listed(house)
    assert old["expiration"] == "2030-01-01T12:10:00Z"
    assert new["expiration"] == "2030-01-31T12:00:00Z"


async def test_the_audit_log_has_what_befell_a_key_and_not_its_secret(house: House) -> None:
    text = await made(house, description="ci")
    await house.call("POST", f"{PATH}/expire", {"id": "1"})
    await house.call("DELETE", f"{PATH}/{text}")
    status, answer = await house.call("GET", "/api/v1/audit?act=apikey")
    assert status == 200
    acts = [(entry["act"], entry["name"]) for entry in answer["entries"]]
    prefix = text.split("-")[2]
    assert acts == [(f"apikey.{verb}", prefix) for verb in ("delete", "expire", "create")]
    key = apikeys.parse(text)[1]
    assert key not in str(answer)
