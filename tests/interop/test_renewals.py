"""Certificates are renewed under stock clients: connections stay, and the new one is trusted."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Literal

import pytest
import pytest_asyncio

from tests.interop.lab import ECHO_PORT, Lab, site
from tests.interop.netns import SERVER_V4
from tests.interop.node import Node
from tests.support.pace import patience
from tests.support.pebble import Pebble

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

RENEWALS = 10
PAIRS = 10
BACK_S = 30.0


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def certified(empty_lab: Lab) -> AsyncIterator[Lab]:
    """A server that got its certificate from Pebble, by nothing but its port 443."""
    lab = empty_lab
    pebble = Pebble(
        lab.directory / "pebble",
        http_port=1,
        tls_port=443,
        address=SERVER_V4,
        prefix=lab.net.server_prefix,
        ports=[24100, 24101, 24102, 24103],
    )
    await pebble.start()
    try:
        tls = {"mode": "acme", "directory": pebble.url, "ca_file": str(pebble.ca_file)}
        await lab.serve(site(lab.directory, tls=tls))
        with lab.authority.file.open("a") as trusted:
            trusted.write(await pebble.root())
        async with asyncio.timeout(patience(60)):
            while (await shown(lab))["isProvisional"]:
                await asyncio.sleep(0.2)
        yield lab
    finally:
        await pebble.stop()


async def shown(lab: Lab) -> dict[str, object]:
    """What the server says of its certificate."""
    found: list[dict[str, object]] = await lab.server.cli("certificates", "list")
    return found[0]


async def test_renewals_drop_no_connection_and_no_stream(certified: Lab) -> None:
    lab = certified
    pairs = await asyncio.gather(*(streaming_pair(lab, number) for number in range(PAIRS)))
    seen = {(await shown(lab))["fingerprint"]}
    before = await connections(lab)
    await asyncio.gather(*(left.stream_moves("renewals", timeout_s=BACK_S) for left, _ in pairs))
    before &= await connections(lab)  # not those of probes, which end by themselves
    assert len(before) >= 2 * PAIRS, "control and relay connections are open"
    for _ in range(RENEWALS):
        await lab.server.said("certificates", "renew")
        seen.add((await shown(lab))["fingerprint"])
        await asyncio.gather(
            *(left.stream_moves("renewals", timeout_s=BACK_S) for left, _ in pairs)
        )
    assert len(seen) == RENEWALS + 1
    assert before <= await connections(lab), "each connection of before is still there"
    for left, _ in pairs:
        stats = await left.call("stream_stop", name="renewals")
        assert stats["failure"] == "", stats
        assert stats["sent"] == stats["received"] > 0
    newcomer = await lab.join("newcomer")
    await newcomer.sees(pairs[0][0].name)


async def streaming_pair(lab: Lab, number: int) -> tuple[Node, Node]:
    """Two clients with a stream between them: one pair directly, the others over the relay."""
    block_udp: Literal["", "peers"] = "peers" if number else ""
    left, right = await asyncio.gather(
        *(lab.join(f"{side}{number}", block_udp=block_udp) for side in ("left", "right"))
    )
    await asyncio.gather(left.sees(right.name), right.sees(left.name))
    v4, _ = await right.addresses()
    await left.call("stream_start", name="renewals", addr=f"{v4}:{ECHO_PORT}")
    return left, right


async def connections(lab: Lab) -> set[str]:
    """The clients' ends of the connections to port 443 of the server."""
    process = await asyncio.create_subprocess_exec(
        *lab.net.server_prefix,
        *("ss", "-Htn", "state", "established", "sport", "=", ":443"),
        stdout=asyncio.subprocess.PIPE,
    )
    out, _ = await process.communicate()
    return {line.split()[3] for line in out.decode().splitlines()}
