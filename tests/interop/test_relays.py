"""Stock clients through our relay in every dress: pinned, WebSocket, meshed, guarded."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest
import pytest_asyncio

from tests.interop import build
from tests.interop.derper import Derper
from tests.interop.lab import Lab, relay_section, site
from tests.interop.netns import SERVER_NAME, SERVER_V4, SERVER_V6
from tests.interop.node import Node
from tests.interop.server import Server

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

BOTH = pytest.mark.parametrize("client", build.CLIENTS)

REGION = 999
# Where our relay of the meshed lab listens besides 443: a node can be kept from it while it still
# reaches control.
RELAY_PORT = 8443


async def exchange(left: Node, right: Node) -> None:
    """Fetch a page each way, and see that it went through a relay."""
    await asyncio.gather(left.sees(right.name), right.sees(left.name))
    for near, far in ((left, right), (right, left)):
        v4, v6 = await far.addresses()
        for host in (v4, f"[{v6}]"):
            assert (await near.get(f"http://{host}/"))["node"].startswith(f"{near.name}.")
        path = await near.ping(v4)
        assert not path.direct
        assert path.region == REGION


@dataclass
class Meshed:
    """A lab whose region has two relays: ours, and an official derper that asks us who may enter."""

    lab: Lab
    derper: Derper


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def meshed(empty_lab: Lab, derper: Path) -> AsyncIterator[Meshed]:
    """Start both relays and mesh them."""
    lab = empty_lab
    mesh_key = lab.directory / "mesh.key"
    mesh_key.write_text("5e" * 32 + "\n")
    official = Derper(lab, derper, mesh_key)
    settings = site(lab.directory)
    settings["listen"] += [f"{SERVER_V4}:{RELAY_PORT}", f"[{SERVER_V6}]:{RELAY_PORT}"]
    settings["derp"] = {
        "server": relay_section(
            port=RELAY_PORT,
            mesh={"key_file": str(mesh_key), "peers": [f"{official.url}/derp"]},
        ),
        "regions": [
            {
                "id": REGION,
                "code": "headwater",
                "nodes": [
                    {
                        "host": official.host.v4,
                        "ipv4": official.host.v4,
                        "ipv6": "none",
                        "stun_port": -1,
                    }
                ],
            }
        ],
    }
    await lab.serve(settings)
    await official.start()
    try:
        yield Meshed(lab, official)
    finally:
        await official.stop()


@BOTH
async def test_nodes_on_an_official_derper_and_on_our_relay_reach_each_other(
    meshed: Meshed, client: str
) -> None:
    ours = await meshed.lab.join("ours", client=client, block_udp="peers")
    theirs = await meshed.lab.node("theirs", client=client)
    meshed.lab.host_of(theirs).block_udp([SERVER_V4, SERVER_V6])
    meshed.lab.host_of(theirs).block_tcp(RELAY_PORT)
    await meshed.lab.enrol(theirs)
    before = await meshed.derper.counters()
    await exchange(ours, theirs)
    after = await meshed.derper.counters()
    # One end is on the derper and one is not: packets crossed between the relays both ways.
    assert after["packets_forwarded_in"] > before["packets_forwarded_in"]
    assert after["packets_forwarded_out"] > before["packets_forwarded_out"]


async def test_both_relays_refuse_a_strangers_key(meshed: Meshed) -> None:
    node = await meshed.lab.node("stranger")
    for url in (f"https://{SERVER_NAME}/derp", f"{meshed.derper.url}/derp"):
        answer = await node.call("relay_stranger", url=url, timeout_s=10)
        assert answer["admitted"] is False, url


@BOTH
async def test_websocket_carries_the_relays_stream(meshed: Meshed, client: str) -> None:
    # These clients dial port 443 whatever the map says, and our relay answers there too.
    env = {"TS_DEBUG_DERP_WS_CLIENT": "1"}
    left, right = await asyncio.gather(
        *(
            meshed.lab.join(label, client=client, block_udp="peers", env=env)
            for label in ("web-a", "web-b")
        )
    )
    await exchange(left, right)
    for node in (left, right):
        said = await asyncio.to_thread((node.directory / "stderr.log").read_text)
        assert "websocket: connected to" in said


async def test_mixed_transports_reach_each_other(meshed: Meshed) -> None:
    web, plain = await asyncio.gather(
        meshed.lab.join("web-c", block_udp="peers", env={"TS_DEBUG_DERP_WS_CLIENT": "1"}),
        meshed.lab.join("plain", client=build.YEAR_OLDER, block_udp="peers"),
    )
    await exchange(web, plain)


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def pinned(
    namespaces: None,  # noqa: ARG001  # skips before us
    stock_clients: None,  # noqa: ARG001  # skips before us
    tmp_path_factory: pytest.TempPathFactory,
) -> AsyncIterator[Lab]:
    """A lab of its own whose server has a bare address and one self-signed certificate."""
    lab = Lab(tmp_path_factory.mktemp("pinned"))
    arguments = [
        "dev",
        "--dir",
        str(lab.directory / "server"),
        "--host",
        SERVER_V4,
        "--host",
        SERVER_V6,
    ]
    arguments += ["--port", "443", "--stun-port", "3478", "--pinned", "-o", "json"]
    lab.adopt(Server(lab.directory, arguments, prefix=lab.net.server_prefix))
    try:
        await lab.server.start()
        yield lab
    finally:
        await lab.close()


@BOTH
async def test_pinned_certificate_on_a_bare_address(pinned: Lab, client: str) -> None:
    address = pinned.server.address
    assert address.url.startswith(f"https://{SERVER_V4}")
    left, right = await asyncio.gather(
        *(
            pinned.join(
                label,
                client=client,
                block_udp="peers",
                key=address.auth_key,
                # Control is not covered by the pin: its certificate is trusted as if it were a root.
                env={"SSL_CERT_FILE": address.ca_file},
            )
            for label in ("pin-a", "pin-b")
        )
    )
    regions = (await left.call("derp_map"))["Regions"]
    (node,) = next(iter(regions.values()))["Nodes"]
    assert node["CertName"].startswith("sha256-raw:"), json.dumps(regions)
    assert node["IPv4"] == SERVER_V4
    await exchange(left, right)
