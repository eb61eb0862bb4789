"""SSH between stock clients under a policy: accepted, refused, and checked with a person's help.

The clients' own SSH server decides; our node program logs in and says what it was told. Sessions
themselves need the daemon's helper program and are not begun.
"""

from __future__ import annotations

import asyncio
import json
import time
from dataclasses import dataclass
from typing import Any

import pytest
import pytest_asyncio

from tests.interop import build
from tests.interop.conftest import Figure
from tests.interop.lab import USER, Lab
from tests.interop.node import Node
from tests.interop.waiting import until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

HELD_S = 20.0
OWNERS = {"tag:web": [f"{USER}@"]}
OPEN_RULE = {"action": "accept", "src": ["*"], "dst": ["*:*"]}
ACCEPT = {"action": "accept", "src": [f"{USER}@"], "dst": ["tag:web"], "users": ["root"]}
CHECK = {**ACCEPT, "action": "check"}


@dataclass
class House:
    """A laptop, and an SSH server of each client release."""

    lab: Lab
    laptop: Node
    servers: dict[str, Node]

    async def rule(self, *rules: dict[str, Any]) -> None:
        """Put SSH rules in force."""
        file = self.lab.directory / "policy.hujson"
        file.write_text(json.dumps({"tagOwners": OWNERS, "acls": [OPEN_RULE], "ssh": rules}))
        await self.lab.server.said("policy", "set", str(file))

    async def login(self, client: str, user: str = "root") -> dict[str, Any]:
        """Log in at the SSH server of a release; give what it said."""
        v4, _ = await self.servers[client].addresses()
        answer: dict[str, Any] = await self.laptop.call("ssh_login", addr=f"{v4}:22", user=user)
        return answer

    async def pending(self) -> list[dict[str, Any]]:
        """Give the logins that wait."""
        found: list[dict[str, Any]] = await self.lab.server.cli("ssh", "pending")
        return found

    async def held(self, client: str) -> tuple[asyncio.Task[dict[str, Any]], dict[str, Any]]:
        """Log in where that is checked, and wait until it waits.

        A node that has not heard of the policy yet decides by the one before; then once more.
        """
        waiting = asyncio.create_task(self.login(client))
        async with asyncio.timeout(HELD_S):
            while not (found := await self.pending()):
                if waiting.done():
                    waiting = asyncio.create_task(self.login(client))
        [check] = found
        assert check["source"] == self.laptop.name
        assert check["destination"] == self.servers[client].name
        assert check["localUser"] == "root"
        assert not waiting.done()
        return waiting, check


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def house(lab: Lab) -> House:
    """Three nodes, two of which have their SSH server on."""
    key = await lab.auth_key("--reusable", "--tags", "tag:web")
    laptop, newest, older = await asyncio.gather(
        lab.join("laptop"),
        lab.join("newest", key=key),
        lab.join("older", key=key, client=build.YEAR_OLDER),
    )
    servers = {build.NEWEST: newest, build.YEAR_OLDER: older}
    for server in servers.values():
        await laptop.sees(server.name)
        await server.sees(laptop.name)
        await server.call("edit_prefs", prefs={"RunSSH": True, "RunSSHSet": True})
    return House(lab, laptop, servers)


@pytest.mark.parametrize("client", build.CLIENTS)
async def test_accept_and_refuse(house: House, client: str) -> None:
    await house.rule(ACCEPT)

    async def accepted() -> bool:
        return bool((await house.login(client))["accepted"])

    await until(accepted)
    answer = await house.login(client, user="daemon")
    assert not answer["accepted"]
    assert "does not permit" in answer["said"]
    await house.rule()

    async def refused() -> bool:
        return not (await house.login(client))["accepted"]

    await until(refused)


@pytest.mark.parametrize("client", build.CLIENTS)
async def test_checked_login_waits_for_a_person(house: House, client: str, figure: Figure) -> None:
    await house.rule(CHECK)
    waiting, check = await house.held(client)
    await house.lab.server.cli("auth", "reject", "--auth-id", check["id"])
    answer = await waiting
    assert not answer["accepted"]
    assert f"headwater ssh approve {check['id']}" in answer["said"]
    assert "this login was denied" in answer["said"]

    waiting, check = await house.held(client)
    began = time.monotonic()
    await house.lab.server.cli("ssh", "approve", check["id"])
    answer = await waiting
    figure("let in after", time.monotonic() - began)
    assert answer["accepted"], answer
    # Within the period further logins pass silently.
    assert await house.login(client) == {"accepted": True, "said": ""}
    assert await house.pending() == []


async def test_restart_of_the_server_asks_again(house: House) -> None:
    await house.rule({**CHECK, "checkPeriod": "always"})
    client = build.NEWEST
    waiting, before = await house.held(client)
    await house.lab.server.stop()
    await house.lab.server.start()
    await until(house.pending, 30.0)
    [check] = await house.pending()
    assert check["id"] != before["id"]
    await house.lab.server.cli("ssh", "approve", check["id"])
    answer = await waiting
    assert answer["accepted"], answer
    assert before["id"] in answer["said"]
    assert check["id"] in answer["said"]
