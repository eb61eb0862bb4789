"""A whole relay on sockets: plain, TLS and WebSocket clients, mesh, STUN, admission, abuse."""

from __future__ import annotations

import asyncio
import contextlib
import os
import resource
import socket
from collections.abc import AsyncIterator
from ipaddress import IPv4Address, IPv6Address

import pytest

from appliance.front.stream import Listener
from appliance.relay.counters import Refusal
from appliance.relay.door import Admit, RelayLimits
from appliance.relay.mesh import Mesh, MeshPeer, MeshTiming, parse_url
from appliance.relay.stun import StunServer
from appliance.wire import derp, websocket
from appliance.wire.derp import ClientInfo, FrameType
from appliance.wire.keys import MeshKey, PrivateKey
from appliance.wire.websocket import Data, FrameReader, Opcode
from tests.relay.controls import allow, control
from tests.relay.wireclient import HEAD, SocketClient, login_frame, new_key
from tests.support import derpframes, stunclient
from tests.support.certificates import client_context, self_signed_pem, server_context
from tests.support.lonerelay import RelayListen, RelaySettings, RunningRelay, run
from tests.support.polling import until

MESH = MeshKey(b"m" * 32)
PLAIN = (RelayListen("127.0.0.1", 0, tls=False),)


@contextlib.asynccontextmanager
async def relay(settings: RelaySettings, admit: Admit | None = None) -> AsyncIterator[RunningRelay]:
    """Run a relay until the end of the block."""
    up: asyncio.Future[RunningRelay] = asyncio.get_running_loop().create_future()
    context = server_context()
    task = asyncio.create_task(run(settings, tls=lambda: context, admit=admit, ready=up.set_result))
    await until(lambda: up.done() or task.done())
    if task.done():
        await task
    running = await up
    try:
        yield running
    finally:
        await SocketClient.end_all()
        task.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await task
        await until(lambda: not any(listener.streams for listener in running.listeners))


def settings(**changes: object) -> RelaySettings:
    values: dict[str, object] = {"private_key": PrivateKey.generate(os.urandom), "listen": PLAIN}
    return RelaySettings(**{**values, **changes})  # type: ignore[arg-type]  # names are checked


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_two_clients_exchange_packets(tls: bool) -> None:
    async with relay(settings(listen=(RelayListen("127.0.0.1", 0, tls=tls),))) as running:
        port = running.listeners[0].port
        context = client_context() if tls else None
        a = await SocketClient().connect(port, tls=context)
        b = await SocketClient().connect(port, tls=context)
        assert a.answer.startswith(b"HTTP/1.1 101 ")
        for size in (0, 1, 1400, 65_536):
            a.send(b.key, os.urandom(1) * size)
            source, data = await b.packet()
            assert (source, len(data)) == (a.key, size)
        for number in range(500):
            b.send(a.key, number.to_bytes(2, "big") * 700)
        for number in range(500):
            assert await a.packet() == (b.key, number.to_bytes(2, "big") * 700)
        a.stream.write(derp.encode_ping(b"12345678"))
        assert await a.frame(FrameType.PONG) == b"12345678"
        a.stream.close()
        key, reason = derp.decode_peer_gone(await b.frame(FrameType.PEER_GONE))
        assert (key, reason) == (a.key, derp.GoneReason.DISCONNECTED)


async def test_fast_start_in_one_segment() -> None:
    async with relay(settings()) as running:
        own = new_key()
        reader, writer = await asyncio.open_connection("127.0.0.1", running.listeners[0].port)
        head = HEAD + b"Derp-Fast-Start: 1\r\n\r\n"
        writer.write(head + login_frame(own, running.door.private.public_raw))
        first = await reader.readexactly(5 + 40)
        assert first == derp.encode_server_key(running.door.private.public_raw)
        assert (await reader.readexactly(1))[0] == FrameType.SERVER_INFO
        await hang_up(writer)


