"""The pages behind a server for tests, and a browser that keeps its cookies and follows the rules."""

from __future__ import annotations

import asyncio
import re
import secrets
from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import UTC, datetime
from html import unescape
from http.cookies import SimpleCookie
from random import SystemRandom
from types import MappingProxyType

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from appliance.console import app
from appliance.console.door import Console
from appliance.console.visits import PageHandler, Visit, page
from appliance.identity.passkeys import Passkeys
from appliance.identity.principals import LOCAL
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnet, LiveTailnets
from appliance.live.logins import LiveLogins
from appliance.records import Role, User
from appliance.store.store import Database
from appliance.tailnet import users
from appliance.tailnet.snapshot import Snapshot
from tests.support.clock import NOON, Clock

NOTHING: Mapping[str, str] = MappingProxyType({})
BASE_URL = "https://hw.example.com"
Client = TestClient[web.Request, web.Application]


@dataclass
class Answer:
    """What a browser got."""

    status: int
    text: str
    headers: Mapping[str, str]

    @property
    def location(self) -> str:
        """Where it was sent on to."""
        return self.headers.get("Location", "")

    @property
    def words(self) -> str:
        """What a person reads."""
        body = re.sub(r"(?s)<(script|style).*?</\1>|<[^>]+>", " ", self.text)
        return unescape(" ".join(body.split()))

    @property
    def token(self) -> str:
        """What its forms carry."""
        found = re.search(r'name="csrf" value="([0-9a-f]+)"', self.text)
        return "" if found is None else found[1]


@dataclass
class Browser:
    """A browser: cookies, the headers that say where a request comes from, forms."""

    client: Client
    cookies: dict[str, str] = field(default_factory=dict)
    attributes: dict[str, str] = field(default_factory=dict)
    """How each cookie was set, for tests of that."""
    last: Answer | None = None

    async def get(self, path: str, headers: Mapping[str, str] = NOTHING) -> Answer:
        return await self._ask("GET", path, headers, None)

    async def post(
        self,
        path: str,
        fields: dict[str, str] | None = None,
        *,
        token: str | None = None,
        headers: Mapping[str, str] = NOTHING,
    ) -> Answer:
        """Send the form of the page that was seen last."""
        given = token if token is not None else (self.last.token if self.last else "")
        data = {"csrf": given, **(fields or {})}
        return await self._ask("POST", path, {"Sec-Fetch-Site": "same-origin", **headers}, data)

    async def _ask(
        self, method: str, path: str, headers: Mapping[str, str], data: dict[str, str] | None
    ) -> Answer:
        sent = {name: value for name, value in headers.items() if value}
        if self.cookies:
            sent["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.cookies.items())
        async with self.client.request(
            method, path, headers=sent, data=data, allow_redirects=False
        ) as response:
            text = await response.text()
            for line in response.headers.getall("Set-Cookie", []):
                for name, morsel in SimpleCookie(line).items():
                    self.attributes[name] = line
                    self.cookies[name] = morsel.value
                    if morsel["max-age"] == "0":
                        del self.cookies[name]
            self.last = Answer(response.status, text, response.headers)
        return self.last


@dataclass
class House:
    """A tailnet whose pages are open."""

    live: LiveTailnet
    console: Console
    client: Client
    clock: Clock
    ways: dict[str, PageHandler] = field(default_factory=dict)
    """What tests want to be done in the name of a browser, by the last part of the path."""

    def browser(self) -> Browser:
        return Browser(self.client)

    async def user(self, name: str, role: Role = Role.MEMBER) -> User:
        """Add a user, or find the one of that name."""
        found = users.find(self.live.snapshot, name=name)
        if found:
            return found[0]
        async with self.live.edit(by=LOCAL, act="test.change") as edit:
            return users.create(edit, name, self.clock(), role=role)


@pytest.fixture
async def house() -> AsyncIterator[House]:
    async with open_house() as opened:
        yield opened


@asynccontextmanager
async def open_house(base_url: str = BASE_URL, port: int | None = None) -> AsyncIterator[House]:
    """Open the pages; a real browser needs the port that its address says, and the time of today."""
    database = Database.open("sqlite://")
    await database.migrate()
    _, ids = await database.load()
    record = await database.create_tailnet(
        ids, name="default", domain="tailnet.internal", created_at=NOON
    )
    clock = Clock(NOON if port is None else datetime.now(UTC))
    live = LiveTailnet(Snapshot(tailnet=record), database, ids, clock=clock)
    running = asyncio.create_task(live.run())
    tailnets = LiveTailnets([live])
    console = Console(
        tailnets=tailnets,
        base_url=base_url,
        random_bytes=secrets.token_bytes,
        rng=SystemRandom(),
        logins=LiveLogins(tailnets, base_url, random_bytes=secrets.token_bytes, rng=SystemRandom()),
        ssh_checks=SSHChecks(secrets.token_bytes),
        passkeys=Passkeys(base_url, secrets.token_bytes),
        monotonic=lambda: clock().timestamp(),
    )
    site = web.Application()
    app.add_to(site, console)
    ways: dict[str, PageHandler] = {}

    async def of_a_test(visit: Visit) -> web.Response:
        return await ways[visit.request.match_info["name"]](visit)

    site.router.add_get("/test/{name}", page(of_a_test))
    async with TestClient(TestServer(site, port=port)) as client:
        yield House(live, console, client, clock, ways)
    running.cancel()
    with suppress(asyncio.CancelledError):
        await running
    await database.close()
