"""aiohttp behind the dispatcher, over real sockets, beside doors that take connections over."""

from __future__ import annotations

import asyncio
import contextlib
import gzip
import re
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import cast

import aiohttp
import pytest
from aiohttp import web

import appliance
from appliance.front.dispatch import Front
from appliance.front.http import start_web, trust_proxies
from appliance.front.proxy import networks
from appliance.front.stream import Listener, listen
from tests.front.test_dispatch import Taker
from tests.support.certificates import client_context, server_context
from tests.support.pace import patience
from tests.support.polling import until

BIG = bytes(range(256)) * 20_000


class House:
    """An aiohttp application and a door, behind one listener."""

    def __init__(self, runner: web.AppRunner, listener: Listener, *, tls: bool) -> None:
        self.runner = runner
        self.listener = listener
        self.tls = tls
        self.takers: list[Taker] = []

    @property
    def url(self) -> str:
        return f"{'https' if self.tls else 'http'}://localhost:{self.listener.port}"

    @property
    def ssl(self) -> ssl.SSLContext | None:
        return client_context() if self.tls else None

    async def connect(self) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        name = "localhost" if self.tls else None
        return await asyncio.open_connection(
            "127.0.0.1", self.listener.port, ssl=self.ssl, server_hostname=name
        )


async def hello(request: web.Request) -> web.Response:
    return web.Response(text=f"hello {request.remote} {request.scheme}")


async def echo(request: web.Request) -> web.Response:
    return web.Response(body=await request.read())


async def big(_request: web.Request) -> web.Response:
    return web.Response(body=BIG)


async def live(request: web.Request) -> web.WebSocketResponse:
    socket = web.WebSocketResponse()
    await socket.prepare(request)
    async for message in socket:
        await socket.send_str(f"you said {message.data}")
    return socket


@contextlib.asynccontextmanager
async def house(tmp_path: Path, *, tls: bool) -> AsyncIterator[House]:
    (tmp_path / "static.txt").write_bytes(BIG)
    app = web.Application(middlewares=[trust_proxies(networks(["127.0.0.1"]))])
    app.router.add_get("/hello", hello)
    app.router.add_post("/echo", echo)
    app.router.add_get("/big", big)
    app.router.add_get("/live", live)
    app.router.add_static("/static", tmp_path)
    runner = await start_web(app)
    assert runner.server is not None
    takers: list[Taker] = []

    def take(_head: object, _stream: object) -> Taker:
        takers.append(Taker())
        return takers[-1]

    front = Front({"/take": take}, web=runner.server)
    context = server_context()
    listener = await listen(front.sink, "127.0.0.1", 0, tls=(lambda: context) if tls else None)
    made = House(runner, listener, tls=tls)
    made.takers = takers
    try:
        yield made
    finally:
        listener.close()
        listener.abort_streams()
        await until(lambda: not listener.streams)
        await runner.cleanup()


@pytest.mark.parametrize("tls", [False, True])
async def test_ordinary_requests_bodies_and_files(tmp_path: Path, *, tls: bool) -> None:
    async with (
        house(tmp_path, tls=tls) as made,
        aiohttp.ClientSession(
            made.url, connector=aiohttp.TCPConnector(ssl=made.ssl or True)
        ) as client,
    ):
        for _ in range(3):
            async with client.get("/hello") as answer:
                assert await answer.text() == f"hello 127.0.0.1 {'https' if tls else 'http'}"
        async with client.post("/echo", data=BIG[:1_000_000]) as answer:
            assert await answer.read() == BIG[:1_000_000]

        async def chunks() -> AsyncIterator[bytes]:
            for at in range(0, 500_000, 10_001):
                yield BIG[at : min(at + 10_001, 500_000)]

        async with client.post("/echo", data=chunks()) as answer:
            assert await answer.read() == BIG[:500_000]
        for path in ("/big", "/static/static.txt"):
            async with client.get(path) as answer:
                assert await answer.read() == BIG
        async with client.get("/hello", headers={"X-Forwarded-For": "203.0.113.9"}) as answer:
            assert (await answer.text()).startswith("hello 203.0.113.9")
        async with client.get("/hello", headers={"X-Forwarded-Proto": "https"}) as answer:
            assert (await answer.text()).endswith("https")
        with pytest.raises(aiohttp.WSServerHandshakeError):
            await client.ws_connect("/live")
        async with client.get("/nowhere") as answer:
            assert answer.status == 404
        assert len(made.listener.streams) == 1
    assert not made.runner.server or not made.runner.server.connections