async def test_client_in_a_websocket() -> None:
    async with relay(settings()) as running:
        port = running.listeners[0].port
        b = await SocketClient().connect(port)
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        writer.write(
            b"GET /derp HTTP/1.1\r\nHost: r\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            b"Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n"
            b"Sec-WebSocket-Protocol: derp\r\n\r\n"
        )
        assert b"101" in await reader.readuntil(b"\r\n\r\n")
        frames, bytes_in = derp.FrameReader(), FrameReader(masked=False)

        async def frame(kind: FrameType) -> derp.Frame:
            async with asyncio.timeout(10):
                while True:
                    for event in bytes_in.feed(await reader.read(65536)):
                        assert isinstance(event, Data)
                        for found in frames.feed(event.payload):
                            if found.kind == kind:
                                return found

        def send(data: bytes) -> None:
            writer.write(websocket.encode_frame(Opcode.BINARY, data, mask=b"abcd"))

        server_raw = derp.decode_server_key((await frame(FrameType.SERVER_KEY)).payload)
        own = new_key()
        login = login_frame(own, server_raw)
        send(login[:50])
        send(login[50:])
        await frame(FrameType.SERVER_INFO)
        send(derpframes.encode_send_packet(b.key, b"from a browser"))
        assert await b.packet() == (own.public_raw, b"from a browser")
        b.send(own.public_raw, bytes(60_000))
        assert len((await frame(FrameType.RECV_PACKET)).payload) == 60_032
        assert running.door.counters.websockets == 1
        await hang_up(writer)


async def http(port: int, request: bytes) -> bytes:
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(request + b"Host: relay.test\r\nConnection: close\r\n\r\n")
    async with asyncio.timeout(10):
        answer = await reader.read()
    await hang_up(writer)
    return answer


async def hang_up(writer: asyncio.StreamWriter) -> None:
    writer.close()
    with contextlib.suppress(ConnectionError):
        await writer.wait_closed()


async def test_pages_beside_derp() -> None:
    names = {"relay.test": ("192.0.2.1", "2001:db8::1")}
    async with relay(settings(names=names)) as running:
        port = running.listeners[0].port
        for path in (b"/derp/probe", b"/derp/latency-check"):
            for method in (b"GET", b"HEAD"):
                answer = await http(port, method + b" " + path + b" HTTP/1.1\r\n")
                assert answer.startswith(b"HTTP/1.1 200 ")
                assert b"Access-Control-Allow-Origin: *" in answer
            assert (await http(port, b"POST " + path + b" HTTP/1.1\r\n"))[9:12] == b"405"
        answer = await http(
            port, b"GET /generate_204?t=1 HTTP/1.1\r\nX-Tailscale-Challenge: ts_192.0.2.1\r\n"
        )
        assert answer.startswith(b"HTTP/1.1 204 ")
        assert b"X-Tailscale-Response: response ts_192.0.2.1\r\n" in answer
        assert b"no-cache" in answer
        answer = await http(
            port, b"GET /generate_204 HTTP/1.1\r\nX-Tailscale-Challenge: <script>\r\n"
        )
        assert b"X-Tailscale-Response" not in answer
        answer = await http(port, b"GET /bootstrap-dns?q=Relay.test HTTP/1.1\r\n")
        assert answer.endswith(b'{"Relay.test": ["192.0.2.1", "2001:db8::1"]}')
        answer = await http(port, b"GET /bootstrap-dns?q=other.test HTTP/1.1\r\n")
        assert answer.endswith(b"{}")
        answer = await http(port, b"GET /bootstrap-dns?" + b"a&" * 100 + b" HTTP/1.1\r\n")
        assert answer[9:12] in (b"400", b"200")
        assert (await http(port, b"GET /derp HTTP/1.1\r\n"))[9:12] == b"426"
        assert (await http(port, b"POST /derp HTTP/1.1\r\nUpgrade: derp\r\n"))[9:12] == b"405"
        answer = await http(
            port,
            b"GET /derp HTTP/1.1\r\nUpgrade: websocket\r\nSec-WebSocket-Protocol: derp\r\n",
        )
        assert answer[9:12] == b"400"


# -- mesh --


async def two_relays(
    stack: contextlib.AsyncExitStack, *, tls: bool = False
) -> tuple[RunningRelay, RunningRelay]:
    """Run two relays of one region that dial each other."""
    listen = (RelayListen("127.0.0.1", 0, tls=tls),)
    first = await stack.enter_async_context(relay(settings(mesh_key=MESH, listen=listen)))
    second = await stack.enter_async_context(relay(settings(mesh_key=MESH, listen=listen)))
    context = client_context() if tls else None
    scheme = "https" if tls else "http"
    for own, other in ((first, second), (second, first)):
        url = f"{scheme}://127.0.0.1:{other.listeners[0].port}/derp"
        mesh = Mesh(own.door, MESH, (MeshPeer(url),), tls=context, retry_s=0.01)
        task = asyncio.create_task(mesh.run())
        stack.push_async_callback(_cancel, task)
        await until(lambda mesh=mesh: mesh.counters.connected == 1)  # type: ignore[misc]  # bound early
    return first, second


