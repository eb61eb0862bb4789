"""A restart among clients that come back at once: nobody meets a server that lacks its settings."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import ssl
from collections.abc import Iterator
from dataclasses import dataclass
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest

from appliance.config import Settings
from appliance.serve.server import Server
from appliance.wire.keys import MachineKey
from tests.serve.test_server import plan, running
from tests.support.controlclient import ControlClient
from tests.test_whole import Node, auth_key, server_key

PREFIX = "100.100.128.0/17"
CLIENTS = 4
"""As in the runs that found it: one on each of the first sockets, or all on one."""


@dataclass
class Site:
    """A server that ran before: its keys, an auth key, and what its file says by now."""

    settings: Settings
    key: str
    public: MachineKey
    context: ssl.SSLContext | None


async def site(home: Path, ports: list[int], *, tls: bool, plain: list[int]) -> Site:
    """Run a server once, so that the next start is a restart; a certificate that clients trust."""
    before = plan(home)
    async with running(before) as server:
        key, public = await auth_key(server), await server_key(server)
    changes: dict[str, Any] = {
        "listen": [f"127.0.0.1:{port}" for port in ports],
        "listen_plain": [f"127.0.0.1:{port}" for port in plain],
        "tailnet": {"key_expiry": "30d", "prefixes": {"v4": PREFIX}},
    }
    if tls:
        changes |= {"server_url": "https://127.0.0.1", "tls": {"mode": "local_ca"}}
    settings = plan(home, **changes)
    context = None
    if tls:
        async with running(
            plan(home, **{**changes, "listen": ["127.0.0.1:0"], "listen_plain": []})
        ):
            pass
        context = ssl.create_default_context(cafile=str(settings.state_dir / "tls" / "ca.pem"))
    return Site(settings, key, public, context)


async def enrol_at_once(
    site: Site, port: int, context: ssl.SSLContext | None, name: str
) -> dict[str, Any]:
    """Connect in the moment in which the port opens, enrol and poll; give the first map."""
    node = Node(ControlClient(site.public), name)
    while True:
        try:
            await node.connect("127.0.0.1", port, context)
        except ConnectionRefusedError:
            await asyncio.sleep(0)  # nobody listens yet: at the next turn, then
        else:
            break
    try:
        answer = await node.enrol(site.key)
        assert answer["MachineAuthorized"], answer
        await node.listen()
        return dict(node.heard[0])
    finally:
        await node.close()


@contextlib.contextmanager
def free_ports(count: int) -> Iterator[list[int]]:
    """Find ports that nobody listens on; they stay ours until the block ends."""
    with contextlib.ExitStack() as stack:
        ports = []
        for _ in range(count):
            sock = stack.enter_context(socket.socket())
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            sock.bind(("127.0.0.1", 0))
            ports.append(sock.getsockname()[1])
        yield ports


@pytest.mark.parametrize("count", [1, 2, 4, 7, 11, 40])
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
@pytest.mark.parametrize("own", [True, False], ids=["own", "systemd"])
async def test_no_client_gets_settings_that_are_not_the_sites(
    tmp_path: Path, count: int, tls: bool, own: bool
) -> None:
    """D1: the restart lottery. Beside TLS, half of the sockets are plain ones."""
    with contextlib.ExitStack() as stack:
        if own:
            ports = stack.enter_context(free_ports(count))
            given: dict[str, tuple[socket.socket, ...]] = {}
        else:
            socks = [
                stack.enter_context(socket.create_server(("127.0.0.1", 0))) for _ in range(count)
            ]
            ports = [sock.getsockname()[1] for sock in socks]
        first_plain = count - count // 2 if tls else count
        async with asyncio.timeout(60):
            house = await site(tmp_path, ports[:first_plain], tls=tls, plain=ports[first_plain:])
            if not own:
                given = {"listen": tuple(socks[:first_plain]), "plain": tuple(socks[first_plain:])}
            clients = [
                asyncio.create_task(
                    enrol_at_once(
                        house,
                        ports[i % count],
                        house.context if i % count < first_plain else None,
                        f"node-{i}",
                    )
                )
                for i in range(CLIENTS)
            ]
            server = Server(house.settings, inherited=given)
            task = asyncio.create_task(server.run())
            try:
                maps = await asyncio.gather(*clients)
            finally:
                server.stop()
                await task
        nodes = server.tailnets.default.snapshot.nodes.values()
        assert len(nodes) == CLIENTS
        assert all(node.expires_at is not None for node in nodes)
        assert all(node.ipv4 in IPv4Network(PREFIX) for node in nodes)
        assert all(message["DERPMap"]["Regions"] for message in maps)
