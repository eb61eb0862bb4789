"""The ways a packet can take: direct, through NATs, through the relay only, without any UDP."""

from __future__ import annotations

import asyncio

import pytest

from tests.interop import build
from tests.interop.conftest import Figure
from tests.interop.lab import ECHO_PORT, Lab, Place
from tests.interop.node import Node

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

BOTH = pytest.mark.parametrize("client", build.CLIENTS)

# A hard NAT tells STUN one port and peers another: a direct path would show within this time.
NO_DIRECT_S = 5.0

# Through the relay on one machine: milliseconds, unless somebody waits for a timer.
ROUND_TRIP_S = 0.5


async def exchange_pages(left: Node, right: Node) -> None:
    """Fetch a page each way over both families."""
    await asyncio.gather(left.sees(right.name), right.sees(left.name))
    for near, far in ((left, right), (right, left)):
        v4, v6 = await far.addresses()
        for host in (v4, f"[{v6}]"):
            page = await near.get(f"http://{host}/")
            assert page["node"].startswith(f"{near.name}.")


@BOTH
async def test_relay_carries_everything_while_peers_cannot_send_udp(lab: Lab, client: str) -> None:
    left, right = await asyncio.gather(
        *(lab.join(label, client=client, block_udp="peers") for label in ("relayed-a", "relayed-b"))
    )
    await exchange_pages(left, right)
    v4, _ = await right.addresses()
    path = await left.ping(v4)
    assert not path.direct
    assert path.region == 999


@BOTH
async def test_nodes_without_any_udp_work(lab: Lab, client: str) -> None:
    left, right = await asyncio.gather(
        *(lab.join(label, client=client, block_udp="all") for label in ("tcponly-a", "tcponly-b"))
    )
    await exchange_pages(left, right)
    v4, _ = await right.addresses()
    path = await left.ping(v4)
    assert not path.direct
    assert path.seconds < ROUND_TRIP_S


@BOTH
async def test_easy_nats_are_punched_through(lab: Lab, client: str) -> None:
    left, right = await asyncio.gather(
        *(lab.join(label, client=client, place="easy-nat") for label in ("easy-a", "easy-b"))
    )
    await exchange_pages(left, right)
    v4, _ = await right.addresses()
    path = await left.ping_until_direct(v4)
    # What STUN told: the router's address, not the one behind it.
    assert path.endpoint.startswith("192.0.2.")


async def test_node_behind_a_nat_reaches_a_public_one_directly(lab: Lab) -> None:
    left, right = await asyncio.gather(lab.join("inside", place="easy-nat"), lab.join("outside"))
    await exchange_pages(left, right)
    v4, _ = await right.addresses()
    assert (await left.ping_until_direct(v4)).direct


@pytest.mark.parametrize("other", ["easy-nat", "hard-nat"])
async def test_hard_nat_leaves_the_relay(lab: Lab, other: Place) -> None:
    left, right = await asyncio.gather(
        lab.join("hard-a", place="hard-nat"), lab.join("hard-b", place=other)
    )
    await exchange_pages(left, right)
    v4, _ = await right.addresses()
    with pytest.raises(TimeoutError):
        await left.ping_until_direct(v4, timeout_s=NO_DIRECT_S)
    assert (await left.ping(v4)).region == 999


@BOTH
async def test_stream_moves_from_the_relay_to_the_direct_path(
    lab: Lab, client: str, figure: Figure
) -> None:
    left, right = await asyncio.gather(
        *(lab.join(label, client=client, block_udp="peers") for label in ("moving-a", "moving-b"))
    )
    v4, _ = await right.addresses()
    await left.sees(right.name)
    await left.call("stream_start", name="moving", addr=f"{v4}:{ECHO_PORT}")
    await left.stream_moves("moving")
    assert not (await left.ping(v4)).direct
    for node in (left, right):
        lab.host_of(node).unblock_udp()
    await left.ping_until_direct(v4)
    await left.stream_moves("moving")
    stats = await left.call("stream_stop", name="moving")
    assert stats["failure"] == ""
    assert stats["sent"] == stats["received"] > 0
    figure("longest silence", stats["max_gap_s"])


async def test_node_comes_back_after_its_cable_was_pulled(lab: Lab, figure: Figure) -> None:
    left, right = await asyncio.gather(lab.join("steady"), lab.join("pulled"))
    v4, _ = await right.addresses()
    await left.sees(right.name)
    key = await right.node_key()
    await left.call("stream_start", name="pulled", addr=f"{v4}:{ECHO_PORT}")
    await left.stream_moves("pulled")
    host = lab.host_of(right)
    host.link(up=False)
    with pytest.raises(Exception, match=r"deadline|timed out|ping"):
        await left.ping(v4, "TSMP", timeout_s=2)
    host.link(up=True)
    await left.ping(v4, "TSMP", timeout_s=30)
    await left.stream_moves("pulled")
    stats = await left.call("stream_stop", name="pulled")
    assert stats["failure"] == ""
    assert stats["sent"] == stats["received"] > 0
    assert await right.node_key() == key
    figure("longest silence", stats["max_gap_s"])