async def _cancel(task: asyncio.Task[None]) -> None:
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_meshed_relays_carry_packets_between_their_clients(tls: bool) -> None:
    async with contextlib.AsyncExitStack() as stack:
        first, second = await two_relays(stack, tls=tls)
        context = client_context() if tls else None
        a = await SocketClient().connect(first.listeners[0].port, tls=context)
        b = await SocketClient().connect(second.listeners[0].port, tls=context)
        await until(lambda: b.key in first.door.server._forwarders)
        await until(lambda: a.key in second.door.server._forwarders)
        a.send(b.key, b"over there")
        assert await b.packet() == (a.key, b"over there")
        for size in (0, 65_536):
            b.send(a.key, bytes(size))
            assert await a.packet() == (b.key, bytes(size))
        assert first.door.counters.forwarded_out == 1
        assert second.door.counters.forwarded_in == 1
        b.stream.close()
        key, reason = derp.decode_peer_gone(await a.frame(FrameType.PEER_GONE))
        assert (key, reason) == (b.key, derp.GoneReason.DISCONNECTED)


async def test_mesh_dials_again_and_forgets_what_it_knew() -> None:
    async with contextlib.AsyncExitStack() as stack:
        first, second = await two_relays(stack)
        b = await SocketClient().connect(second.listeners[0].port)
        await until(lambda: b.key in first.door.server._forwarders)
        second.door.server.close_peer(first.door.public_key)
        await until(lambda: b.key not in first.door.server._forwarders)
        await until(lambda: b.key in first.door.server._forwarders)


async def test_mesh_drops_a_link_to_itself_for_good() -> None:
    async with relay(settings(mesh_key=MESH)) as running:
        url = f"http://127.0.0.1:{running.listeners[0].port}/derp"
        mesh = Mesh(running.door, MESH, (MeshPeer(url),), retry_s=0.01)
        async with asyncio.timeout(10):
            await mesh.run()
        assert mesh.counters.dials == 1


async def test_mesh_survives_peers_that_are_none() -> None:
    """Refused connections, wrong answers, a relay with another mesh key."""
    async with contextlib.AsyncExitStack() as stack:
        other = await stack.enter_async_context(relay(settings(mesh_key=MeshKey(b"x" * 32))))
        own = await stack.enter_async_context(relay(settings(mesh_key=MESH)))

        async def refuse(_reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
            await hang_up(writer)

        server = await asyncio.start_server(refuse, "127.0.0.1", 0)
        stack.callback(server.close)
        web_port = server.sockets[0].getsockname()[1]
        ports = (other.listeners[0].port, web_port, 1)
        peers = tuple(MeshPeer(f"http://127.0.0.1:{port}") for port in ports)
        mesh = Mesh(own.door, MESH, peers, retry_s=0.01)
        task = asyncio.create_task(mesh.run())
        stack.push_async_callback(_cancel, task)
        await until(lambda: mesh.counters.dials >= 9)
        assert not task.done()
        assert mesh.counters.connected == 0 or mesh.counters.broken > 0


class Silent:
    """Between two relays: passes everything on until told to swallow it without closing."""

    def __init__(self, port: int) -> None:
        self.port = port
        self.is_silent = False
        self._writers: list[asyncio.StreamWriter] = []

    async def take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        there, back = await asyncio.open_connection("127.0.0.1", self.port)
        self._writers += [writer, back]
        async with asyncio.TaskGroup() as group:
            group.create_task(self._pass_on(reader, back))
            group.create_task(self._pass_on(there, writer))

    async def _pass_on(self, source: asyncio.StreamReader, sink: asyncio.StreamWriter) -> None:
        with contextlib.suppress(ConnectionError):
            while data := await source.read(65536):
                if not self.is_silent:
                    sink.write(data)
        sink.close()

    def hang_up(self) -> None:
        for writer in self._writers:
            writer.close()


async def test_mesh_pings_a_silent_link_and_gives_a_dead_one_up() -> None:
    """S8: what is between two relays swallows everything, and neither end is told."""
    async with contextlib.AsyncExitStack() as stack:
        other = await stack.enter_async_context(relay(settings(mesh_key=MESH)))
        own = await stack.enter_async_context(relay(settings(mesh_key=MESH)))
        between = Silent(other.listeners[0].port)
        stack.callback(between.hang_up)
        server = await asyncio.start_server(between.take, "127.0.0.1", 0)
        stack.callback(server.close)
        url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}/derp"
        timing = MeshTiming(ping_s=0.02, silence_s=2.0)
        mesh = Mesh(own.door, MESH, (MeshPeer(url),), retry_s=0.01, timing=timing)
        task = asyncio.create_task(mesh.run())
        stack.push_async_callback(_cancel, task)
        await until(lambda: mesh.counters.pings >= 5)
        assert mesh.counters.broken == 0  # it is silent, but it answers
        between.is_silent = True
        await until(lambda: mesh.counters.broken == 1)
        between.is_silent = False
        await until(lambda: mesh.counters.connected == 1)


