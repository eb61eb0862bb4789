"""Inside WebSocket: bad masks, pieces, huge frames, floods of pings, on both doors that offer it."""

from __future__ import annotations

import asyncio
import base64
import os
import struct
from urllib.parse import quote

from appliance.wire.keys import PrivateKey
from appliance.wire.websocket import Opcode, encode_frame
from tests.fuzz.harness import mutate
from tests.hostile.attacks import Battle, attack
from tests.hostile.raw import Line, initiation, open_tls, request

_KEY = base64.b64encode(bytes(16)).decode()


async def open_websocket(battle: Battle, door: str) -> Line:
    """Open a WebSocket at ``/derp`` or ``/ts2021``."""
    line = await open_tls(battle.target)
    path, protocol = "/derp", "derp"
    if door == "control":
        first = initiation(battle.target, PrivateKey.generate(os.urandom)).initiation
        text = quote(base64.b64encode(first).decode(), safe="")
        path, protocol = f"/ts2021?X-Tailscale-Handshake={text}", "tailscale-control-protocol"
    line.send(
        request(
            "GET", path, "Connection: Upgrade", "Upgrade: websocket", "Sec-WebSocket-Version: 13",
            f"Sec-WebSocket-Key: {_KEY}", f"Sec-WebSocket-Protocol: {protocol}",
        )
    )  # fmt: skip
    head = await line.reader.readuntil(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 101 "):
        line.close()
        raise ConnectionRefusedError(head[:60])
    return line


def bad_frames() -> list[bytes]:
    """Give frames that break one rule each."""
    mask = b"abcd"
    return [
        encode_frame(Opcode.BINARY, b"unmasked"),
        encode_frame(Opcode.CONTINUATION, b"out of turn", mask=mask),
        encode_frame(Opcode.TEXT, b"text", mask=mask),
        encode_frame(Opcode.BINARY, b"a", mask=mask, fin=False)
        + encode_frame(Opcode.BINARY, b"b", mask=mask),
        encode_frame(Opcode.PING, bytes(126), mask=mask),
        encode_frame(Opcode.PING, b"x", mask=mask, fin=False),
        b"\xc2\x80" + mask,
        b"\x83\x80" + mask,
        b"\x82\xff" + struct.pack("!Q", 1 << 62) + mask,
        b"\x82\xff" + struct.pack("!Q", (1 << 20) + 1) + mask,
        b"\x82\xff" + struct.pack("!Q", 10) + mask,
        b"\x82\xfe" + struct.pack("!H", 10) + mask,
        encode_frame(Opcode.CLOSE, b"x", mask=mask),
        encode_frame(Opcode.CLOSE, b"\x03\xe8", mask=mask) + b"and more",
    ]


@attack("headwater_control_closed_total:protocol", "headwater_relay_refused_total")
async def broken_websockets(battle: Battle) -> None:
    """Break every rule of the framing, and mutate what is right."""
    rng = battle.rng
    frames = bad_frames()

    async def one() -> None:
        line = await open_websocket(battle, rng.choice(("relay", "control")))
        data = rng.choice(frames)
        if rng.random() < 0.3:
            data = mutate(rng, data)
        await line.press(data)
        battle.seen["closed" if await line.is_closed_within(1.0) else "waiting"] += 1
        line.close()

    await battle.again(10, one)


@attack("headwater_control_closed_total:protocol", "headwater_relay_refused_total")
async def floods_in_websockets(battle: Battle) -> None:
    """Send pings, empty pieces and endless frames without reading anything."""
    mask = b"abcd"
    kinds = (
        encode_frame(Opcode.PING, bytes(125), mask=mask) * 200,
        encode_frame(Opcode.PONG, b"", mask=mask) * 2000,
        encode_frame(Opcode.BINARY, b"", mask=mask, fin=False)
        + encode_frame(Opcode.CONTINUATION, b"", mask=mask, fin=False) * 2000,
        encode_frame(Opcode.BINARY, bytes(1 << 20), mask=mask),
    )

    async def one() -> None:
        line = await open_websocket(battle, battle.rng.choice(("relay", "control")))
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket
        data = battle.rng.choice(kinds)
        sent = 0
        while battle.is_on and sent < 20_000_000:
            line.send(data if sent == 0 or data[0] != 0x02 else data[6:])
            try:
                if line.writer.is_closing() or not await _drained(line):
                    break
            except TimeoutError:
                battle.seen["held back"] += 1
                break
            sent += len(data)
        battle.seen["megabytes"] += sent >> 20
        line.close()

    await battle.again(8, one)


async def _drained(line: Line) -> bool:
    async with asyncio.timeout(0.5):
        await line.writer.drain()
    return not line.writer.is_closing()
