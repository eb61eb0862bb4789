"""A caller of the API that goes away at any moment leaves nothing behind, and changes stay whole.

aiohttp cancels handlers when the server stops, and may be told to when a client goes.
"""

from __future__ import annotations

import asyncio
import json
from unittest import mock

import pytest
from aiohttp import streams, web
from aiohttp.test_utils import make_mocked_request

from appliance.api import app
from tests.api.conftest import House, open_house
from tests.support.cancelling import Interruption, at_every_await

POLICY = '{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}'
CALLS: dict[str, tuple[str, str, object]] = {
    "user": ("POST", "/api/v1/user", {"name": "carol"}),
    "key": ("POST", "/api/v1/preauthkey", {"user": "1", "reusable": True}),
    "rename": ("POST", "/api/v1/node/1/rename/other", None),
    "expire": ("POST", "/api/v1/node/1/expire", None),
    "tags": ("POST", "/api/v1/node/1/tags", {"tags": ["tag:a"]}),
    "routes": ("POST", "/api/v1/node/1/approve_routes", {"routes": ["10.0.0.0/8"]}),
    "delete": ("DELETE", "/api/v1/node/1", None),
    "policy": ("PUT", "/api/v1/policy", {"policy": POLICY}),
    "check": ("POST", "/api/v1/policy/check", {"policy": POLICY}),
    "health": ("GET", "/api/v1/health", None),
    "verify": ("POST", "/verify", {"NodePublic": "nodekey:" + "0" * 64}),
}


def request_of(application: web.Application, method: str, path: str, body: object) -> web.Request:
    loop = asyncio.get_running_loop()
    payload = streams.StreamReader(mock.Mock(_reading_paused=False), 2**16, loop=loop)
    payload.feed_data(b"" if body is None else json.dumps(body).encode())
    payload.feed_eof()
    return make_mocked_request(method, path, app=application, payload=payload)


@pytest.mark.parametrize("call", CALLS)
async def test_call_that_is_interrupted_anywhere_leaves_nothing(call: str) -> None:
    """B2 of the API: after it, every lock is free and the same call works."""

    async def trial(interruption: Interruption) -> None:
        async with open_house() as house:
            await house.node("alice", "laptop")
            application = app.build(house.door)
            application.freeze()
            work = application._handle(request_of(application, *CALLS[call]))
            task = asyncio.create_task(interruption(work))
            interruption.act = task.cancel
            await asyncio.wait([task])
            await check(house, application, call, is_done=not task.cancelled())

    assert await at_every_await(trial) >= 2


async def check(house: House, application: web.Application, call: str, *, is_done: bool) -> None:
    async with asyncio.timeout(10):
        await house.user("dave")  # takes the lock of the tailnet, and a commit
        response = await application._handle(request_of(application, *CALLS[call]))
        if not is_done:
            # It was made or it was not, and both are known to whoever asks again.
            assert response.status in (200, 404, 409), response.status
        await house.door.policies[house.live.id].check(POLICY)
    assert not house.live._pending
