"""At the front door: heads without end, bodies of unclear length, bombs, and readers that never read."""

from __future__ import annotations

import asyncio
import gzip
import zlib

from tests.fuzz.harness import mutate
from tests.hostile.attacks import Battle, attack
from tests.hostile.raw import Line, open_tls, request

REFUSED = "headwater_front_requests_total:refused"

SMUGGLES = (
    b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n"
    b"0\r\n\r\nGET /key?v=130 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n123456",
    b"POST /verify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
    b"POST /verify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
    b"POST /verify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding : chunked\r\n\r\n0\r\n\r\n",
    b"POST /verify HTTP/1.1\r\nHost: x\r\nTransfer-Encoding:\x0bchunked\r\n\r\n0\r\n\r\n",
    b"POST /verify HTTP/1.1\r\nHost: x\r\n Transfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: +5\r\n\r\n12345",
    b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: 5, 5\r\n\r\n12345",
    b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: 0x5\r\n\r\n12345",
    b"POST /verify HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n12345",
    b"POST /verify HTTP/1.1\nHost: x\nContent-Length: 0\n\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nHost: y\r\n\r\n",
    b"GET / HTTP/1.1\r\n\r\n",
    b"GET  / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1 \r\nHost: x\r\n\r\n",
    b"GET / HTTP/2.0\r\nHost: x\r\n\r\n",
    b"GET /\r\n\r\n",
    b"GET /a b HTTP/1.1\r\nHost: x\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: a\x00b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX\x00: b\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\nX: a\rb\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n: b\r\n\r\n",
    b"CONNECT x:443 HTTP/1.1\r\nHost: x\r\n\r\n",
    b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n",
    b"POST /verify HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
    b"GET / HTTP/1.1\r\nHost: x\r\n" + b"A: b\r\n" * 200 + b"\r\n",
    b"GET /" + b"a" * 20_000 + b" HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\x00" * 100,
    b"\r\n" * 5000,
    b"PROXY TCP4 1.2.3.4 5.6.7.8 1 2\r\nGET / HTTP/1.1\r\nHost: x\r\n\r\n",
    b"\r\n\r\n\x00\r\nQUIT\n\x21\x11\x00\x0c" + bytes(12) + b"GET / HTTP/1.1\r\nHost: x\r\n\r\n",
)
"""Forms of request that two readers could understand differently; none may be answered with 2xx."""


@attack(REFUSED)
async def smuggled_requests(battle: Battle) -> None:
    """Send every form that could hide a second request, whole and mutated."""

    async def whole(number: int) -> None:
        line = await open_tls(battle.target)
        line.send(SMUGGLES[number])
        try:
            answer = await line.rest(2.0)
        except TimeoutError:
            battle.seen["left open"] += 1
            return
        battle.seen["closed"] += 1
        if answer.startswith(b"HTTP/1.1 2"):
            battle.seen["answered"] += 1

    await battle.many(len(SMUGGLES), whole)

    async def one() -> None:
        line = await open_tls(battle.target)
        line.send(mutate(battle.rng, battle.rng.choice(SMUGGLES)))
        await line.is_closed_within(0.2)
        line.close()

    await battle.again(20, one)


@attack(REFUSED)
async def heads_without_end(battle: Battle) -> None:
    """Send header fields for ever, and as fast as the server takes them."""

    async def one() -> None:
        line = await open_tls(battle.target)
        line.send(b"GET / HTTP/1.1\r\nHost: x\r\n")
        sent = 0
        while battle.is_on and await line.press(b"X-Field: " + b"y" * 4000 + b"\r\n"):
            sent += 4000
            if sent > 10_000_000:
                battle.seen["left open"] += 1
                return
        battle.seen["closed"] += 1
        line.close()

    await battle.again(20, one)


@attack(REFUSED)
async def bodies_without_end(battle: Battle) -> None:
    """State absurd lengths, send chunks for ever, sizes of a chunk that overflow."""
    rng = battle.rng
    heads = (
        request("POST", "/verify", "Content-Length: 999999999999"),
        request("POST", "/verify", "Content-Length: 1048576"),
        request("POST", "/verify", "Transfer-Encoding: chunked"),
        request("PUT", "/nothing", "Transfer-Encoding: chunked", "Expect: 100-continue"),
        request("POST", "/verify", "Transfer-Encoding: chunked") + b"fffffffffffffffff\r\n",
        request("POST", "/verify", "Transfer-Encoding: chunked") + b"1;" + b"x" * 100_000,
        request("POST", "/verify", "Transfer-Encoding: chunked") + b"-1\r\n",
        request("POST", "/verify", "Transfer-Encoding: chunked") + b"0\r\n" + b"A: b\r\n" * 10_000,
    )

    async def one() -> None:
        line = await open_tls(battle.target)
        line.send(rng.choice(heads))
        chunk = b"400\r\n" + b"x" * 0x400 + b"\r\n"
        sent = 0
        while battle.is_on and sent < 3_000_000 and await line.press(chunk * 16):
            sent += len(chunk) * 16
        line.close()

    await battle.again(20, one)


@attack(REFUSED)
async def compressed_bombs(battle: Battle) -> None:
    """Send small bodies that say that they are compressed and become huge."""
    zeros = bytes(1 << 20)
    press = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = b"".join(press.compress(zeros) for _ in range(100)) + press.flush()
    bombs = (
        ("gzip", bomb),
        ("deflate", zlib.compress(bytes(1 << 24), 9)),
        ("gzip", gzip.compress(gzip.compress(bytes(1 << 24)))),
        ("br", b"\xff" * 1000),
        ("zstd", b"\x28\xb5\x2f\xfd" + b"\xff" * 1000),
    )

    async def one() -> None:
        coding, body = battle.rng.choice(bombs)
        line = await open_tls(battle.target)
        fields = (f"Content-Encoding: {coding}", f"Content-Length: {len(body)}")
        await line.press(request("POST", "/verify", *fields, body=body))
        battle.seen[(await _some(line))[:12].decode("latin-1")] += 1
        line.close()

    await battle.again(8, one)