@pytest.mark.parametrize("tls", [False, True])
async def test_kept_connection_changes_hands(tmp_path: Path, *, tls: bool) -> None:
    async with house(tmp_path, tls=tls) as made:
        reader, writer = await made.connect()
        for _ in range(2):
            writer.write(b"GET /hello HTTP/1.1\r\nHost: x\r\n\r\n")
            head = await reader.readuntil(b"\r\n\r\n")
            length = int(head.lower().split(b"content-length: ")[1].split(b"\r\n")[0])
            assert (await reader.readexactly(length)).startswith(b"hello")
        writer.write(b"GET /take HTTP/1.1\r\nHost: x\r\nUpgrade: derp\r\n\r\nbehind")
        assert await reader.readexactly(6) == b"hello "
        (taker,) = made.takers
        await until(lambda: taker.data == b"behind")
        assert made.runner.server is not None
        await until(lambda: made.runner.server is not None and not made.runner.server.connections)
        writer.write(b" and more")
        await until(lambda: taker.data == b"behind and more")
        writer.close()
        await until(lambda: taker.events[-1] in ("ended", "lost"))


async def test_slow_reader_of_a_large_answer_is_held_back(tmp_path: Path) -> None:
    async with house(tmp_path, tls=False) as made:
        reader, writer = await made.connect()
        writer.write(b"GET /big HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
        head = await reader.readuntil(b"\r\n\r\n")
        assert b"200" in head
        assert await reader.read() == BIG
        writer.close()


async def test_too_large_a_body_is_refused_before_it_is_sent(tmp_path: Path) -> None:
    async with house(tmp_path, tls=False) as made:
        reader, writer = await made.connect()
        writer.write(b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1100000\r\n\r\n")
        assert (await reader.read()).startswith(b"HTTP/1.1 413")
        writer.close()


async def test_questions_without_reading_are_held_back(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path, tls=False) as made:
        _reader, writer = await made.connect()
        transport = cast(asyncio.Transport, writer.transport)  # uvloop's are no subclasses
        transport.pause_reading()
        while not transport.get_write_buffer_size() > 1 << 20:
            writer.write(b"GET /big HTTP/1.1\r\nHost: x\r\n\r\n" * 2_000)
            await asyncio.sleep(0)
        (stream,) = made.listener.streams
        assert len(stream._kept) <= 64 * 1024
        assert not stream.is_closing()
        transport.abort()
        await until(lambda: not made.listener.streams)
    assert not caplog.records


async def test_compressed_body_is_refused(tmp_path: Path) -> None:
    async with house(tmp_path, tls=False) as made:
        reader, writer = await made.connect()
        bomb = gzip.compress(bytes(1 << 24))
        head = f"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Encoding: gzip\r\nContent-Length: {len(bomb)}"
        writer.write(head.encode() + b"\r\n\r\n" + bomb)
        assert (await reader.read(64)).startswith(b"HTTP/1.1 415")
        writer.close()


async def test_peer_that_leaves_inside_its_request_is_no_error_of_ours(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    async with house(tmp_path, tls=False) as made:
        reader, writer = await made.connect()
        fields = "Expect: 100-continue\r\nTransfer-Encoding: chunked"
        writer.write(f"POST /echo HTTP/1.1\r\nHost: x\r\n{fields}\r\n\r\nzzz\r\n".encode())
        await reader.read()
        writer.close()
        await until(lambda: not made.listener.streams)
    assert not caplog.records


async def test_broken_heads_do_not_reach_aiohttp(tmp_path: Path) -> None:
    async with house(tmp_path, tls=False) as made:
        reader, writer = await made.connect()
        writer.write(
            b"POST /echo HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n"
        )
        assert (await reader.read()).startswith(b"HTTP/1.1 400")
        writer.close()
        assert made.runner.server is not None
        assert not made.runner.server.connections


async def test_stopping_does_not_wait_for_taken_connections(tmp_path: Path) -> None:
    async with house(tmp_path, tls=False) as made:
        reader, writer = await made.connect()
        writer.write(b"GET /take HTTP/1.1\r\nHost: x\r\n\r\n")
        await reader.readexactly(6)
        async with asyncio.timeout(patience(2)):
            await made.runner.cleanup()
        writer.close()


def test_only_the_local_socket_is_served_without_a_front() -> None:
    """H5: what listens for strangers has the front's bounds, whoever adds the next listener."""
    program = Path(appliance.__file__).parent
    bare = re.compile(r"web\.(?:TCP|Sock|Unix)Site\(|run_app\(|start_server\(|create_server\(")
    found = {
        f"{path.relative_to(program)}: {line.strip()}"
        for path in program.rglob("*.py")
        for line in path.read_text().splitlines()
        if bare.search(line)
    }
    assert found == {
        "front/stream.py: server = await loop.create_server(self._make, sock=sock, backlog=BACKLOG)",
        "serve/server.py: await web.SockSite(runner, sock).start()",
    }
