"""A relay by itself: beside its server, asking over the local socket whom to admit."""

from __future__ import annotations

import asyncio
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from appliance.config import ConfigError, Settings
from appliance.serve import relay as relaying
from tests.serve.test_server import plan, running
from tests.support import stunclient


def free_port() -> int:
    with socket.socket() as sock:
        sock.bind(("127.0.0.1", 0))
        port: int = sock.getsockname()[1]
        return port


def beside(home: Path, port: int) -> Settings:
    """Give the file that server and relay share."""
    server: dict[str, Any] = {
        "separate": True,
        "listen": [f"127.0.0.1:{port}"],
        "stun_listen": [f"127.0.0.1:{port}"],
    }
    return plan(home, derp={"server": server})


async def get(port: int, head: str) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(f"{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.decode()


async def test_separate_relay_serves_in_place_of_the_server(tmp_path: Path) -> None:
    port = free_port()
    settings = beside(tmp_path, port)
    ready = asyncio.Event()
    relay = asyncio.create_task(relaying.run_alone(settings, ready.set))
    async with asyncio.timeout(10), running(settings) as server:
        await ready.wait()
        assert server.relay is None
        assert "404" in await get(server.listeners[0].port, "GET /derp/probe")
        assert "200 OK" in await get(port, "GET /derp/probe")
        assert "426" in await get(port, "GET /derp")
        regions = server.tailnets.default.snapshot.settings.derp_map.regions or {}
        node = regions[999].nodes[0]
        assert (node.derp_port, node.stun_port) == (port, port)
        assert await stun_answers(port)
    relay.cancel()
    with suppress(asyncio.CancelledError):
        await relay


async def stun_answers(port: int) -> bool:
    loop = asyncio.get_running_loop()
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect(("127.0.0.1", port))
        await loop.sock_sendall(sock, stunclient.encode_request(bytes(12)))
        answer = await loop.sock_recv(sock, 2048)
    return bytes(12) in answer


async def test_server_answers_stun_where_nodes_are_told(tmp_path: Path) -> None:
    async with asyncio.timeout(10), running(plan(tmp_path)) as server:
        regions = server.tailnets.default.snapshot.settings.derp_map.regions or {}
        assert await stun_answers(regions[999].nodes[0].stun_port)


def test_separate_relay_needs_addresses(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"derp\.server\.listen"):
        plan(tmp_path, derp={"server": {"separate": True}})


def test_lone_relay_asks_the_control_server(tmp_path: Path) -> None:
    settings = config.build({"server_url": "https://hw.example.com/", "tls": {"mode": "local_ca"}})
    assert relaying._verify_url(settings) == "https://hw.example.com/verify"
    assert relaying._verify_url(beside(tmp_path, 1)) == "http://headwater/verify"