def test_mesh_urls_are_read() -> None:
    assert parse_url("https://r.test/derp").port == 443
    assert parse_url("http://r.test").path == "/derp"
    assert parse_url("https://[2001:db8::1]:8443/x").host == "2001:db8::1"
    for bad in ("derp://r.test", "https://", "r.test"):
        with pytest.raises(ValueError, match="not the URL"):
            parse_url(bad)


# -- STUN --


class Asker(asyncio.DatagramProtocol):
    def __init__(self) -> None:
        self.answers: list[bytes] = []

    def datagram_received(self, data: bytes, _addr: object) -> None:
        self.answers.append(data)


@pytest.mark.parametrize("host", ["127.0.0.1", "::1"])
async def test_stun_tells_the_address_that_it_sees(host: str) -> None:
    async with relay(settings(stun_listen=((host, 0),))) as running:
        loop = asyncio.get_running_loop()
        transport, asker = await loop.create_datagram_endpoint(
            Asker, remote_addr=(host, running.stun_ports[0])
        )
        transport.sendto(b"garbage")
        transport.sendto(bytes(2000))
        transport.sendto(stunclient.encode_request(b"twelve bytes"))
        await until(lambda: bool(asker.answers))
        txid, address, port = stunclient.decode_response(asker.answers[0])
        own = transport.get_extra_info("sockname")
        assert (txid, str(address), port) == (b"twelve bytes", host, own[1])
        await until(lambda: running.stun.counters.answered == 1)
        assert running.stun.counters.malformed == 2
        transport.close()


async def test_stun_answers_from_the_address_that_was_asked() -> None:
    """127.0.0.2 is another address of the same host; the wildcard socket must answer from it."""
    anywhere = str(IPv4Address(0))
    async with relay(settings(stun_listen=((anywhere, 0),))) as running:
        loop = asyncio.get_running_loop()
        transport, asker = await loop.create_datagram_endpoint(
            Asker, local_addr=("127.0.0.1", 0), remote_addr=("127.0.0.2", running.stun_ports[0])
        )
        transport.sendto(stunclient.encode_request(bytes(12)))
        await until(lambda: bool(asker.answers))  # a connected socket hears no other address
        transport.close()


def test_stun_bounds_one_source_and_unmaps_ipv4() -> None:
    server = StunServer(max_per_source=3)
    request = stunclient.encode_request(bytes(12))
    answers = [server.answer(request, "192.0.2.1", 1, 0.5) for _ in range(5)]
    assert [bool(answer) for answer in answers] == [True, True, True, False, False]
    assert server.counters.limited == 2
    assert server.answer(request, "192.0.2.2", 1, 0.5)
    assert server.answer(request, "192.0.2.1", 1, 1.5)
    mapped = server.answer(request, "::ffff:192.0.2.9", 7, 1.5)
    assert mapped
    assert stunclient.decode_response(mapped)[1:] == (IPv4Address("192.0.2.9"), 7)
    scoped = server.answer(request, "fe80::1%eth0", 7, 1.5)
    assert scoped
    assert stunclient.decode_response(scoped)[1] == IPv6Address("fe80::1")


# -- admission --


async def test_relay_with_a_verifier_admits_whom_control_allows() -> None:
    async with (
        control([allow(True), allow(False)]) as url,
        relay(settings(verify_url=url)) as running,
    ):
        port = running.listeners[0].port
        await SocketClient().connect(port)
        stranger = await SocketClient().connect(port, login=False)
        stranger.stream.write(login_frame(stranger.own, stranger.server_raw))
        await stranger.gone()
        assert running.door.counters.refused[Refusal.NOT_ADMITTED] == 1


