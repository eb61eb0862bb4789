"""People sign in with providers of others, and the stock daemon comes up as theirs."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.interop.build import NEWEST, Unavailable, node_binary
from tests.interop.daemon import Daemon
from tests.interop.node import Node
from tests.interop.openid import providers
from tests.interop.openid.providers import CLIENT_ID, CLIENT_SECRET, Running
from tests.interop.server import Server
from tests.support.browser import Browser, Page
from tests.support.ports import free_port

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("stock_clients")]

POLICY = {
    "tagOwners": {"tag:web": ["autogroup:admin"]},
    "grants": [{"src": ["group:engineers"], "dst": ["tag:web"], "ip": ["*"]}],
}


class House:
    """A server with one provider, on loopback."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.redirect = f"{self.url}/oidc/callback"
        self.logout = f"{self.url}/oidc/backchannel/company"
        self.ending = AsyncExitStack()
        self.server: Server | None = None
        self.provider: Running | None = None

    @property
    def ca_file(self) -> Path:
        return self.directory / "state" / "tls" / "ca.pem"

    async def serve(self, provider: Running, **oidc: Any) -> Server:
        self.provider = provider
        secret = self.directory / "oidc-secret"
        secret.write_text(CLIENT_SECRET + "\n")
        section = {
            "name": "company",
            "issuer": provider.issuer,
            "client_id": CLIENT_ID,
            "client_secret_file": str(secret),
            "scopes": list(provider.scopes),
            **oidc,
        }
        site = {
            "server_url": self.url,
            "listen": [f"127.0.0.1:{self.port}"],
            "state_dir": str(self.directory / "state"),
            "socket": {"path": str(self.directory / "headwater.sock")},
            "tls": {"mode": "local_ca"},
            "tailnet": {
                "base_domain": "tail.test",
                "policy": {"mode": "settings", "document": POLICY},
            },
            "derp": {"server": {"ipv4": "127.0.0.1", "stun_listen": [f"127.0.0.1:{free_port()}"]}},
            "oidc": [section],
        }
        file = self.directory / "site.json"
        file.write_text(json.dumps(site))
        self.server = Server.from_site(file, ca_file=self.ca_file)
        await self.server.start()
        self.ending.push_async_callback(self.server.stop)
        return self.server

    async def daemon(self, name: str) -> Daemon:
        env = {"SSL_CERT_FILE": str(self.ca_file)}
        return await self.ending.enter_async_context(Daemon(self.directory / name, env))

    async def browser(self) -> Browser:
        assert self.provider is not None
        trusted = self.provider.issuer
        return await self.ending.enter_async_context(
            Browser(ca_file=str(self.ca_file), trusted=trusted)
        )

    async def sign_in(self, browser: Browser, page: Page, user: str) -> Page:
        """Go from a page of ours through the provider's, and back."""
        assert self.provider is not None
        page = await browser.get(page.link("Sign in with company"))
        if not page.url.startswith(self.url):
            page = await self.provider.sign_in(browser, page, user)
        return page

    async def connect(self, browser: Browser, page: Page) -> Page:
        form = next(form for form in page.forms if form.action.endswith("/connect"))
        return await browser.send(page, form)

    async def join(self, daemon: Daemon, browser: Browser, user: str, *flags: str) -> Page:
        """Let a daemon in as a user, from `tailscale up` to Running."""
        page = await browser.get(await daemon.up(self.url, *flags))
        page = await self.sign_in(browser, page, user)
        page = await self.connect(browser, page)
        await daemon.until_state("Running")
        assert await daemon.ended() == 0
        return page


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    try:
        yield made
    finally:
        await made.ending.aclose()


@pytest.mark.parametrize("name", ["oidc_provider", "keycloak", "canaille"])
async def test_a_person_brings_a_device(house: House, name: str) -> None:
    try:
        provider = await house.ending.enter_async_context(
            getattr(providers, name)(
                house.redirect, *([house.logout] if name != "canaille" else [])
            )
        )
    except Unavailable as reason:
        pytest.skip(f"PROVIDER IS NOT HERE: {reason}")
    server = await house.serve(provider, email_verified_required=name != "canaille")
    web_key = (await server.cli("preauthkeys", "create", "--tags", "tag:web"))["key"]
    env = {"SSL_CERT_FILE": str(house.ca_file)}
    web = await Node.start(node_binary(NEWEST), "web", house.directory / "web", env=env)
    house.ending.push_async_callback(web.close)
    await web.up(house.url, web_key)

    daemon, browser = await house.daemon("laptop"), await house.browser()
    await house.join(daemon, browser, "alice", "--hostname=laptop")
    (laptop,) = [n for n in await server.cli("nodes", "list") if n["givenName"] == "laptop"]
    assert laptop["user"]["email"] == "alice@example.com"
    status = await daemon.status()
    assert status["User"][str(status["Self"]["UserID"])]["LoginName"] == "alice@example.com"
    # Of the provider's group, so that the policy shows the two to each other.
    await web.sees("laptop")

    if name != "oidc_provider":
        return
    # Another person, in another browser, is not of that group.
    phone, other = await house.daemon("phone"), await house.browser()
    await house.join(phone, other, "bob", "--hostname=phone")
    peers = (await phone.status()).get("Peer") or {}
    assert all(peer["HostName"] != "web" for peer in peers.values())
