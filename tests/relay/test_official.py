"""Official Go clients against our relay, and our relay meshed with the official one."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import json
import ssl
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.relay.mesh import Mesh, MeshPeer
from appliance.wire import derp
from appliance.wire.keys import MeshKey, NodeKey
from tests.interop import build
from tests.relay import gotool
from tests.relay.gotool import Tool
from tests.relay.test_alone import relay, settings
from tests.relay.wireclient import SocketClient
from tests.support.certificates import client_context, self_signed_pem
from tests.support.lonerelay import RelayListen, RunningRelay
from tests.support.polling import until

pytestmark = pytest.mark.interop

MESH = MeshKey(b"m" * 32)
TLS = (RelayListen("127.0.0.1", 0, tls=True),)


@pytest.fixture(scope="module", autouse=True)
def _tool() -> None:
    try:
        gotool.binary()
    except build.Unavailable as reason:
        pytest.skip(f"official relay packages cannot be built: {reason}")


@pytest.fixture
def pem(tmp_path: Path) -> Path:
    path = tmp_path / "relay.pem"
    path.write_bytes(self_signed_pem())
    return path


@contextlib.asynccontextmanager
async def client(url: str, pem: Path, *more: str, **env: str) -> AsyncIterator[tuple[Tool, str]]:
    """Start an official client and wait until it is connected; gives its key too."""
    tool = await Tool.start("client", "-url", url, *more, env={"SSL_CERT_FILE": str(pem), **env})
    try:
        connected = await tool.event("connected")
        yield tool, connected["key"]
    finally:
        await tool.stop()


def url_of(running: RunningRelay, scheme: str = "https") -> str:
    return f"{scheme}://127.0.0.1:{running.listeners[0].port}/derp"


async def exchange(a: Tool, a_key: str, b: Tool, b_key: str) -> None:
    for near, near_key, far, far_key in ((a, a_key, b, b_key), (b, b_key, a, a_key)):
        near.say(f"send {far_key} {'c0ffee' * 20_000}")
        packet = await far.event("packet")
        assert packet == {"event": "packet", "from": near_key, "data": "c0ffee" * 20_000}


@pytest.mark.parametrize("kind", ["tls", "plain", "websocket"])
async def test_official_clients_exchange_packets(kind: str, pem: Path) -> None:
    listen = (RelayListen("127.0.0.1", 0, tls=kind != "plain"),)
    env = {"TS_DEBUG_DERP_WS_CLIENT": "1"} if kind == "websocket" else {}
    async with relay(settings(listen=listen)) as running:
        url = url_of(running, "http" if kind == "plain" else "https")
        async with client(url, pem, **env) as (a, a_key), client(url, pem, **env) as (b, b_key):
            await exchange(a, a_key, b, b_key)
            a.say("ping")
            await a.event("ponged")
            a.say("preferred 1")
            await until(lambda: running.door.counters.home_clients == 1)
            a.say(f"send {'00' * 32} {(derp.DISCO_MAGIC + bytes(80)).hex()}")
            gone = await a.event("gone")
            assert gone == {"event": "gone", "key": "00" * 32, "reason": 1}
            await a.stop()
            assert (await b.event("gone"))["key"] == a_key
        assert running.door.counters.websockets == (2 if kind == "websocket" else 0)


async def test_official_client_accepts_a_pinned_certificate() -> None:
    """As the relay map of a box without a name says it: the digest of the one certificate."""
    certificate = self_signed_pem().decode().partition("-----BEGIN PR")[0]
    digest = hashlib.sha256(ssl.PEM_cert_to_DER_cert(certificate))
    async with relay(settings(listen=TLS)) as running:
        node = {
            "Name": "999a",
            "RegionID": 999,
            "HostName": "127.0.0.1",
            "IPv4": "127.0.0.1",
            "DERPPort": running.listeners[0].port,
            "CertName": f"sha256-raw:{digest.hexdigest()}",
        }
        tool = await Tool.start("client", "-node", json.dumps(node))
        assert (await tool.event("connected"))["server"] == running.door.public_key.raw.hex()
        await tool.stop()
        wrong = {**node, "CertName": "sha256-raw:" + "00" * 32}
        tool = await Tool.start("client", "-node", json.dumps(wrong))
        assert (await tool.event("failed"))["event"] == "failed"
        await tool.stop()


async def test_official_client_prefers_the_cheap_cipher(pem: Path) -> None:
    async with relay(settings(listen=TLS)) as running:
        tool = await Tool.start("client", "-url", url_of(running), env={"SSL_CERT_FILE": str(pem)})
        connected = await tool.event("connected")
        assert connected["tls"] == 0x0304
        assert connected["cipher"] in (0x1301, 0x1303)  # AES-128 or ChaCha20, the client's choice
        await tool.stop()


async def test_stranger_is_refused_and_a_removed_node_is_closed(pem: Path) -> None:
    known: set[str] = set()

    async with relay(settings(listen=TLS)) as running:
        running.door._admit = lambda key, _source: key.raw.hex() in known
        tool = await Tool.start("client", "-url", url_of(running), env={"SSL_CERT_FILE": str(pem)})
        with contextlib.suppress(ConnectionError):
            await tool.event("packet")  # it never gets that far
        await tool.stop()
        running.door._admit = None
        async with client(url_of(running), pem) as (_, key):
            await until(lambda: running.door.server.is_connected(NodeKey(bytes.fromhex(key))))
            assert running.door.server.close_peer(NodeKey(bytes.fromhex(key))) == 1


async def test_official_mesh_client_watches_and_closes(pem: Path) -> None:
    async with relay(settings(listen=TLS, mesh_key=MESH)) as running:
        url = url_of(running)
        mesh = ("-mesh-key", MESH.reveal_text())
        async with (
            client(url, pem, *mesh) as (watcher, watcher_key),
            client(url, pem, "-prober") as (_, prober),
        ):
            seen = {}
            while prober not in seen or watcher_key not in seen:
                present = await watcher.event("present")
                seen[present["key"]] = present
            assert seen[prober]["flags"] == 4
            assert seen[watcher_key]["flags"] == 2
            assert seen[prober]["address"].startswith("127.0.0.1:")
            watcher.say(f"close-peer {prober}")
            assert await watcher.event("gone") == {"event": "gone", "key": prober, "reason": 0}


@contextlib.asynccontextmanager
async def official(pem: Path, *more: str) -> AsyncIterator[tuple[str, str]]:
    """Run the official relay; gives its URL and key."""
    tool = await Tool.start(
        "serve",
        *("-pem", str(pem), "-mesh-key", MESH.reveal_text(), *more),
        env={"SSL_CERT_FILE": str(pem)},
    )
    _, address, key = (await tool.line()).split()
    try:
        yield f"https://{address}/derp", key
    finally:
        await tool.stop()


async def test_meshed_with_the_official_relay(pem: Path) -> None:
    """One client at each; both relays have dialled the other; packets and departures both ways."""
    async with (
        relay(settings(listen=TLS, mesh_key=MESH)) as running,
        official(pem, "-mesh-with", url_of(running)) as (far_url, far_key),
    ):
        mesh = Mesh(running.door, MESH, (MeshPeer(far_url),), tls=client_context(), retry_s=0.05)
        task = asyncio.create_task(mesh.run())
        await until(lambda: mesh.counters.connected == 1)
        far = NodeKey(bytes.fromhex(far_key))
        await until(lambda: running.door.server.is_connected(far))
        async with (
            client(url_of(running), pem) as (a, a_key),
            client(far_url, pem) as (b, b_key),
        ):
            forwarders = running.door.server._forwarders
            await until(lambda: bytes.fromhex(b_key) in forwarders)
            await exchange(a, a_key, b, b_key)
            assert running.door.counters.forwarded_out == 1
            assert running.door.counters.forwarded_in == 1
            await b.stop()
            gone = await a.event("gone")
            assert gone == {"event": "gone", "key": b_key, "reason": 0}
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task


async def test_our_client_code_logs_in_at_the_official_relay(pem: Path) -> None:
    async with official(pem) as (url, key):
        port = int(url.split(":")[2].partition("/")[0])
        ours = await SocketClient().connect(port, tls=client_context())
        assert ours.server_raw.hex() == key
        ours.stream.write(derp.encode_ping(b"12345678"))
        assert await ours.frame(derp.FrameType.PONG) == b"12345678"
        await SocketClient.end_all()
