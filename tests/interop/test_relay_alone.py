"""Our relay as a process of its own: beside the server, and on another host with a pinned address."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import dataclass

import pytest
import pytest_asyncio

from tests.interop import build, certificates
from tests.interop.conftest import Figure
from tests.interop.lab import ECHO_PORT, Lab, relay_section, site
from tests.interop.netns import SERVER_NAME, SERVER_V4, SERVER_V6, Host
from tests.interop.node import Node
from tests.interop.server import Server

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

BESIDE_REGION = 999
BESIDE_PORT = 8443
REMOTE_REGION = 901

UNNOTICED_S = 1.0
"""A stream on its own relay has no reason to pause when the server dies."""


@dataclass
class Relays:
    """A server without a relay in it, one relay process beside it, one on a bare address."""

    lab: Lab
    remote_host: Host
    remote: Server


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def relays(empty_lab: Lab) -> AsyncIterator[Relays]:
    """Start the three programs."""
    lab = empty_lab
    remote_host = lab.net.host("relay")
    home = lab.directory / "remote"
    home.mkdir()
    pin = certificates.self_signed(home / "pinned.crt", home / "pinned.key", [remote_host.v4])
    remote_site = site(home)
    remote_site["listen"] = [f"{remote_host.v4}:443"]
    remote_site["tls"]["cert_file"] = str(home / "pinned.crt")
    remote_site["tls"]["key_file"] = str(home / "pinned.key")
    remote_site["derp"] = {
        "server": {
            "region_id": REMOTE_REGION,
            "region_code": "remote",
            "host": remote_host.v4,
            "stun_listen": [f"{remote_host.v4}:3478"],
        }
    }
    (home / "site.json").write_text(json.dumps(remote_site))

    settings = site(lab.directory)
    settings["derp"] = {
        "server": relay_section(
            separate=True,
            listen=[f"{SERVER_V4}:{BESIDE_PORT}", f"[{SERVER_V6}]:{BESIDE_PORT}"],
            port=BESIDE_PORT,
        ),
        "regions": [
            {
                "id": REMOTE_REGION,
                "code": "remote",
                "nodes": [
                    {
                        "host": remote_host.v4,
                        "ipv4": remote_host.v4,
                        "ipv6": "none",
                        "cert_name": pin,
                    }
                ],
            }
        ],
    }
    await lab.serve(settings)
    # The same site file, in a directory of its own for its log.
    beside_home = lab.directory / "beside"
    beside_home.mkdir()
    (beside_home / "site.json").write_text(json.dumps(settings))
    authority = lab.authority.file
    beside = Server.from_site(
        beside_home / "site.json", ca_file=authority, verb="relay", prefix=lab.net.server_prefix
    )
    remote = Server.from_site(
        home / "site.json", ca_file=authority, verb="relay", prefix=remote_host.prefix
    )
    try:
        await asyncio.gather(beside.start(), remote.start())
        yield Relays(lab, remote_host, remote)
    finally:
        await asyncio.gather(beside.stop(), remote.stop())


async def join_at(relays: Relays, label: str, region: int, client: str) -> Node:
    """Let a node join whose only reachable relay is that of one region."""
    node = await relays.lab.node(label, client=client)
    host = relays.lab.host_of(node)
    if region == REMOTE_REGION:
        host.block_udp([relays.remote_host.v4])
        host.block_tcp(BESIDE_PORT)
    else:
        host.block_udp([SERVER_V4, SERVER_V6])
        host.block_tcp(443, relays.remote_host.v4)
    await relays.lab.enrol(node)
    return node


@pytest.mark.parametrize("client", build.CLIENTS)
@pytest.mark.parametrize("region", [BESIDE_REGION, REMOTE_REGION])
async def test_nodes_reach_each_other_through_a_relay_of_its_own(
    relays: Relays, region: int, client: str
) -> None:
    left, right = await asyncio.gather(
        *(join_at(relays, label, region, client) for label in ("alone-a", "alone-b"))
    )
    await asyncio.gather(left.sees(right.name), right.sees(left.name))
    for near, far in ((left, right), (right, left)):
        v4, v6 = await far.addresses()
        for host in (v4, f"[{v6}]"):
            assert (await near.get(f"http://{host}/"))["node"].startswith(f"{near.name}.")
        path = await near.ping(v4)
        assert not path.direct
        assert path.region == region


async def test_relays_of_their_own_refuse_a_strangers_key(relays: Relays) -> None:
    # Trusts the pinned certificate too: this login has no relay map with a pin in it.
    trust = relays.lab.directory / "everybody.crt"
    pinned = relays.remote.directory / "pinned.crt"
    trust.write_bytes(relays.lab.authority.file.read_bytes() + pinned.read_bytes())
    node = await relays.lab.node("stranger", env={"SSL_CERT_FILE": str(trust)})
    for url in (
        f"https://{SERVER_NAME}:{BESIDE_PORT}/derp",
        f"https://{relays.remote_host.v4}/derp",
    ):
        answer = await node.call("relay_stranger", url=url, timeout_s=10)
        assert answer["admitted"] is False, url


async def test_stream_does_not_notice_that_the_server_died(relays: Relays, figure: Figure) -> None:
    left, right = await asyncio.gather(
        *(join_at(relays, label, BESIDE_REGION, build.NEWEST) for label in ("calm-a", "calm-b"))
    )
    await left.sees(right.name)
    v4, _ = await right.addresses()
    assert not (await left.ping(v4)).direct
    await left.call("stream_start", name="calm", addr=f"{v4}:{ECHO_PORT}")
    await left.stream_moves("calm")
    await relays.lab.server.kill()
    await left.stream_moves("calm")
    await relays.lab.server.start()
    await left.stream_moves("calm")
    stats = await left.call("stream_stop", name="calm")
    assert stats["failure"] == ""
    assert stats["sent"] == stats["received"] > 0
    figure("longest silence", stats["max_gap_s"])
    assert stats["max_gap_s"] < UNNOTICED_S
