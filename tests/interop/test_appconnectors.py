"""A stock client that offers itself as app connector, and another that is told to ask it."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from tests.interop import build
from tests.interop.lab import Lab
from tests.interop.node import Node

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

DOMAIN = "wiki.example.com"
HEARD_S = 10.0
POLL_S = 0.05


def policy(ports: str, tag: str) -> dict[str, Any]:
    app = {"domains": [DOMAIN], "connectors": [tag]}
    return {
        "tagOwners": {tag: []},
        "grants": [{"src": ["*"], "dst": ["*"], "ip": [ports]}],
        "nodeAttrs": [{"target": ["*"], "app": {"tailscale.com/app-connectors": [app]}}],
    }


async def route(node: Node) -> str | None:
    """Where a client was told to ask for the domain."""
    told = await node.call("dns_config")
    resolvers = (told["Routes"] or {}).get(DOMAIN)
    return None if not resolvers else str(resolvers[0]["Addr"])


async def becomes(node: Node, *, is_told: bool) -> str:
    async with asyncio.timeout(HEARD_S):
        while ((url := await route(node)) is not None) != is_told:
            await asyncio.sleep(POLL_S)
    return url or ""


@pytest.mark.parametrize("client", build.CLIENTS)
async def test_others_are_told_to_ask_the_connector_while_it_would_answer(
    lab: Lab, client: str
) -> None:
    """Real clients 6: the domains reached the connector alone."""
    file = lab.directory / "policy.hujson"
    tag = f"tag:connector-{client.replace('.', '-')}"

    async def put(ports: str) -> None:
        file.write_text(json.dumps(policy(ports, tag)))
        await lab.server.said("policy", "set", "-f", str(file))

    await put("*")
    key = await lab.auth_key("--reusable", "--tags", tag)
    connector = await lab.join("connector", client=client, key=key)
    laptop = await lab.join("laptop", client=client)
    assert await route(laptop) is None
    prefs = {"AppConnector": {"Advertise": True}, "AppConnectorSet": True}
    await connector.call("edit_prefs", prefs=prefs)
    url = await becomes(laptop, is_told=True)
    v4, _ = await connector.addresses()
    assert url.startswith(f"http://{v4}:")
    answered = await laptop.call("http_get", url=f"{url}?q={DOMAIN}")
    assert answered["status"] != 403
    await put("tcp:80")
    await becomes(laptop, is_told=False)
