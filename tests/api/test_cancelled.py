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
    "move": ("POST", "/api/v1/node/1/user", {"user": "alice"}),
    "backfill": ("POST", "/api/v1/node/backfillips?confirmed=true", None),
    "attribute": ("POST", "/api/v1/node/1/attributes/custom:x", {"value": 1}),
    "attributes": ("PATCH", "/api/v1/device-attributes", {"nodes": {"1": {"custom:x": None}}}),
    "user rename": ("POST", "/api/v1/user/1/rename/eve", None),
    "role": ("POST", "/api/v1/user/1/role", {"role": "owner"}),
    "destroy": ("DELETE", "/api/v1/user/1", None),
    "key expire": ("POST", "/api/v1/preauthkey/expire", {"id": "1"}),
    "key delete": ("DELETE", "/api/v1/preauthkey?id=1", None),
    "nodes": ("GET", "/api/v1/node", None),
    "audit": ("GET", "/api/v1/audit", None),
    "explain": ("POST", "/api/v1/policy/explain", {"src": "laptop", "dst": "laptop:22"}),
    "diff": ("POST", "/api/v1/policy/diff", {"policy": POLICY}),
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
            assert response.status in (200, 400, 404, 409), response.status
        await house.door.policies[house.live.id].check(POLICY)
    assert not house.live._pending
