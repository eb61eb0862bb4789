"""Two stock clients with a pre-auth key: they see, reach, resolve and know one another."""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.interop import build
from tests.interop.conftest import Figure
from tests.interop.lab import USER, Lab
from tests.interop.node import Node, NodeError

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

MIXED = "mixed"


@dataclass
class Pair:
    """Two nodes that are up, and how long joining took."""

    lab: Lab
    left: Node
    right: Node
    join_seconds: float


@pytest_asyncio.fixture(
    scope="module", loop_scope="module", params=[build.NEWEST, build.YEAR_OLDER, MIXED]
)
async def pair(lab: Lab, request: pytest.FixtureRequest) -> Pair:
    """A pair of the newest clients, of those a year older, and one of each."""
    clients = build.CLIENTS if request.param == MIXED else (request.param, request.param)
    began = time.monotonic()
    left, right = await asyncio.gather(
        *(
            lab.join(label, client=client)
            for label, client in zip(("left", "right"), clients, strict=True)
        )
    )
    seconds = time.monotonic() - began
    await asyncio.gather(left.sees(right.name), right.sees(left.name))
    return Pair(lab, left, right, seconds)


def fqdn(node: Node) -> str:
    """The MagicDNS name that a node has in the lab."""
    return f"{node.name}.tail.test"


async def test_pair_enrols_and_sees_each_other_by_name(pair: Pair, figure: Figure) -> None:
    figure("both joined in", pair.join_seconds)
    for node in (pair.left, pair.right):
        status = await node.status()
        assert status["BackendState"] == "Running"
        assert status["Self"]["DNSName"] == f"{fqdn(node)}."
        assert status["CurrentTailnet"]["MagicDNSSuffix"] == "tail.test"
        listed = await pair.lab.listed(node)
        assert listed["online"] is True
        assert sorted(listed["ipAddresses"]) == sorted(status["TailscaleIPs"])


async def test_pair_gets_one_address_of_each_family(pair: Pair) -> None:
    for node in (pair.left, pair.right):
        v4, v6 = await node.addresses()
        assert v4.startswith("100.")
        assert v6.startswith("fd7a:115c:a1e0:")


async def test_pages_come_by_name_and_over_both_families(pair: Pair) -> None:
    for near, far in ((pair.left, pair.right), (pair.right, pair.left)):
        own = await near.addresses()
        v4, v6 = await far.addresses()
        for host, asker in ((fqdn(far), own[0]), (v4, own[0]), (f"[{v6}]", f"[{own[1]}]")):
            page = await near.get(f"http://{host}/hello")
            assert page["node"] == f"{fqdn(near)}."
            assert page["from"].rpartition(":")[0] == asker
            assert page["path"] == "/hello"


async def test_path_becomes_direct(pair: Pair) -> None:
    v4, _ = await pair.right.addresses()
    path = await pair.left.ping_until_direct(v4)
    assert pair.lab.host_of(pair.right).v4 in path.endpoint or path.endpoint.startswith(
        "[2001:db8:1::"
    )


async def test_every_kind_of_ping_answers(pair: Pair) -> None:
    for address in await pair.right.addresses():
        for kind in ("disco", "TSMP", "ICMP", "peerapi"):
            await pair.left.ping(address, kind)


async def test_magicdns_answers(pair: Pair) -> None:
    v4, _ = await pair.right.addresses()
    assert await pair.left.resolve(f"{fqdn(pair.right)}.", "A") == [v4]
    back = ".".join(reversed(v4.split("."))) + ".in-addr.arpa."
    assert await pair.left.resolve(back, "PTR") == [f"{fqdn(pair.right)}."]
    nobody = await pair.left.call("resolve", name="nobody.tail.test.", type="A")
    assert nobody["rcode"] == "RCodeNameError"


async def test_whois_names_the_user(pair: Pair) -> None:
    v4, v6 = await pair.right.addresses()
    for address in (f"{v4}:1", f"[{v6}]:1"):
        who = await pair.left.call("whois", addr=address)
        assert who["UserProfile"]["LoginName"].split("@")[0] == USER
        assert who["UserProfile"]["ID"] != 0
        assert who["Node"]["Name"] == f"{fqdn(pair.right)}."
    with pytest.raises(NodeError):
        await pair.left.call("whois", addr="100.127.255.254:1")


async def test_client_finds_nothing_to_warn_of(pair: Pair) -> None:
    for node in (pair.left, pair.right):
        assert (await node.status())["Health"] in (None, [])


async def test_client_measures_our_relay_and_stun(pair: Pair) -> None:
    for node in (pair.left, pair.right):
        status = await node.status()
        regions = (await node.call("derp_map"))["Regions"]
        codes = {region["RegionCode"] for region in regions.values()}
        assert status["Self"]["Relay"] in codes
        # The public address that STUN told is among the endpoints that control was given.
        host = pair.lab.host_of(node)
        assert any(endpoint.startswith(host.v4) for endpoint in status["Self"]["Addrs"])
