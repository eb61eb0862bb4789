"""What anybody may ask: the server's key, relay admission, health, and how the answers are armed."""

from __future__ import annotations

from collections.abc import AsyncIterator

import pytest
from aiohttp.test_utils import TestClient, TestServer

from appliance.api import public
from appliance.identity.principals import LOCAL
from appliance.tailnet import nodes
from appliance.wire.keys import MachineKey
from tests.api.conftest import Browser, House
from tests.support.builder import machine_key, node_key

KEY = machine_key("the server")


@pytest.fixture
async def browser(house: House) -> AsyncIterator[Browser]:
    async with TestClient(TestServer(public.build(house.door, KEY))) as client:
        yield client


async def test_key_is_told_to_clients_that_speak_noise(browser: Browser) -> None:
    async with browser.get("/key?v=39") as response:
        assert response.status == 200
        answer = await response.json()
    assert answer == {"legacyPublicKey": str(MachineKey.zero()), "publicKey": str(KEY)}


@pytest.mark.parametrize("query", ["", "?v=", "?v=38", "?v=abc", "?v=-1", "?v=" + "9" * 40])
async def test_key_needs_a_version(browser: Browser, query: str) -> None:
    async with browser.get("/key" + query) as response:
        assert response.status == (200 if query.endswith("9" * 40) else 400)


@pytest.mark.parametrize("path", ["/key?v=100", "/robots.txt", "/health", "/nothing"])
async def test_every_answer_is_armed(browser: Browser, path: str) -> None:
    async with browser.get(path) as response:
        for name, value in public.SECURITY_HEADERS.items():
            assert response.headers[name] == value
        assert response.headers["Server"] == "headwater"


async def admitted(browser: Browser, key: str) -> bool:
    question = {"NodePublic": key, "Source": "192.0.2.1"}
    async with browser.post("/verify", json=question) as response:
        assert response.status == 200
        answer = await response.json()
        return bool(answer["Allow"])


async def test_relays_are_told_who_is_ours(house: House, browser: Browser) -> None:
    node = await house.node("alice", "laptop")
    assert await admitted(browser, str(node.node_key))
    assert not await admitted(browser, str(node_key("stranger")))
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        nodes.expire(edit, node.id, house.clock())
    assert not await admitted(browser, str(node.node_key))


async def test_verify_is_bounded(browser: Browser) -> None:
    for data, status in ((b"x" * 4097, 413), (b"{", 400), (b'{"NodePublic":"x"}', 400)):
        async with browser.post("/verify", data=data) as response:
            assert response.status == status