@attack("headwater_front_requests_total:answered")
async def questions_without_reading(battle: Battle) -> None:
    """Pipeline requests for ever on connections whose answers nobody reads."""
    rng = battle.rng

    async def one(_number: int) -> None:
        line = await open_tls(battle.target)
        line.send(request("GET", "/derp/probe"))
        await line.reader.readexactly(1)  # it is there: what follows is read by nobody
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]  # it is a transport of a socket
        kind = request("GET", rng.choice(("/key?v=130", "/", "/health", "/nothing", "/derp/probe")))
        while battle.is_on:
            line.send(kind * 200)
            try:
                async with asyncio.timeout(0.5):
                    if not await line.press(b""):
                        battle.seen["closed"] += 1
                        break
                battle.seen["requests"] += 200
            except TimeoutError:
                battle.seen["held back"] += 1
        line.close()

    await battle.many(30, one)


@attack("headwater_front_requests_total:replayed")
async def questions_for_verify(battle: Battle) -> None:
    """Ask ``/verify`` in every wrong way, on kept connections."""
    rng = battle.rng
    good = b'{"NodePublic":"nodekey:' + b"0" * 64 + b'","Source":"1.2.3.4"}'
    bodies = (
        b"[" * 4000,
        b'{"a":' * 800,
        b'{"NodePublic":' + b"9" * 4000 + b"}",
        b"\xff" * 100,
        b'{"NodePublic":"' + b"\\ud800" * 100 + b'"}',
        b"x" * 100_000,
        good,
    )
    sentinel = b'"allow":true'

    async def one() -> None:
        line = await open_tls(battle.target)
        for _ in range(20):
            body = rng.choice(bodies)
            body = mutate(rng, body) if rng.random() < 0.5 else body
            length = f"Content-Length: {len(body)}"
            if not await line.press(request("POST", "/verify", length, body=body)):
                break
            answer = await _some(line)
            battle.seen[answer[:12].decode("latin-1")] += 1
            if sentinel in answer.lower().replace(b" ", b""):
                battle.seen["let in"] += 1
        line.close()

    await battle.again(8, one)


async def _some(line: Line) -> bytes:
    try:
        async with asyncio.timeout(2.0):
            return await line.reader.read(1 << 16)
    except TimeoutError:
        return b"silence"


@attack(REFUSED)
async def declined_upgrades(battle: Battle) -> None:
    """Ask for an upgrade that nobody grants, then send what is refused elsewhere."""
    rng = battle.rng
    press = zlib.compressobj(9, zlib.DEFLATED, 31)
    bomb = press.compress(bytes(16 << 20)) + press.flush()
    coded = ("Content-Encoding: gzip", f"Content-Length: {len(bomb)}")
    second = (
        request("GET", "/version", *coded, body=bomb),
        request("POST", "/verify", "Content-Encoding: gzip", "Content-Length: 10", body=b"0" * 10),
        request("POST", "/verify", "Content-Length: 99999999"),
        b"\x81\x85" + bytes(100),
    )
    upgrades = ("websocket", "tcp", "h2c, websocket", "TLS/1.0", "DERP")

    async def one() -> None:
        line = await open_tls(battle.target)
        fields = ("Connection: Upgrade", f"Upgrade: {rng.choice(upgrades)}")
        await line.press(request("GET", "/version", *fields) + rng.choice(second))
        answer = await _some(line)
        answer += await _some(line) if answer.startswith(b"HTTP/1.1 200") else b""
        battle.seen["refused" if b"HTTP/1.1 4" in answer else "silence"] += 1
        line.close()

    await battle.again(8, one)


@attack(REFUSED)
async def sloppy_chunks(battle: Battle) -> None:
    """Send chunks that one reader takes and another does not."""
    head = request("POST", "/verify", "Transfer-Encoding: chunked")
    bodies = (
        b"1 \r\na\r\n0\r\n\r\n",
        b"1;\x00\r\na\r\n0\r\n\r\n",
        b'1;a="\r\na\r\n0\r\n\r\n',
        b"1;a=b;c;;;\r\na\r\n0\r\n\r\n",
        b"0\r\nX : a\r\n\r\n",
        b"0\r\nX\x00: a\r\n\r\n",
        b"0\r\nContent-Length: 5\r\n\r\n",
        b"0\r\nTransfer-Encoding: chunked\r\n\r\n",
    )

    async def one() -> None:
        line = await open_tls(battle.target)
        await line.press(head + battle.rng.choice(bodies))
        battle.seen[(await _some(line))[:12].decode("latin-1")] += 1
        line.close()

    await battle.again(20, one)


@attack("headwater_control_handshakes_total:refused")
async def queries_without_end(battle: Battle) -> None:
    """Ask the nodes' door with more fields in the query than anybody has."""
    query = "&".join(f"a{number}=1" for number in range(40))
    fields = (
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==",
        "Sec-WebSocket-Protocol: tailscale-control-protocol",
    )

    async def one() -> None:
        line = await open_tls(battle.target)
        await line.press(request("GET", f"/ts2021?{query}", *fields))
        battle.seen[(await _some(line))[:12].decode("latin-1")] += 1
        line.close()

    await battle.again(20, one)
