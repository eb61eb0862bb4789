"""The API over a live tailnet with SQLite in memory."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from random import SystemRandom
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from appliance.api import app
from appliance.api.door import Door
from appliance.identity.principals import LOCAL
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnet, LiveTailnets
from appliance.live.policy import PolicyKeeper, PolicySource
from appliance.records import Node, UserID
from appliance.store.store import Database
from appliance.tailnet import enrolment, keys, users
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg
from tests.support.builder import machine_key, node_key
from tests.support.clock import NOON, Clock, fixed_rng

Browser = TestClient[web.Request, web.Application]


@dataclass
class House:
    """A live tailnet and a client of its API."""

    live: LiveTailnet
    door: Door
    client: Browser
    clock: Clock
    wells: list[bool]
    """The last one says whether the database answers."""
    warnings: list[str]

    async def call(self, method: str, path: str, body: object = None) -> tuple[int, Any]:
        """Make a call; give status and decoded body."""
        async with self.client.request(method, path, json=body) as response:
            return response.status, await response.json(content_type=None)

    async def user(self, name: str) -> UserID:
        """Add a user, or find the one of that name."""
        found = users.find(self.live.snapshot, name=name)
        if found:
            return found[0].id
        async with self.live.edit(by=LOCAL, act="test.change") as edit:
            return users.create(edit, name, self.clock()).id

    async def node(
        self, owner: str, name: str, tags: tuple[str, ...] = (), *, ephemeral: bool = False
    ) -> Node:
        """Register a node with a single-use key of a user."""
        user_id = await self.user(owner)
        async with self.live.edit(by=LOCAL, act="test.change") as edit:
            _key, text = keys.create_auth_key(
                edit,
                user_id=user_id,
                tags=tags,
                now=self.clock(),
                random_bytes=secrets.token_bytes,
            )
            request = tailcfg.RegisterRequest(
                version=130,
                node_key=node_key(name),
                auth=tailcfg.RegisterResponseAuth(auth_key=text),
                hostinfo=tailcfg.Hostinfo(hostname=name),
                ephemeral=ephemeral,
            )
            grant = enrolment.key_grant(request.auth)
            result = enrolment.register(
                edit, machine_key(name), request, grant, self.clock(), rng=fixed_rng()
            )
        assert result.node is not None
        return result.node


@asynccontextmanager
async def open_house(now: datetime = NOON) -> AsyncIterator[House]:
    """Start everything that the API needs."""
    database = Database.open("sqlite://")
    await database.migrate()
    _, ids = await database.load()
    record = await database.create_tailnet(
        ids, name="default", domain="tailnet.internal", created_at=NOON
    )
    clock = Clock(now)
    live = LiveTailnet(Snapshot(tailnet=record), database, ids, clock=clock)
    running = asyncio.create_task(live.run())

    wells = [True]
    warnings: list[str] = []

    async def trouble() -> str:
        return "" if wells[-1] else "the database does not answer: it sleeps"

    door = Door(
        tailnets=LiveTailnets([live]),
        policies={live.id: PolicyKeeper(live, PolicySource())},
        database_trouble=trouble,
        random_bytes=secrets.token_bytes,
        rng=SystemRandom(),
        metrics=lambda: b"headwater_build_info 1\n",
        ssh_checks=SSHChecks(secrets.token_bytes),
        audit=database.audit,
        warnings=lambda: warnings,
    )
    async with TestClient(TestServer(app.build(door))) as client:
        yield House(live, door, client, clock, wells, warnings)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await database.close()


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with open_house() as opened:
        yield opened
