"""What a policy does to stock clients, while they run: who is there, what gets through, which way."""

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
from tests.interop.node import Node, NodeError
from tests.interop.server import ServerFailed
from tests.interop.waiting import until

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

HEARD_S = 1.5
"""A policy is distributed within a second, and the command that sets it takes its part."""
BLOCKED_S = 2.0
"""How long we wait for a page that must not come."""
LENT_S = 2
"""How long an attribute lasts that goes by itself."""
LAN = "10.77.0.0/16"
OWNERS = {"tag:web": [f"{USER}@"], "tag:router": [f"{USER}@"]}
OPEN_RULE = {"action": "accept", "src": ["*"], "dst": ["*:*"]}


@dataclass
class Trio:
    """A laptop of each client release, and a tagged server."""

    lab: Lab
    laptop: Node
    older: Node
    web: Node

    @property
    def nodes(self) -> tuple[Node, Node, Node]:
        """All three."""
        return self.laptop, self.older, self.web

    async def set(self, **policy: object) -> None:
        """Put a policy in force, as an administrator does."""
        file = self.lab.directory / "policy.hujson"
        file.write_text(json.dumps({"tagOwners": OWNERS, **policy}))
        await self.lab.server.said("policy", "set", str(file))


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def trio(lab: Lab) -> Trio:
    """Three nodes that see each other, before any policy."""
    key = await lab.auth_key("--reusable", "--tags", "tag:web")
    laptop, older, web = await asyncio.gather(
        lab.join("laptop", client=build.NEWEST),
        lab.join("older", client=build.YEAR_OLDER),
        lab.join("web", key=key),
    )
    await asyncio.gather(laptop.sees(web.name), older.sees(web.name), web.sees(laptop.name))
    return Trio(lab, laptop, older, web)


async def peers(node: Node) -> dict[str, dict[str, Any]]:
    """The peers that a client lists, by name."""
    found = (await node.status())["Peer"] or {}
    return {peer["DNSName"].split(".")[0]: peer for peer in found.values()}


async def shows(trio: Trio, node: Node, *others: Node) -> bool:
    """Tell whether a client lists just these of the three as peers."""
    listed = await peers(node)
    return [each for each in trio.nodes if each.name in listed] == [
        each for each in trio.nodes if each in others
    ]


async def misses(src: Node, dst: Node, port: int) -> bool:
    """Tell whether a node does not reach a port of another."""
    return not await reaches(src, dst, port)


async def reaches(node: Node, other: Node, port: int) -> bool:
    """Tell whether a page comes over a port."""
    v4, _ = await other.addresses()
    try:
        await node.call("http_get", url=f"http://{v4}:{port}/", timeout_s=BLOCKED_S)
    except NodeError as error:
        # An answer that is no page came all the same.
        return "malformed HTTP" in str(error) or "HTTP/1.x" in str(error)
    return True


async def test_denied_peers_vanish_and_come_back(trio: Trio, figure: Figure) -> None:
    await trio.set(acls=[])
    for node in trio.nodes:
        figure("gone after", await until(lambda n=node: shows(trio, n), HEARD_S))  # type: ignore[misc]  # mypy cannot infer a lambda with a default
    assert not await reaches(trio.laptop, trio.web, 80)
    await trio.set(acls=[OPEN_RULE])
    for node in trio.nodes:
        others = [each for each in trio.nodes if each is not node]
        await until(lambda n=node, o=others: shows(trio, n, *o), HEARD_S)  # type: ignore[misc]  # as above
    await until(lambda: reaches(trio.laptop, trio.web, 80))


async def test_one_port_one_way(trio: Trio) -> None:
    rule = {"action": "accept", "src": [f"{USER}@"], "dst": ["tag:web:80"]}
    await trio.set(acls=[rule])
    for laptop in (trio.laptop, trio.older):
        await until(lambda n=laptop: shows(trio, n, trio.web), HEARD_S)  # type: ignore[misc]  # as above
        await until(lambda n=laptop: reaches(n, trio.web, 80))  # type: ignore[misc]  # as above
        # The test before may have left all open: then both are shown already.
        await until(lambda n=laptop: misses(n, trio.web, 7), HEARD_S)  # type: ignore[misc]  # as above
        await until(lambda n=laptop: misses(trio.web, n, 80), HEARD_S)  # type: ignore[misc]  # as above
        assert await reaches(laptop, trio.web, 80)
    await until(lambda: shows(trio, trio.web, trio.laptop, trio.older), HEARD_S)


