"""The compose example without a proxy: joined, restarted, stopped, upgraded, and not downgraded."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.images.town import NAME, USER_IN_IMAGE, Served, Town
from tests.interop.node import Node
from tests.support.pace import patience

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="session"),
]

URL = f"https://{NAME}"
FILES = """\
cert_file: /etc/headwater/tls/fullchain.pem
  key_file: /etc/headwater/tls/key.pem"""
CONTAINER = "alone_headwater_1"
OURS = "localhost/headwater:latest"
NEWER = "localhost/headwater:newer"
STOP_S = 5.0
"""Engines kill what has not ended after ten seconds."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def folder(town: Town) -> AsyncIterator[Path]:
    """The example, running; with a certificate: no public authority is reachable here."""
    made = town.example("alone")
    town.change(made, "mode: acme", FILES)
    town.certificate(made / "headwater" / "tls")
    town.compose(made, "up", "--detach")
    yield made
    town.root.clear()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(town: Town, folder: Path) -> Served:  # noqa: ARG001  # it is started there
    """The server in it."""
    server = Served(town.root, CONTAINER)
    await server.well()
    return server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def nodes(town: Town, served: Served) -> tuple[Node, Node]:
    """Two nodes that have joined."""
    key = served.key()
    return await town.join("laptop", URL, key), await town.join("desktop", URL, key)


async def identities(*nodes: Node) -> list[object]:
    return [(await node.node_key(), await node.addresses()) for node in nodes]


async def reach(left: Node, right: Node) -> None:
    for near, far in ((left, right), (right, left)):
        v4, v6 = await far.addresses()
        for host in (v4, f"[{v6}]"):
            page = await near.get(f"http://{host}/")
            assert page["node"].split(".")[0] == near.name


async def stranger_address(served: Served, node: Node) -> str:
    """Give the address under which the server saw a stranger on a node's machine."""
    before = served.log()
    answer = await node.call("relay_stranger", url=f"{URL}/derp")
    assert answer["admitted"] is False
    line = await served.said("not admitted", since=before)
    return line.partition("remote=")[2].split()[0]


async def test_it_has_no_rights(served: Served) -> None:
    status = served.inside("cat /proc/1/status").stdout
    fields = dict(line.split(":\t", 1) for line in status.splitlines() if ":\t" in line)
    assert int(fields["CapEff"], 16) == 0
    assert int(fields["CapBnd"], 16) == 0
    assert fields["NoNewPrivs"] == "1"
    assert fields["Seccomp"] == "2"
    assert set(fields["Uid"].split()) == {str(USER_IN_IMAGE)}
    written = served.inside("for p in / /etc/headwater /opt/headwater; do touch $p/x; done")
    assert written.stderr.count("Read-only file system") == 3
    assert not served.inside("find / -xdev -perm /6000 -type f").stdout
    assert served.inside("stat -c '%a %u' /var/lib/headwater").stdout.split() == [
        "700",
        str(USER_IN_IMAGE),
    ]


async def test_it_is_well_and_says_so(served: Served) -> None:
    assert served.field("{{.State.Health.Status}}") == "healthy"
    assert served.field("{{json .Config.StopSignal}}") in ('"SIGTERM"', "15", '"15"')
    assert "started" in served.log()


async def test_two_nodes_join_and_reach_each_other(nodes: tuple[Node, Node]) -> None:
    laptop, desktop = nodes
    await laptop.sees(desktop.name)
    await reach(laptop, desktop)
    assert (await laptop.ping_until_direct((await desktop.addresses())[0])).direct


async def test_plain_http_sends_browsers_to_https(town: Town, served: Served) -> None:
    del served
    said = town.asked("curl", "-sS", "-o", "/dev/null", "-w", "%{redirect_url}", f"http://{NAME}/")
    assert said == f"{URL}/"


async def test_strangers_are_seen_by_their_own_address(
    town: Town, served: Served, nodes: tuple[Node, Node]
) -> None:
    """STUN tells a node its address, and the log those of strangers: not the engine's gateway."""
    laptop, _ = nodes
    host = town.hosts[laptop.name]
    assert await stranger_address(served, laptop) == host.v4
    endpoints = (await laptop.status())["Self"]["Addrs"]
    assert any(each.startswith(f"{host.v4}:") for each in endpoints)


async def test_it_stops_soon_and_keeps_its_state(
    town: Town, served: Served, nodes: tuple[Node, Node]
) -> None:
    before = await identities(*nodes)
    began = time.monotonic()
    town.root.podman("stop", "--time", "60", CONTAINER)
    assert time.monotonic() - began < patience(STOP_S)
    assert served.field("{{.State.ExitCode}}") == "0"
    assert "stopped" in served.log().splitlines()[-1]
    town.root.podman("start", CONTAINER)
    await served.well()
    await nodes[0].sees(nodes[1].name)
    await reach(*nodes)
    assert await identities(*nodes) == before


async def test_a_newer_image_takes_the_volume_and_an_older_one_refuses_it(
    town: Town, folder: Path, served: Served, nodes: tuple[Node, Node]
) -> None:
    before = await identities(*nodes)
    file = folder / "compose.yaml"
    written = file.read_text()
    file.write_text(written.replace(OURS, NEWER))
    town.compose(folder, "up", "--detach")
    await served.well()
    assert "story" in served.inside("headwater version").stdout
    assert [row["givenName"] for row in served.cli("nodes", "list")] == [n.name for n in nodes]
    await reach(*nodes)
    assert await identities(*nodes) == before
    assert served.inside("ls /var/lib/headwater").stdout.count("before-upgrade") == 1
    file.write_text(written.replace("unless-stopped", '"no"'))
    town.compose(folder, "up", "--detach")
    assert town.root.podman("wait", CONTAINER) == "1"
    assert "or newer, or restore the copy" in served.log()
    assert "Traceback" not in served.log()
    file.write_text(written.replace(OURS, NEWER))
    town.compose(folder, "up", "--detach")
    await served.well()
    assert await identities(*nodes) == before
