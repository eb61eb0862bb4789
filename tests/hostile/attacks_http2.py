"""Inside Noise: floods and hoards of HTTP/2, by strangers whose machine key nobody knows."""

from __future__ import annotations

import struct

from tests.fuzz.fuzz_http2 import random_frame
from tests.hostile.attacks import Battle, attack
from tests.hostile.raw import (
    CONTINUATION,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PATIENT_S,
    PING,
    PREFACE,
    PRIORITY,
    RST_STREAM,
    SETTINGS,
    WINDOW_UPDATE,
    NoiseLine,
    frame,
    head_block,
    open_http2,
    open_noise,
    window_updates,
)

CLOSED = "headwater_control_closed_total:"
WHOAMI = head_block("/machine/whoami")
REGISTER = head_block("/machine/register")
MAP = head_block("/machine/map")
DONE = END_HEADERS | END_STREAM
PIECE = 60_000


async def pump(battle: Battle, line: NoiseLine, data: bytes, limit: int = 30_000_000) -> None:
    """Send the same frames until the server closes, or time is over."""
    batch = data * max(1, PIECE // len(data))
    sent = 0
    while battle.is_on and sent < limit:
        if not await line.press_plain(batch):
            battle.seen["closed"] += 1
            break
        sent += len(batch)
        if line.reader.at_eof() or await _ended(line):
            battle.seen["closed"] += 1
            break
    if sent >= limit:
        battle.seen["not closed"] += 1
    battle.seen["megabytes"] += sent >> 20
    line.close()


async def _ended(line: NoiseLine) -> bool:
    """Tell whether the server has closed, looking past what it says meanwhile."""
    try:
        return await line.is_closed_within(0.001)
    except OSError:
        return True


@attack(CLOSED + "protocol")
async def floods_of_cheap_frames(battle: Battle) -> None:
    """PING, SETTINGS, PRIORITY, empty DATA, tiny window updates, unknown types, empty CONTINUATION."""
    kinds = (
        frame(PING, 0, 0, bytes(8)),
        frame(PING, 1, 0, bytes(8)),
        frame(SETTINGS, 0, 0),
        frame(SETTINGS, 0, 0, struct.pack(">HI", 1, 4096) * 100),
        frame(PRIORITY, 0, 1, bytes(5)),
        frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1)),
        frame(0x77, 0, 0, b""),
        frame(HEADERS, END_HEADERS, 1, REGISTER) + frame(DATA, 0, 1) * 5000,
        frame(HEADERS, 0, 1, REGISTER) + frame(CONTINUATION, 0, 1) * 5000,
        frame(HEADERS, 0, 1, REGISTER) + frame(CONTINUATION, 0, 1, b"\x40\x01a\x01b" * 20) * 5000,
    )

    async def one() -> None:
        line = await open_http2(battle.target)
        await pump(battle, line, battle.rng.choice(kinds))

    await battle.again(6, one)


@attack(CLOSED + "protocol")
async def rapid_reset(battle: Battle) -> None:
    """Open streams and reset them at once, as fast as possible."""

    async def one() -> None:
        line = await open_http2(battle.target)
        stream = 1
        while battle.is_on:
            parts = []
            for _ in range(300):
                parts.append(frame(HEADERS, DONE, stream, WHOAMI))
                parts.append(frame(RST_STREAM, 0, stream, bytes(4)))
                stream += 2
            if not await line.press_plain(b"".join(parts)) or await _ended(line):
                battle.seen["closed"] += 1
                break
        line.close()

    await battle.again(6, one)


@attack(CLOSED + "protocol")
async def ten_thousand_streams(battle: Battle) -> None:
    """Open as many streams as possible without ending one."""

    async def one() -> None:
        line = await open_http2(battle.target)
        for first in range(1, 20_001, 400):
            opened = (
                frame(HEADERS, END_HEADERS, n, REGISTER) for n in range(first, first + 400, 2)
            )
            if not await line.press_plain(b"".join(opened)) or await _ended(line):
                battle.seen["closed"] += 1
                break
        else:
            battle.seen["not closed"] += 1
        line.close()

    await battle.again(6, one)


