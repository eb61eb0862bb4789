"""A relay by itself, beside its server and on its own host: it obeys what the server obeys."""

from __future__ import annotations

import asyncio
import errno
import logging
import socket
import ssl
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from appliance import config
from appliance.config import ConfigError, Settings
from appliance.serve.process import Process
from appliance.serve.relayhost import RelayHost, verify_url
from appliance.serve.server import Server
from tests.serve.test_server import plan, running
from tests.support import stunclient
from tests.support.polling import until
from tests.support.ports import free_port


def beside(home: Path, port: int, **more: Any) -> Settings:
    """Give the file that server and relay share."""
    server: dict[str, Any] = {
        "separate": True,
        "listen": [f"127.0.0.1:{port}"],
        "stun_listen": [f"127.0.0.1:{port}"],
        **more,
    }
    return plan(home, derp={"server": server})


@asynccontextmanager
async def relaying(
    settings: Settings, reload: Callable[[], Settings] | None = None
) -> AsyncIterator[RelayHost]:
    """Run a relay while the block lasts."""
    host = RelayHost(settings, reload=reload)
    ready = asyncio.Event()

    async def started() -> None:
        ready.set()

    task = asyncio.create_task(host.run(started))
    waiting = asyncio.create_task(ready.wait())
    await asyncio.wait({task, waiting}, return_when=asyncio.FIRST_COMPLETED)
    waiting.cancel()
    if not ready.is_set():
        await task
    try:
        yield host
    finally:
        host.stop()
        await task


