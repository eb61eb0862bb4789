"""The API over a live tailnet with SQLite in memory."""

from __future__ import annotations

import asyncio
import json
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import datetime
from random import SystemRandom
from typing import Any

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from appliance.api import app, public
from appliance.api.door import Door
from appliance.api.gate import Gate
from appliance.identity.principals import LOCAL
from appliance.identity.sshchecks import SSHChecks
from appliance.identity.tokens import Seal
from appliance.live import LiveTailnet, LiveTailnets
from appliance.live.policy import PolicyKeeper, PolicySource
from appliance.records import Node, Role, UserID
from appliance.store.store import Database
from appliance.tailnet import enrolment, keys, users
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg
from tests.support.builder import machine_key, node_key
from tests.support.clock import NOON, Clock, fixed_rng
from tests.support.waitinglogins import logins_of

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

    tailnets = LiveTailnets([live])
    door = Door(
        tailnets=tailnets,
        policies={live.id: PolicyKeeper(live, PolicySource())},
        database_trouble=trouble,
        random_bytes=secrets.token_bytes,
        rng=SystemRandom(),
        metrics=lambda: b"headwater_build_info 1\n",
        ssh_checks=SSHChecks(secrets.token_bytes),
        logins=logins_of(tailnets),
        base_url="https://control.example",
        audit=database.audit,
        warnings=lambda: warnings,
    )
    async with TestClient(TestServer(app.build(door))) as client:
        yield House(live, door, client, clock, wells, warnings)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await database.close()


@dataclass
class Remote:
    """The API as it is over the network, with its clock."""

    house: House
    gate: Gate
    client: Browser
    ticks: list[float]

    async def call(
        self, method: str, path: str, key: str = "", body: object = None, **headers: str
    ) -> tuple[int, Any]:
        """Make a call with a key; give status and body, decoded where it is JSON."""
        if key:
            headers["Authorization"] = f"Bearer {key}"
        async with self.client.request(method, path, json=body, headers=headers) as response:
            text = await response.text()
            is_json = response.content_type.endswith("json")
            return response.status, json.loads(text) if is_json else text

    async def key(self, **body: object) -> str:
        """Make an API key over the local socket; give its text."""
        status, answer = await self.house.call("POST", "/api/v1/apikey", body)
        assert status == 200, answer
        text: str = answer["apiKey"]
        return text

    async def key_of(self, name: str, role: Role, **body: object) -> str:
        """Make a key of a user with a role."""
        user_id = await self.house.user(name)
        async with self.house.live.edit(by=LOCAL, act="test.change") as edit:
            users.set_role(edit, user_id, role)
        return await self.key(user=str(user_id), **body)


@asynccontextmanager
async def open_remote(house: House, source: str = "192.0.2.7") -> AsyncIterator[Remote]:
    """Serve the API of a house as the main listener does, for callers from one address."""

    @web.middleware
    async def from_afar(
        request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        return await handler(request.clone(remote=request.headers.get("X-Test-Source", source)))

    ticks = [0.0]
    seal = Seal(b"s" * 32)
    gate = Gate(house.door, seal, clock=lambda: ticks[-1])
    site = public.build(house.door, machine_key("the server"))
    site.middlewares.insert(0, from_afar)
    app.add_remote(site, house.door, gate, seal)
    async with TestClient(TestServer(site)) as client:
        yield Remote(house, gate, client, ticks)


@pytest.fixture
async def remote(house: House) -> AsyncIterator[Remote]:
    async with open_remote(house) as opened:
        yield opened


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with open_house() as opened:
        yield opened