@attack(CLOSED + "protocol")
async def questions_of_strangers(battle: Battle) -> None:
    """Ask small things for ever on links of unknown machines, as fast as answers come."""

    async def one() -> None:
        line = await open_http2(battle.target)
        stream = 1
        while battle.is_on:
            asked = b"".join(
                frame(HEADERS, DONE, stream + 2 * n, battle.rng.choice((WHOAMI, MAP, REGISTER)))
                for n in range(80)
            )
            stream += 160
            battle.seen["questions"] += 80
            if not await line.press_plain(asked) or await _ended(line):
                battle.seen["closed"] += 1
                break
        line.close()

    await battle.again(6, one)


@attack(CLOSED + "protocol")
async def header_bombs(battle: Battle) -> None:
    """Few bytes that become many fields: references into the table of HPACK, on every stream."""
    big = b"\x40\x01a\x7f" + b"\xe1\x1e" + b"v" * 4000  # a field of 4,000 bytes into the table
    kinds = (
        big + b"\xbe" * 4000,  # refer to it 4,000 times: 16 MB
        b"\x82" * 15_000,
        b"\x40\x01a\x01b" + b"\xbe" * 450,
        b"\x3f\xe1\xff\xff\xff\x0f",
        b"\xff" * 200,
        b"\x00\x7f\xff\xff\xff\xff\xff\xff\xff\xff\xff\x01",
    )

    async def one() -> None:
        line = await open_http2(battle.target)
        kind = battle.rng.choice(kinds)
        for stream in range(1, 400, 2):
            block = REGISTER + kind
            if not await line.press_plain(frame(HEADERS, END_HEADERS, stream, block)):
                break
        battle.seen["closed" if await line.is_closed_within(PATIENT_S) else "not closed"] += 1
        line.close()

    await battle.again(8, one)


@attack(CLOSED + "crowded")
async def bodies_that_never_end(battle: Battle) -> None:
    """Send bodies up to every bound, on many links at once, and end none."""
    piece = frame(DATA, 0, 1, b"x" * 16_000)

    async def one(_number: int) -> None:
        line = await open_http2(battle.target)
        for stream in range(1, 9, 2):
            line.say(frame(HEADERS, END_HEADERS, stream, REGISTER))
        window = 65_535
        for number in range(4 * 64):  # 1,024,000 bytes each: just below what one body may have
            while window < 16_000:
                heard = await line.hear(10.0)
                if not heard:
                    battle.seen["closed"] += 1
                    return
                window += window_updates(heard)
            stream = 1 + 2 * (number % 4)
            line.say(piece[:5] + stream.to_bytes(4, "big") + piece[9:])
            window -= 16_000
            battle.seen["kilobytes"] += 16
        battle.seen["held"] += 1
        await line.is_closed_within(max(0.1, battle.seconds))
        line.close()

    await battle.many(150, one)


@attack(CLOSED + "protocol")
async def damaged_http2(battle: Battle) -> None:
    """Send frames in any order, good and bad ones."""
    rng = battle.rng

    async def one() -> None:
        line = await open_noise(battle.target)
        said = PREFACE if rng.random() < 0.95 else b"GET / HTTP/1.1\r\n\r\n"
        said += frame(SETTINGS, 0, 0) + b"".join(random_frame(rng) for _ in range(30))
        for at in range(0, len(said), 500):
            if not await line.press_plain(said[at : at + 500]):
                break
        battle.seen["closed" if await line.is_closed_within(PATIENT_S) else "not closed"] += 1
        line.close()

    await battle.again(10, one)


@attack(CLOSED + "protocol")
async def windows_that_stay_shut(battle: Battle) -> None:
    """Ask with a window of zero and never open it, on every stream that one may have."""
    shut = struct.pack(">HI", 4, 0)

    async def one(_number: int) -> None:
        line = await open_noise(battle.target)
        line.say(PREFACE + frame(SETTINGS, 0, 0, shut) + frame(SETTINGS, 1, 0))
        for stream in range(1, 400, 2):
            if not await line.press_plain(frame(HEADERS, DONE, stream, WHOAMI)):
                break
        battle.seen["held"] += 1
        await line.is_closed_within(max(0.1, battle.seconds))
        line.close()

    await battle.many(60, one)
