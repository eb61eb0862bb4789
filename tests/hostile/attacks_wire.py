"""Below HTTP: connections that say nothing, and bytes that are no TLS."""

from __future__ import annotations

import asyncio
import contextlib
import ssl

from tests.fuzz.harness import mutate
from tests.hostile.attacks import Battle, attack
from tests.hostile.raw import LIMIT, Line, open_relay_door, open_tcp, open_tls, request
from tests.hostile.victim import any_certificate

SILENT = 700
DEADLINE_S = 16.0
"""The server's own deadlines are 10 s; a loaded machine is given more."""


def client_hello() -> bytes:
    """Give a good first flight of TLS."""
    incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = any_certificate().wrap_bio(incoming, outgoing, server_hostname="server")
    with contextlib.suppress(ssl.SSLWantReadError):
        tls.do_handshake()
    return outgoing.read()


@attack("headwater_tls_handshakes_total:timed_out", "headwater_front_requests_total:late")
async def two_thousand_half_open(battle: Battle) -> None:
    """Stop at every stage: after TCP, after ClientHello, after TLS, inside a head, at a login."""
    hello = client_hello()

    async def wait(line: Line, stage: str) -> None:
        battle.seen["opened"] += 1
        battle.seen[f"{stage}"] += 1
        if await line.is_closed_within(DEADLINE_S):
            battle.seen["closed"] += 1
        else:
            battle.seen[f"left open {stage}"] += 1

    async def tcp(_number: int) -> None:
        await wait(await open_tcp(battle.target), "tcp")

    async def half_tls(_number: int) -> None:
        line = await open_tcp(battle.target)
        line.send(hello)
        await wait(line, "client hello")

    async def no_head(_number: int) -> None:
        await wait(await open_tls(battle.target), "tls")

    async def half_head(_number: int) -> None:
        line = await open_tls(battle.target)
        line.send(b"GET / HTTP/1.1\r\nHost: x\r\nX: ")
        drip = asyncio.create_task(_drip(line))
        await wait(line, "head")
        drip.cancel()

    async def half_login(_number: int) -> None:
        line, _ = await open_relay_door(battle.target)
        line.send(b"\x02\x00\x00")
        await wait(line, "login")

    await asyncio.gather(
        battle.many(SILENT, tcp),
        battle.many(SILENT, half_tls),
        battle.many(400, no_head),
        battle.many(100, half_head),
        battle.many(100, half_login),
    )


async def _drip(line: Line) -> None:
    while True:
        await asyncio.sleep(0.25)
        line.send(b"a")


@attack("headwater_tls_handshakes_total:failed")
async def bytes_that_are_no_tls(battle: Battle) -> None:
    """Send garbage, damaged first flights, plain HTTP and an old protocol to the TLS port."""
    hello = client_hello()
    rng = battle.rng

    async def one() -> None:
        line = await open_tcp(battle.target)
        data = rng.choice(
            (
                rng.randbytes(rng.randint(1, 4000)),
                mutate(rng, hello),
                hello[:5] + rng.randbytes(600),
                request("GET", "/"),
                b"\x80\x2e\x01\x00\x02" + rng.randbytes(44),
                b"".join(b"\x16\x03\x01\x00\x01" + hello[n : n + 1] for n in range(5, 300)),
                b"\x16\x03\x01\xff\xff" + bytes(70_000),
                b"\x15\x03\x03\x00\x02\x02\x28",
            )
        )
        await line.press(data)
        try:
            await line.rest(0.3)
            battle.seen["closed"] += 1
        except TimeoutError:
            battle.seen["waiting"] += 1
        line.close()

    await battle.again(40, one)


@attack("headwater_front_requests_total:refused")
async def bytes_that_are_no_http(battle: Battle) -> None:
    """Finish TLS, then send garbage in large and in tiny records."""
    rng = battle.rng

    async def one() -> None:
        line = await open_tls(battle.target)
        if rng.random() < 0.5:
            await line.press(rng.randbytes(rng.randint(1, 40_000)))
        else:
            for byte in b"GET / HTTP/1.1\r\nX" + b"y" * 1500:
                line.send(bytes([byte]))  # a record each
            await line.press(b"\r\n" * 4000)
        await line.is_closed_within(0.3)
        line.close()

    await battle.again(20, one)


@attack("headwater_tls_handshakes_total:failed")
async def damaged_tls_records(battle: Battle) -> None:
    """Finish TLS, then send records that do not open, alerts, and handshakes out of turn."""
    rng = battle.rng

    async def one() -> None:
        line = await open_tcp(battle.target)
        incoming, outgoing = ssl.MemoryBIO(), ssl.MemoryBIO()
        tls = any_certificate().wrap_bio(incoming, outgoing, server_hostname="server")
        while True:
            try:
                tls.do_handshake()
                break
            except ssl.SSLWantReadError:
                line.send(outgoing.read())
                data = await asyncio.wait_for(line.reader.read(LIMIT), 5)
                if not data:
                    return
                incoming.write(data)
        tls.write(b"GET / HTTP/1.1\r\n")
        good = outgoing.read()
        await line.press(mutate(rng, good) + rng.randbytes(20))
        await line.is_closed_within(0.3)
        line.close()

    await battle.again(20, one)
