"""Stock clients ask NextDNS with a name of their own, and change when the policy says so."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.interop import build
from tests.interop.lab import Lab, site
from tests.interop.node import Node

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

URL = "https://dns.nextdns.io/abc123"
HEARD_S = 10.0
POLL_S = 0.05


async def resolver(node: Node) -> str:
    """The resolver that a client was told for everything outside of the tailnet."""
    told = await node.call("dns_config")
    (only,) = told["Resolvers"]
    return str(only["Addr"])


async def hears(node: Node, address: str) -> None:
    """Wait until a client was told an address."""
    async with asyncio.timeout(HEARD_S):
        while await resolver(node) != address:
            await asyncio.sleep(POLL_S)


async def test_each_client_is_told_its_own_nextdns(empty_lab: Lab) -> None:
    lab = empty_lab
    dns = {"override_local_dns": True, "nameservers": {"global": [URL]}}
    await lab.serve(site(lab.directory, dns=dns))
    laptop, older = await asyncio.gather(
        lab.join("laptop"), lab.join("older", client=build.YEAR_OLDER)
    )
    query = {}
    for node in (laptop, older):
        v4, _ = await node.addresses()
        query[node] = f"device_name={node.name}&device_model=linux&device_ip={v4}"
        await hears(node, f"{URL}?{query[node]}")

    v4, _ = await older.addresses()
    file = lab.directory / "policy.hujson"
    attributes = [
        {"target": ["*"], "attr": ["nextdns:def456"]},
        {"target": [v4], "attr": ["nextdns:no-device-info"]},
    ]
    file.write_text(json.dumps({"nodeAttrs": attributes}))
    await lab.server.said("policy", "set", str(file))
    await hears(laptop, f"https://dns.nextdns.io/def456?{query[laptop]}")
    await hears(older, "https://dns.nextdns.io/def456")
