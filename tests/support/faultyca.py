"""A front before a true authority that does what authorities do on bad days.

It passes requests on to Pebble, except those that ``fault`` takes. Not for the authority itself
(``pebble``).
"""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field

from tests.support.pebble import Pebble

Fault = Callable[["Request", asyncio.StreamWriter], Awaitable[bool]]
"""Answers a request itself, or gives False to have it passed on."""


@dataclass(frozen=True, slots=True)
class Request:
    method: str
    path: str
    head: bytes
    body: bytes


async def pass_on(_request: Request, _writer: asyncio.StreamWriter) -> bool:
    return False


@dataclass
class Front:
    """Where it is, what it does, what it was asked."""

    pebble: Pebble
    port: int = 0
    fault: Fault = pass_on
    asked: list[Request] = field(default_factory=list)

    @property
    def url(self) -> str:
        return f"https://127.0.0.1:{self.port}/dir"

    def count(self, part: str) -> int:
        """Count the requests to paths with this part."""
        return sum(part in each.path for each in self.asked)


def answer(status: int, body: object, *headers: str) -> bytes:
    """Write an answer; what is no bytes becomes JSON."""
    data = body if isinstance(body, bytes) else json.dumps(body).encode()
    lines = [f"HTTP/1.1 {status} X", f"Content-Length: {len(data)}", "Connection: close", *headers]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + data


def problem(kind: str, detail: str, *headers: str, status: int = 403) -> bytes:
    """Write a problem of ACME."""
    body = {"type": f"urn:ietf:params:acme:error:{kind}", "detail": detail, "status": status}
    return answer(status, body, "Content-Type: application/problem+json", *headers)


@asynccontextmanager
async def before(pebble: Pebble) -> AsyncIterator[Front]:
    """Stand before an authority while the block lasts."""
    front = Front(pebble)
    server_side = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server_side.load_cert_chain(pebble.directory / "server.pem", pebble.directory / "server.key")
    client_side = ssl.create_default_context(cafile=str(pebble.ca_file))
    tasks: set[asyncio.Task[None]] = set()

    async def take(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        tasks.add(task)
        with suppress(OSError, asyncio.IncompleteReadError, asyncio.CancelledError):
            await _take(front, client_side, reader, writer)
        tasks.discard(task)
        writer.close()

    server = await asyncio.start_server(take, "127.0.0.1", 0, ssl=server_side)
    front.port = server.sockets[0].getsockname()[1]
    try:
        yield front
    finally:
        server.close()
        for task in tuple(tasks):
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


async def _take(
    front: Front,
    client_side: ssl.SSLContext,
    reader: asyncio.StreamReader,
    writer: asyncio.StreamWriter,
) -> None:
    head = await reader.readuntil(b"\r\n\r\n")
    length = 0
    for line in head.lower().split(b"\r\n"):
        if line.startswith(b"content-length:"):
            length = int(line.partition(b":")[2])
    body = await reader.readexactly(length)
    method, path, _ = head.split(b" ", 2)
    request = Request(method.decode(), path.decode(), head, body)
    front.asked.append(request)
    if await front.fault(request, writer):
        return
    there, out = await asyncio.open_connection("127.0.0.1", front.pebble.ports[0], ssl=client_side)
    # Pebble makes its URLs from the Host header, so they all lead here.
    out.write(head.replace(b"Connection: keep-alive", b"Connection: close") + body)
    writer.write(await there.read())
    await writer.drain()
    out.close()