# -- abuse --


HALF_OPEN = 2000


def _arrived(listener: Listener) -> int:
    """Count the connections that the listener has taken from the kernel."""
    return listener.accepted + listener.gate.counters.failed + listener.gate.unfinished


@pytest.fixture
def _many_files() -> None:
    """Both ends of all connections are in this process."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    if hard < 3 * HALF_OPEN:
        pytest.skip("too few open files are allowed here")
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


@pytest.mark.usefixtures("_many_files")
@pytest.mark.parametrize("tls", [False, True], ids=["plain", "tls"])
async def test_hostile_peers_disturb_nobody(tls: bool) -> None:
    """Half-open connections, garbage, floods: closed and counted; clients beside them go on."""
    limits = RelayLimits(login_timeout_s=1.0, max_logins=400)
    listen = (RelayListen("127.0.0.1", 0, tls=tls),)
    async with (
        relay(settings(limits=limits, listen=listen)) as running,
        contextlib.AsyncExitStack() as ending,
    ):
        listener = running.listeners[0]
        context = client_context() if tls else None
        a = await SocketClient().connect(listener.port, tls=context)
        b = await SocketClient().connect(listener.port, tls=context)
        for number in range(HALF_OPEN):
            sock = ending.enter_context(socket.create_connection(("127.0.0.1", listener.port)))
            sock.setblocking(False)
            sock.send(_HOSTILE[number % len(_HOSTILE)])
            if number % 50 == 0:
                a.send(b.key, number.to_bytes(4, "big"))
                assert (await b.packet())[1] == number.to_bytes(4, "big")
                await until(lambda number=number: _arrived(listener) >= number)  # type: ignore[misc]  # bound early
        counters = running.door.counters
        if tls:  # none of them gets as far as the relay
            await until(lambda: listener.gate.counters.failed == HALF_OPEN, 30)
        else:
            # Which of them ends a login depends on how fast this machine is.
            counted = (Refusal.LOGIN, Refusal.LATE, Refusal.CROWDED)
            asked = HALF_OPEN // len(_HOSTILE) * 2  # the others never get that far
            await until(lambda: sum(counters.refused[why] for why in counted) == asked, 30)
        assert running.door.unfinished_logins == 0
        assert counters.clients == 2
        b.send(a.key, b"still here")
        assert (await a.packet())[1] == b"still here"


_HOSTILE = (
    HEAD + b"\r\n",  # never logs in
    HEAD + b"\r\n" + bytes(range(200)),  # logs in with garbage
    b"GET /derp HTTP/1.1\r\nHost: r\r\n" + b"X: y\r\n" * 20,  # never ends its head
    bytes(range(255, 0, -1)),  # speaks no HTTP
)


async def test_reader_that_never_reads_costs_its_own_packets_only() -> None:
    async with relay(settings()) as running:
        port = running.listeners[0].port
        a = await SocketClient().connect(port)
        deaf = await SocketClient().connect(port)
        b = await SocketClient().connect(port)
        deaf.stream.pause_reading()
        for _ in range(400):
            a.send(deaf.key, bytes(60_000))
            await asyncio.sleep(0)
        a.send(b.key, b"beside it")
        assert (await b.packet())[1] == b"beside it"
        counters = running.door.counters
        assert sum(counters.dropped.values()) > 0
        assert counters.packets_sent + sum(counters.dropped.values()) == 401
        deaf.stream.abort()


async def test_mesh_client_may_close_peers_over_sockets() -> None:
    async with relay(settings(mesh_key=MESH)) as running:
        port = running.listeners[0].port
        a = await SocketClient().connect(port)
        boss = await SocketClient().connect(port, info=ClientInfo(mesh_key=MESH))
        boss.stream.write(derp.encode_watch_conns())
        await boss.frame(FrameType.PEER_PRESENT)
        boss.stream.write(derpframes.encode_close_peer(a.key))
        await a.gone()
        assert derp.decode_peer_gone(await boss.frame(FrameType.PEER_GONE))[0] == a.key


async def test_tls_without_a_certificate_is_a_mistake() -> None:
    with pytest.raises(ValueError, match="without a certificate"):
        await run(settings(listen=(RelayListen("127.0.0.1", 0),)))


def test_pem_of_the_tests_is_one_file() -> None:
    assert self_signed_pem().count(b"BEGIN") == 2
