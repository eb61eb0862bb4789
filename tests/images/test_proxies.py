"""The compose example with Caddy, then Traefik in Caddy's place: nodes join and talk through each."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import pytest_asyncio

from tests.images.test_alone import URL, reach, stranger_address
from tests.images.town import NAME, Served, Town
from tests.interop.node import Node

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="session"),
]

CADDY_CA = "/data/caddy/pki/authorities/local/root.crt"
OWN_AUTHORITY = "{\n\tlocal_certs\n}\n\n"
"""Put before the example's Caddyfile: no public authority is reachable here."""

TRAEFIK = {
    "http": {
        "routers": {"headwater": {"rule": f"Host(`{NAME}`)", "service": "headwater", "tls": {}}},
        "services": {
            "headwater": {
                "loadBalancer": {"servers": [{"url": "http://172.31.41.3:8080"}]},
            }
        },
    },
    "tls": {
        "certificates": [
            {"certFile": "/etc/traefik/fullchain.pem", "keyFile": "/etc/traefik/key.pem"}
        ]
    },
}
"""What docs/images.md shows as YAML, and a certificate."""


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def folder(town: Town) -> AsyncIterator[Path]:
    """The example, running."""
    made = town.example("caddy")
    caddyfile = made / "Caddyfile"
    caddyfile.write_text(OWN_AUTHORITY + caddyfile.read_text())
    town.compose(made, "up", "--detach")
    yield made
    town.root.clear()


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def served(town: Town, folder: Path) -> Served:
    del folder  # it is started there
    server = Served(town.root, "caddy_headwater_1")
    await server.well()
    return server


@pytest_asyncio.fixture(scope="module", loop_scope="session")
async def nodes(town: Town, served: Served) -> tuple[Node, Node]:
    """Two nodes that have joined through Caddy."""
    town.root.podman("cp", f"caddy_caddy_1:{CADDY_CA}", str(town.sandbox.folder / "caddy.crt"))
    town.trust((town.sandbox.folder / "caddy.crt").read_text())
    key = served.key()
    return await town.join("phone", URL, key), await town.join("tablet", URL, key)


async def test_nodes_join_through_caddy_then_through_traefik(
    town: Town, folder: Path, served: Served, nodes: tuple[Node, Node]
) -> None:
    phone, tablet = nodes
    await phone.sees(tablet.name)
    await reach(phone, tablet)
    assert await stranger_address(served, phone) == town.hosts[phone.name].v4
    before = [await node.node_key() for node in nodes]
    town.compose(folder, "down", "caddy")
    start_traefik(town)
    watch = await town.join("watch", URL, served.key())
    for node in nodes:
        await node.sees(watch.name)
        await watch.sees(node.name)
        await reach(node, watch)
    assert await stranger_address(served, watch) == town.hosts[watch.name].v4
    assert [await node.node_key() for node in nodes] == before


def start_traefik(town: Town) -> None:
    """Start Traefik with Caddy's address, which the site file trusts."""
    etc = town.folder("traefik")
    town.certificate(etc)
    (etc / "routes.yaml").write_text(json.dumps(TRAEFIK))
    town.root.podman(
        *("run", "--detach", "--name", "traefik", "--network", "caddy_front"),
        *("--ip", "172.31.41.2", "--publish", "443:443", "--volume", f"{etc}:/etc/traefik:ro"),
        "docker.io/library/traefik:3",
        *("--entrypoints.https.address=:443", "--providers.file.filename=/etc/traefik/routes.yaml"),
    )
    # The same address at another card: what is known of the former one holds for half a minute.
    town.sandbox.run("ip", "neigh", "flush", "all")
