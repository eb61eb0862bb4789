"""The stock daemon without a key: `tailscale up`, a link, an administrator, and again."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.interop.daemon import Daemon
from tests.interop.server import Server
from tests.support.ports import free_port

pytestmark = [pytest.mark.interop, pytest.mark.usefixtures("stock_clients")]

POLICY = {
    "tagOwners": {"tag:web": ["alice@"]},
    "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],
}


class House:
    """A server on loopback, with two users."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.port = free_port()
        self.url = f"https://127.0.0.1:{self.port}"
        self.ending = AsyncExitStack()
        self.ca_file = directory / "state" / "tls" / "ca.pem"

    async def serve(self) -> Server:
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
        }
        file = self.directory / "site.json"
        file.write_text(json.dumps(site))
        self.server = Server.from_site(file, ca_file=self.ca_file)
        await self.server.start()
        self.ending.push_async_callback(self.server.stop)
        for name in ("alice", "bob"):
            await self.server.cli("users", "create", name)
        return self.server

    async def daemon(self, name: str) -> Daemon:
        env = {"SSL_CERT_FILE": str(self.ca_file)}
        return await self.ending.enter_async_context(Daemon(self.directory / name, env))

    async def register(self, link: str, user: str) -> Any:
        return await self.server.cli("auth", "register", "--user", user, "--auth-id", link)

    async def nodes(self) -> dict[str, Any]:
        return {str(n["id"]): n for n in await self.server.cli("nodes", "list")}


@pytest.fixture
async def house(tmp_path: Path) -> AsyncIterator[House]:
    made = House(tmp_path)
    try:
        await made.serve()
        yield made
    finally:
        await made.ending.aclose()


async def test_device_goes_on_by_itself_and_comes_back_as_itself(house: House) -> None:
    """C17, C18, C19: approval by the command line, the same user again, another user, the first again."""
    daemon = await house.daemon("laptop")
    link = await daemon.up(house.url, "--hostname=laptop")
    assert link.startswith(f"{house.url}/register/hskey-authreq-")
    await house.register(link, "alice")
    first = await daemon.until_state("Running")
    assert await daemon.ended() == 0
    (alices,) = await house.nodes()

    await daemon.run("logout")
    await house.register(await daemon.up(house.url, "--hostname=laptop"), "alice")
    again = await daemon.until_state("Running")
    assert set(await house.nodes()) == {alices}
    assert again["Self"]["TailscaleIPs"] == first["Self"]["TailscaleIPs"]
    assert again["Self"]["PublicKey"] != first["Self"]["PublicKey"]

    await daemon.run("logout")
    await house.register(await daemon.up(house.url, "--hostname=laptop"), "bob")
    bobs = await daemon.until_state("Running")
    assert len(await house.nodes()) == 2
    assert bobs["Self"]["TailscaleIPs"] != first["Self"]["TailscaleIPs"]

    await daemon.run("logout")
    await house.register(await daemon.up(house.url, "--hostname=laptop"), "alice")
    back = await daemon.until_state("Running")
    assert len(await house.nodes()) == 2
    assert back["Self"]["TailscaleIPs"] == first["Self"]["TailscaleIPs"]


async def test_expired_device_logs_in_again_and_keeps_its_node(house: House) -> None:
    daemon = await house.daemon("laptop")
    await house.register(await daemon.up(house.url), "alice")
    first = await daemon.until_state("Running")
    (node,) = await house.nodes()
    await house.server.cli("nodes", "expire", "-i", node)
    await daemon.until_state("NeedsLogin")
    await house.register(await daemon.up(house.url, "--force-reauth"), "alice")
    again = await daemon.until_state("Running")
    assert set(await house.nodes()) == {node}
    assert again["Self"]["TailscaleIPs"] == first["Self"]["TailscaleIPs"]


async def test_tags_that_a_login_asks_for_are_given_by_their_owner(house: House) -> None:
    daemon = await house.daemon("srv")
    await house.register(await daemon.up(house.url, "--advertise-tags=tag:web"), "alice")
    await daemon.until_state("Running")
    (node,) = (await house.nodes()).values()
    assert node["tags"] == ["tag:web"]


async def test_refused_device_is_told_so_and_restart_of_the_server_gives_a_new_link(
    house: House,
) -> None:
    daemon = await house.daemon("laptop")
    link = await daemon.up(house.url)
    await house.server.cli("auth", "reject", "--auth-id", link)
    assert not await house.nodes()
    other = await house.daemon("phone")
    old = await other.up(house.url)
    await house.server.stop()
    await house.server.start()
    new = await other.up(house.url)
    assert new != old
    await house.register(new, "bob")
    await other.until_state("Running")
