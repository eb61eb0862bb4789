"""The server goes away and comes back under traffic, and the nodes hardly notice."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.interop import build
from tests.interop.conftest import Figure
from tests.interop.lab import ECHO_PORT, Lab
from tests.interop.node import Node

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

BACK_S = 30.0
"""Clients come back with back-off; what takes longer is not waiting but lost."""


@dataclass
class Traffic:
    """Two pairs, one of each client release each: one on the direct path, one on the relay."""

    lab: Lab
    direct: tuple[Node, Node]
    relayed: tuple[Node, Node]

    @property
    def pairs(self) -> dict[str, tuple[Node, Node]]:
        """The pairs by the name of their stream."""
        return {"direct": self.direct, "relayed": self.relayed}

    @property
    def nodes(self) -> tuple[Node, ...]:
        """Everybody."""
        return self.direct + self.relayed


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def traffic(lab: Lab) -> Traffic:
    """Four nodes that see one another."""
    one, two, three, four = await asyncio.gather(
        *(lab.join(f"direct{i}", client=client) for i, client in enumerate(build.CLIENTS)),
        *(
            lab.join(f"relayed{i}", client=client, block_udp="peers")
            for i, client in enumerate(build.CLIENTS)
        ),
    )
    made = Traffic(lab, (one, two), (three, four))
    for left, right in made.pairs.values():
        await asyncio.gather(left.sees(right.name), right.sees(left.name))
    return made


async def identities(nodes: tuple[Node, ...]) -> list[tuple[str, list[str]]]:
    """What must be the same afterwards."""
    found = await asyncio.gather(*(node.status() for node in nodes))
    return [(status["Self"]["PublicKey"], status["TailscaleIPs"]) for status in found]


async def in_session(lab: Lab, nodes: tuple[Node, ...]) -> None:
    """Wait until the server says of each node that it is connected."""
    names = {node.name for node in nodes}
    ends = time.monotonic() + BACK_S
    while time.monotonic() < ends:
        rows = await lab.server.cli("nodes", "list")
        if names <= {row["givenName"] for row in rows if row["online"]}:
            return
    raise TimeoutError(f"not all of {names} came back in {BACK_S} s: {rows}")


async def start_streams(traffic: Traffic) -> None:
    """Start an echo stream on each pair, and see that it takes the way it should."""
    for name, (left, right) in traffic.pairs.items():
        v4, _ = await right.addresses()
        if name == "direct":
            await left.ping_until_direct(v4)
        else:
            assert not (await left.ping(v4)).direct
        await left.call("stream_start", name=name, addr=f"{v4}:{ECHO_PORT}")


async def moving(traffic: Traffic) -> None:
    """Wait until each stream has brought back something new."""

    await asyncio.gather(
        *(pair[0].stream_moves(name, timeout_s=BACK_S) for name, pair in traffic.pairs.items())
    )


@pytest.mark.parametrize("how", ["restart", "kill -9"])
async def test_streams_survive_and_nobody_enrols_again(
    traffic: Traffic, how: str, figure: Figure
) -> None:
    lab = traffic.lab
    before = await identities(traffic.nodes)
    await start_streams(traffic)
    await moving(traffic)
    began = time.time()
    if how == "restart":
        await lab.server.stop()
    else:
        await lab.server.kill()
    await lab.server.start()
    figure("server back after", time.time() - began)
    await asyncio.gather(in_session(lab, traffic.nodes), moving(traffic))
    figure("all in session after", time.time() - began)
    for name, (left, _) in traffic.pairs.items():
        stats = await left.call("stream_stop", name=name)
        assert stats["failure"] == "", f"{name}: {stats}"
        assert stats["sent"] == stats["received"] > 0
        figure(f"{name}: longest silence", stats["max_gap_s"])
    assert await identities(traffic.nodes) == before
    for node in traffic.nodes:
        # Neither a new key nor a state other than Running: only the map session was renewed.
        later = [
            event for event in node.events if event["event"] == "state" and event["at"] > began
        ]
        assert [event["state"] for event in later if event["state"] != "Running"] == []
    newcomer = await lab.join("newcomer")
    for node in traffic.nodes:
        await node.sees(newcomer.name)


async def test_nodes_work_on_while_there_is_no_server(traffic: Traffic, figure: Figure) -> None:
    lab = traffic.lab
    left, right = traffic.direct
    v4, _ = await right.addresses()
    await left.ping_until_direct(v4)
    began = time.time()
    await lab.server.stop()
    figure("stopped in", time.time() - began)
    try:
        page = await left.get(f"http://{v4}/")
        assert page["node"].startswith(left.name)
        assert await left.resolve(f"{right.name}.tail.test.", "A") == [v4]
    finally:
        began = time.time()
        await lab.server.start()
    await in_session(lab, traffic.nodes)
    figure("all in session after", time.time() - began)
