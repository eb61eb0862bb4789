"""The PROXY header in front of TLS, over real sockets."""

from __future__ import annotations

import asyncio
import functools
import ssl

import pytest

from appliance.front.dispatch import Front, Head
from appliance.front.proxy import networks
from appliance.front.proxystream import ProxiedTlsStream
from appliance.front.stream import Listener, Stream, listen
from appliance.wire.http1 import Answer
from tests.support.certificates import client_context, server_context
from tests.support.pace import patience
from tests.support.polling import until
from tests.support.proxyheaders import encode_v1, encode_v2

CLIENT = ("203.0.113.9", 4242)
HEADERS = [encode_v1(CLIENT, ("10.0.0.1", 443)), encode_v2(CLIENT, ("10.0.0.1", 443))]


async def start(trusted: str, peers: list[tuple[str, int] | None]) -> Listener:
    def who(_head: Head, stream: Stream) -> Answer:
        peers.append(stream.peer)
        return Answer(200, b"hello", close=True)

    context = server_context()
    return await listen(
        Front({"/who": who}).sink,
        "127.0.0.1",
        0,
        tls=lambda: context,
        make_tls=functools.partial(ProxiedTlsStream, trusted=networks([trusted])),
    )


async def ask(port: int, header: bytes, pieces: int) -> bytes:
    """Send the header in pieces, the last of them together with the TLS hello."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client_context().wrap_bio(incoming, outgoing, server_hostname="localhost")
    step = max(1, len(header) // pieces)
    *early, first = [header[at : at + step] for at in range(0, len(header), step)] or [b""]
    for piece in early:
        writer.write(piece)
        await writer.drain()
        await asyncio.sleep(0)
    answer = b""
    asked = False
    async with asyncio.timeout(patience(10)):
        while True:
            try:
                if not asked:
                    tls.do_handshake()
                    tls.write(b"GET /who HTTP/1.1\r\nHost: x\r\n\r\n")
                    asked = True
                answer += tls.read(4096) or b""
            except ssl.SSLWantReadError:
                pass
            except (ssl.SSLZeroReturnError, ssl.SSLEOFError):
                break
            writer.write(first + outgoing.read())
            first = b""
            data = await reader.read(65536)
            if not data:
                break
            incoming.write(data)
    writer.close()
    return answer


@pytest.mark.parametrize("header", HEADERS, ids=["v1", "v2"])
@pytest.mark.parametrize("pieces", [1, 5])
async def test_client_is_named_before_tls(header: bytes, pieces: int) -> None:
    peers: list[tuple[str, int] | None] = []
    listener = await start("127.0.0.1", peers)
    assert (await ask(listener.port, header, pieces)).endswith(b"hello")
    assert peers == [CLIENT]
    await until(lambda: not listener.streams)
    assert listener.gate.unfinished == 0
    listener.close()


async def test_untrusted_peers_speak_tls_at_once() -> None:
    peers: list[tuple[str, int] | None] = []
    listener = await start("192.0.2.0/24", peers)
    assert (await ask(listener.port, b"", 1)).endswith(b"hello")
    assert peers[0] is not None
    assert peers[0][0] == "127.0.0.1"
    assert await ask(listener.port, HEADERS[0], 1) == b""
    listener.close()


async def test_trusted_peer_without_a_header_is_closed() -> None:
    peers: list[tuple[str, int] | None] = []
    listener = await start("127.0.0.1", peers)
    assert await ask(listener.port, b"", 1) == b""
    assert not peers
    await until(lambda: not listener.gate.unfinished)
    listener.close()