async def get(
    port: int, head: str, *, first: bytes = b"", tls: ssl.SSLContext | None = None
) -> str:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(first)
    if tls is not None:
        await writer.start_tls(tls, server_hostname="127.0.0.1")
    writer.write(f"{head} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode())
    answer = await reader.read()
    writer.close()
    return answer.decode()


async def test_separate_relay_serves_in_place_of_the_server(tmp_path: Path) -> None:
    port = free_port()
    settings = beside(tmp_path, port)
    async with asyncio.timeout(20), running(settings) as server, relaying(settings):
        assert server.relay is None
        assert "404" in await get(server.listeners[0].port, "GET /derp/probe")
        assert "200 OK" in await get(port, "GET /derp/probe")
        assert "426" in await get(port, "GET /derp")
        regions = server.tailnets.default.snapshot.settings.derp_map.regions or {}
        node = regions[999].nodes[0]
        assert (node.derp_port, node.stun_port) == (port, port)
        assert await stun_answers(port)


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
    assert verify_url(settings) == "https://hw.example.com/verify"
    assert verify_url(beside(tmp_path, 1)) == "http://headwater/verify"


# ── one file, two roles ──────────────────────────────────────────────────────────────────────────

Role = Callable[..., Any]
BOTH = pytest.mark.parametrize("role", [running, relaying], ids=["serve", "relay"])


@BOTH
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_both_roles_speak_the_proxy_protocol(tmp_path: Path, role: Role, tls: bool) -> None:
    """D3: the relay answered a trusted proxy with 400, and took all its clients for one."""
    changes: dict[str, Any] = {"proxy_protocol": True, "trusted_proxies": ["127.0.0.0/8"]}
    if tls:
        changes |= {"server_url": "https://127.0.0.1", "tls": {"mode": "local_ca"}}
    async with asyncio.timeout(20), role(plan(tmp_path, **changes)) as process:
        context = ssl.create_default_context(cafile=str(process.ca_file)) if tls else None
        header = b"PROXY TCP4 192.0.2.9 192.0.2.1 40000 443\r\n"
        port = process.listeners[0].port
        assert "200 OK" in await get(port, "GET /derp/probe", first=header, tls=context)
        assert process.fronts[0].trusted == process.settings.trusted_proxies


@BOTH
async def test_both_roles_run_without_ipv6(
    tmp_path: Path, role: Role, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """D3, B6: with the defaults the relay did not start on a machine without IPv6."""
    made = socket.socket

    def make(family: int = socket.AF_INET, *rest: Any, **more: Any) -> socket.socket:
        if family == socket.AF_INET6:
            raise OSError(errno.EAFNOSUPPORT, "Address family not supported by protocol")
        return made(family, *rest, **more)

    settings = plan(
        tmp_path,
        listen=["127.0.0.1:0", "[::]:0"],
        derp={"server": {"stun_listen": ["127.0.0.1:0", "[::]:0"]}},
    )
    monkeypatch.setattr("appliance.front.stream.socket.socket", make)
    async with asyncio.timeout(20), role(settings) as process:
        assert len(process.listeners) == 1
        assert "200 OK" in await get(process.listeners[0].port, "GET /derp/probe")
    assert caplog.text.count("this machine has no IPv6") == 2


@BOTH
async def test_both_roles_have_metrics_and_health(tmp_path: Path, role: Role) -> None:
    """D3, S9: the relay listened on no address for metrics, and its mesh was counted for nobody."""
    port = free_port()
    key = tmp_path / "mesh.key"
    key.write_text("ab" * 32)
    mesh = {"key_file": str(key), "peers": ["http://127.0.0.1:1/derp"]}
    settings = plan(
        tmp_path,
        metrics={"listen": f"127.0.0.1:{port}"},
        derp={"server": {"stun_listen": ["127.0.0.1:0"], "mesh": mesh}},
    )
    async with asyncio.timeout(20), role(settings) as process:
        await until(lambda: process.relay.mesh.counters.dials > 0)
        metrics = await get(port, "GET /metrics")
        for name in (
            "headwater_relay_clients",
            "headwater_relay_mesh_links",
            'headwater_relay_mesh_total{event="dials"}',
            "headwater_stun_requests_total",
            'headwater_loop_failing{loop="mesh"}',
            "headwater_front_streams",
            "headwater_build_info",
        ):
            assert name in metrics
        assert '{"status":"pass"}' in await get(port, "GET /health")
        assert "404" in await get(port, "GET /derp/probe"), "nothing else is on it"


async def test_a_relay_that_cannot_ask_says_so(tmp_path: Path) -> None:
    port = free_port()
    settings = beside(tmp_path, free_port(), metrics_listen=f"127.0.0.1:{port}")
    async with asyncio.timeout(20), relaying(settings) as host:
        assert host.relay is not None
        admit = host.relay.door._admit
        assert admit is not None
        answer = admit(host.relay.door.public_key, "192.0.2.1")  # there is no server
        assert not isinstance(answer, bool | None)
        await answer
        assert '{"status":"warn"}' in await get(port, "GET /health")
        metrics = await get(port, "GET /metrics")
        assert 'headwater_relay_admission_total{outcome="unanswered"} 1.0' in metrics


@BOTH
async def test_both_roles_reload(
    tmp_path: Path, role: Role, caplog: pytest.LogCaptureFixture
) -> None:
    """D3, S9: SIGHUP ended the relay."""
    caplog.set_level(logging.INFO, "appliance")
    server = {"stun_listen": ["127.0.0.1:0"], "ipv4": "192.0.2.1"}
    tls = {"server_url": "https://127.0.0.1", "tls": {"mode": "local_ca"}}
    before = plan(tmp_path, **tls, derp={"server": server})
    after = plan(
        tmp_path, **tls, listen=["127.0.0.1:1"], derp={"server": {**server, "ipv4": "192.0.2.2"}}
    )
    async with asyncio.timeout(20), role(before, lambda: after) as process:
        context = ssl.create_default_context(cafile=str(process.ca_file))
        port = process.listeners[0].port
        asked = "GET /bootstrap-dns?q=127.0.0.1"
        assert '["192.0.2.1"]' in await get(port, asked, tls=context)
        (before.state_dir / "tls" / "server.pem").unlink()
        process.reload()
        await until(lambda: "settings wait for a restart" in caplog.text)
        assert '["192.0.2.2"]' in await get(port, asked, tls=context)
        assert process.certificate.reloads == 1
        waiting = next(r for r in caplog.records if "wait for a restart" in r.message)
        assert vars(waiting)["reason"] == "listen"


@BOTH
async def test_both_roles_answer_the_captive_portal_test_in_the_clear(
    tmp_path: Path, role: Role
) -> None:
    settings = plan(
        tmp_path,
        server_url="https://127.0.0.1",
        tls={"mode": "local_ca"},
        listen_plain=["127.0.0.1:0"],
    )
    async with asyncio.timeout(20), role(settings) as process:
        port = process.listeners[1].port
        assert (await get(port, "GET /generate_204")).startswith("HTTP/1.1 204 ")
        assert (await get(port, "GET /x")).startswith("HTTP/1.1 302 ")


async def ends_with(process: Process) -> OSError:
    with pytest.raises(BaseException) as failure:  # noqa: PT011  # in a group, or not
        await process.run()
    error: BaseException = failure.value
    while isinstance(error, BaseExceptionGroup):
        error = error.exceptions[0]
    assert isinstance(error, OSError)
    return error


@pytest.mark.parametrize("kind", [Server, RelayHost])
@pytest.mark.parametrize("purpose", ["listen", "metrics", "stun"])
async def test_both_roles_name_an_address_that_is_taken(
    tmp_path: Path, kind: type[Server | RelayHost], purpose: str
) -> None:
    datagrams = purpose == "stun"
    with socket.socket(type=socket.SOCK_DGRAM if datagrams else socket.SOCK_STREAM) as taken:
        taken.bind(("127.0.0.1", 0))
        if not datagrams:
            taken.listen()
        place = f"127.0.0.1:{taken.getsockname()[1]}"
        changes: dict[str, dict[str, Any]] = {
            "listen": {"listen": [place]},
            "metrics": {"metrics": {"listen": place}},
            "stun": {"derp": {"server": {"stun_listen": [place]}}},
        }
        error = await ends_with(kind(plan(tmp_path, **changes[purpose])))
    assert place in str(error)


@BOTH
async def test_both_roles_say_what_they_are_when_they_have_started(
    tmp_path: Path, role: Role, caplog: pytest.LogCaptureFixture
) -> None:
    """B5."""
    caplog.set_level(logging.INFO, "appliance")
    async with asyncio.timeout(20), role(plan(tmp_path)) as process:
        (line,) = (vars(r) for r in caplog.records if r.message == "started")
        assert line["version"]
        assert line["url"] == "http://127.0.0.1"
        assert line["addresses"] == f"127.0.0.1:{process.listeners[0].port}"
        if role is running:
            assert line["database"] == f"sqlite:///{tmp_path}/state/headwater.db"
            assert (line["relay"], line["tailnets"]) == ("on", "default")