async def test_own_devices_only(trio: Trio) -> None:
    rule = {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"]}
    await trio.set(acls=[rule])
    await until(lambda: shows(trio, trio.laptop, trio.older), HEARD_S)
    await until(lambda: shows(trio, trio.older, trio.laptop), HEARD_S)
    await until(lambda: shows(trio, trio.web), HEARD_S)
    await until(lambda: reaches(trio.laptop, trio.older, 7))


async def test_capabilities_reach_the_application(trio: Trio) -> None:
    grant = {
        "src": [f"{USER}@"],
        "dst": ["tag:web"],
        "ip": ["*"],
        "app": {"example.com/cap/shop": [{"may": "buy"}]},
    }
    await trio.set(grants=[grant])
    await until(lambda: shows(trio, trio.laptop, trio.web), HEARD_S)
    v4, _ = await trio.laptop.addresses()

    async def granted() -> bool:
        try:
            who = await trio.web.call("whois", addr=f"{v4}:1")
        except NodeError:
            return False
        return bool(who["CapMap"] == {"example.com/cap/shop": [{"may": "buy"}]})

    await until(granted)


async def test_attributes_come_and_go(trio: Trio) -> None:
    async def has(node: Node, name: str) -> bool:
        return name in ((await node.status())["Self"]["CapMap"] or {})

    attribute = {"target": [f"{USER}@"], "attr": ["randomize-client-port"]}
    await trio.set(acls=[OPEN_RULE], nodeAttrs=[attribute])
    await until(lambda: has(trio.laptop, "randomize-client-port"), HEARD_S)
    assert not await has(trio.web, "randomize-client-port")
    await trio.set(acls=[OPEN_RULE])

    async def lost() -> bool:
        return not await has(trio.laptop, "randomize-client-port")

    await until(lost, HEARD_S)


async def test_a_posture_attribute_opens_until_it_expires(trio: Trio, figure: Figure) -> None:
    rule = {
        "action": "accept",
        "src": [f"{USER}@"],
        "dst": ["tag:web:80"],
        "srcPosture": ["posture:oncall"],
    }
    await trio.set(acls=[rule], postures={"posture:oncall": ["custom:oncall == true"]})
    for laptop in (trio.laptop, trio.older):
        await until(lambda n=laptop: shows(trio, n), HEARD_S)  # type: ignore[misc]  # as above
    give = ("nodes", "attributes", "set", trio.laptop.name, "custom:oncall=true")
    await trio.lab.server.cli(*give)
    await until(lambda: shows(trio, trio.laptop, trio.web), HEARD_S)
    await until(lambda: reaches(trio.laptop, trio.web, 80))
    assert await shows(trio, trio.older)
    await trio.lab.server.cli(*give, "--expires", f"{LENT_S}s")
    began = time.monotonic()
    await until(lambda: shows(trio, trio.laptop), LENT_S + HEARD_S)
    figure("closed after its time", time.monotonic() - began - LENT_S)
    assert not await reaches(trio.laptop, trio.web, 80)
    listed = await trio.lab.server.cli("nodes", "attributes", "list", trio.laptop.name)
    assert "custom:oncall" not in listed["attributes"]


async def test_hidden_ipv4_addresses(trio: Trio) -> None:
    attribute = {"target": ["tag:web"], "attr": ["disable-ipv4"]}
    await trio.set(acls=[OPEN_RULE], nodeAttrs=[attribute])

    async def has(count: int) -> bool:
        found = (await peers(trio.laptop)).get(trio.web.name)
        return found is not None and len(found["TailscaleIPs"]) == count

    await until(lambda: has(1), HEARD_S)
    await trio.set(acls=[OPEN_RULE])
    await until(lambda: has(2), HEARD_S)


async def test_routes_are_approved_steered_and_taken_over(trio: Trio, figure: Figure) -> None:
    lab = trio.lab
    await trio.set(acls=[OPEN_RULE], autoApprovers={"routes": {LAN: ["tag:router"]}})
    key = await lab.auth_key("--reusable", "--tags", "tag:router")
    first, second = [await lab.join(name, key=key) for name in ("first", "second")]
    offered = {"AdvertiseRoutes": [LAN], "AdvertiseRoutesSet": True}

    async def carries(router: Node) -> bool:
        found = (await peers(trio.laptop)).get(router.name, {})
        return LAN in (found.get("AllowedIPs") or ()) and found.get("PrimaryRoutes") == [LAN]

    # Whoever serves a route first carries it, and keeps it.
    await first.call("edit_prefs", prefs=offered)
    await until(lambda: carries(first))
    await second.call("edit_prefs", prefs=offered)

    async def serves(router: Node) -> bool:
        return LAN in (await lab.listed(router))["approvedRoutes"]

    await until(lambda: serves(second))
    assert not await carries(second)
    first.kill()
    figure("taken over after", await until(lambda: carries(second), 30.0))
    assert not await carries(first)


async def test_a_policy_that_fails_its_own_tests_changes_nothing(trio: Trio) -> None:
    await trio.set(acls=[OPEN_RULE])
    await until(lambda: reaches(trio.laptop, trio.web, 80))
    with pytest.raises(ServerFailed, match=r"test\(s\) failed"):
        await trio.set(acls=[], tests=[{"src": f"{USER}@", "accept": ["tag:web:80"]}])
    with pytest.raises(ServerFailed, match="grops"):
        await trio.set(grops={})
    assert await reaches(trio.laptop, trio.web, 80)
    assert trio.web.name in await peers(trio.laptop)
