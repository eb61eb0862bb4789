"""Stock clients whose node was deleted: they say that they are logged out, and do not hammer.

B9 and real clients 5: such a client stayed "Running" with all its peers, asked for its map for as
long as it ran, and each of its tries was a line in the server's log.
"""

from __future__ import annotations

import asyncio
import time

import pytest

from tests.interop import build
from tests.interop.lab import Lab
from tests.interop.node import Node

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

LOOKS = 20
"""Times that a client's state is asked for: it must stay what it is."""


async def delete(lab: Lab, node: Node) -> float:
    """Delete the node; return when."""
    began = time.time()
    await lab.server.cli("nodes", "delete", "-i", node.name, "--force")
    return began


def refusals(lab: Lab) -> list[str]:
    return [line for line in lab.server.log_tail(10_000).splitlines() if "map refused" in line]


async def is_logged_out(lab: Lab, node: Node, *, since: float) -> None:
    """Assert that the client says so, keeps to it, and leaves the server in peace."""
    before = len(refusals(lab))
    await node.event("state", lambda event: event["state"] == "NeedsLogin", since=since)
    for _ in range(LOOKS):
        status = await node.status()
        assert status["BackendState"] == "NeedsLogin"
        await asyncio.sleep(0.2)  # real time, as a person who looks at it
    assert not (await node.status())["Peer"]
    assert len(refusals(lab)) - before <= 1, "one line, not one for each try"


async def comes_back(lab: Lab, node: Node, other: Node) -> None:
    """Log in again with a key: a new node, which others see."""
    began = time.time()
    await node.call("login", auth_key=await lab.auth_key())
    await node.event("state", lambda event: event["state"] == "Running", since=began)
    await other.sees(node.name)
    assert (await node.status())["BackendState"] == "Running"


@pytest.mark.parametrize("client", build.CLIENTS)
async def test_node_that_is_deleted_while_it_is_connected(lab: Lab, client: str) -> None:
    node, other = await asyncio.gather(lab.join("gone", client=client), lab.join("stays"))
    await node.sees(other.name)
    began = await delete(lab, node)
    await is_logged_out(lab, node, since=began)
    await comes_back(lab, node, other)


@pytest.mark.parametrize("client", build.CLIENTS)
async def test_node_that_is_deleted_while_it_is_away(lab: Lab, client: str) -> None:
    # A key for one node: with a reusable one these clients enrol again by themselves.
    key = await lab.auth_key("--expiration", "1h")
    node = await lab.join("away", client=client, key=key)
    other = await lab.join("stays")
    await node.sees(other.name)
    await node.call("down")
    began = await delete(lab, node)
    await node.call("resume")
    await is_logged_out(lab, node, since=began)
    await comes_back(lab, node, other)


async def test_node_that_is_deleted_while_the_server_is_down(lab: Lab) -> None:
    """The client only notices that its poll ended; it never hears of a last map."""
    node, other = await asyncio.gather(lab.join("later"), lab.join("stays"))
    await node.sees(other.name)
    await lab.server.stop()
    await lab.server.start()
    began = await delete(lab, node)
    await is_logged_out(lab, node, since=began)
    await comes_back(lab, node, other)
