"""At ts2021: wrong handshakes, replayed ones, and records that lie."""

from __future__ import annotations

import asyncio
import os

from appliance.wire import noise
from appliance.wire.controlbase import prologue
from appliance.wire.keys import MachineKey, PrivateKey
from tests.fuzz.harness import mutate
from tests.hostile.attacks import Battle, attack
from tests.hostile.raw import (
    CAPVER,
    PATIENT_S,
    PREFACE,
    SETTINGS,
    Target,
    frame,
    initiation,
    open_http2,
    open_noise,
    open_tls,
    request,
    upgrade,
)

FAILED = "headwater_control_handshakes_total:failed"
CLOSED = "headwater_control_closed_total:protocol"

LOW_ORDER = (
    bytes(32),
    b"\x01" + bytes(31),
    bytes.fromhex("e0eb7a7c3b41b8ae1656e3faf19fc46ada098deb9c32b1fd866205165f49b800"),
    bytes.fromhex("5f9c95bca3508c24b1d0b1559c83ef5b04445cc4581c8e86d8224eddd09f1157"),
    b"\xec" + b"\xff" * 30 + b"\x7f",
    b"\xed" + b"\xff" * 30 + b"\x7f",
)
"""Points for which every exchange gives zero. Source: cr.yp.to/ecdh.html, RFC 7748 section 6.1."""


def weak_ephemeral(target: Target, point: bytes) -> bytes:
    """Make an initiation whose ephemeral key is weak: the exchange is known to be zero."""
    server = MachineKey.parse(target.machine_key).raw
    transcript = noise._Transcript(prologue(CAPVER), server)
    transcript.mix_hash(point)
    aead = transcript.mix_key(bytes(32))
    machine = PrivateKey.generate(os.urandom)
    sealed = transcript.seal(aead, machine.public_raw)
    aead = transcript.mix_key(machine.exchange(server))
    return _framed(point + sealed + transcript.seal(aead, b""))


def weak_static(target: Target, point: bytes) -> bytes:
    """Make an initiation that claims a weak static key, for which nobody needs a private one."""
    server = MachineKey.parse(target.machine_key).raw
    transcript = noise._Transcript(prologue(CAPVER), server)
    ephemeral = PrivateKey.generate(os.urandom)
    transcript.mix_hash(ephemeral.public_raw)
    aead = transcript.mix_key(ephemeral.exchange(server))
    sealed = transcript.seal(aead, point)
    aead = transcript.mix_key(bytes(32))
    return _framed(ephemeral.public_raw + sealed + transcript.seal(aead, b""))


def _framed(body: bytes) -> bytes:
    return CAPVER.to_bytes(2, "big") + b"\x01" + len(body).to_bytes(2, "big") + body


@attack(FAILED)
async def wrong_handshakes(battle: Battle) -> None:
    """Initiations with the wrong prologue, for another server, with weak points, damaged or made up."""
    rng, target = battle.rng, battle.target

    def make() -> bytes:
        good = initiation(target, PrivateKey.generate(os.urandom)).initiation
        other = Target(1, str(MachineKey(PrivateKey.generate(os.urandom).public_raw)), "", "")
        kinds = (
            lambda: b"\x00\x31" + good[2:],  # another version than the prologue's
            lambda: initiation(other, PrivateKey.generate(os.urandom)).initiation,
            lambda: weak_ephemeral(target, rng.choice(LOW_ORDER)),
            lambda: weak_static(target, rng.choice(LOW_ORDER)),
            lambda: mutate(rng, good),
            lambda: rng.randbytes(101),
            lambda: good + bytes(600),
            lambda: good[:50],
        )
        return rng.choice(kinds)()

    async def one() -> None:
        line = await open_tls(target)
        first = make()
        line.send(upgrade(first))
        answer = await line.rest(5.0)
        battle.seen["closed"] += 1
        if b"\r\n\r\n\x02" in answer:
            battle.seen["accepted"] += 1

    await battle.again(10, one)


@attack("headwater_control_handshakes_total:refused")
async def wrong_upgrades(battle: Battle) -> None:
    """Upgrade requests that are none."""
    rng = battle.rng
    good = upgrade(initiation(battle.target, PrivateKey.generate(os.urandom)).initiation)
    upgrades = (
        request("GET", "/ts2021"),
        request("POST", "/ts2021", "Upgrade: websocket", "Connection: upgrade"),
        request("POST", "/ts2021", "Upgrade: tailscale-control-protocol", "Connection: upgrade"),
        good.replace(b"Handshake: ", b"Handshake: ====" + b"A" * 3000),
        good.replace(b"Handshake: ", b"Handshake: \xff"),
        good.replace(b"POST", b"GET"),
        good.replace(b"Content-Length: 0", b"Content-Length: 100000") + b"x" * 1000,
        good.replace(b"Content-Length: 0", b"Transfer-Encoding: chunked")
        + b"5\r\nhello\r\n0\r\n\r\n",
    )

    async def one() -> None:
        line = await open_tls(battle.target)
        line.send(rng.choice(upgrades) if rng.random() < 0.7 else mutate(rng, good))
        battle.seen["closed" if await line.is_closed_within(0.5) else "waiting"] += 1
        line.close()

    await battle.again(10, one)


@attack("headwater_control_handshakes_total:accepted")
async def replayed_handshakes(battle: Battle) -> None:
    """Send one recorded initiation again and again; its sender's keys are not ours to use."""
    recorded = initiation(battle.target, PrivateKey.generate(os.urandom)).initiation

    async def one() -> None:
        line = await open_tls(battle.target)
        line.send(upgrade(recorded))
        head = await asyncio.wait_for(line.reader.readuntil(b"\r\n\r\n"), 5)
        battle.seen[head[9:12].decode()] += 1
        # Whoever replays cannot seal anything.
        line.send(b"\x04\x00\x40" + os.urandom(64))
        battle.seen["closed" if await line.is_closed_within(PATIENT_S) else "left open"] += 1
        line.close()

    await battle.again(10, one)


@attack(CLOSED)
async def lying_records(battle: Battle) -> None:
    """Records that are tampered with, repeated, oversized, empty, of another type or error frames."""
    rng = battle.rng

    async def one() -> None:
        line = await open_noise(battle.target)
        good = line.session.seal(PREFACE + frame(SETTINGS, 0, 0))
        bad = rng.choice(
            (
                good[:20] + bytes([good[20] ^ 1]) + good[21:],
                good + good,
                b"\x04\xff\xff" + bytes(5000),
                b"\x04\x10\x01" + bytes(5000),
                b"\x04\x00\x00" * 100,
                b"\x04\x00\x0f" + bytes(15),
                b"\x03\x00\x05hello",
                b"\x02\x00\x30" + bytes(48),
                b"\x01" + bytes(100),
                line.session.seal(b"")[:0] + b"\x04\x00\x10" + bytes(16),
                rng.randbytes(3000),
            )
        )
        await line.press(bad)
        battle.seen["closed" if await line.is_closed_within(PATIENT_S) else "left open"] += 1
        line.close()

    await battle.again(10, one)


@attack("headwater_control_handshakes_total:accepted")
async def strangers_who_stay(battle: Battle) -> None:
    """Open links with fresh machine keys, say nothing or half of something, and hold them."""

    async def one(number: int) -> None:
        line = await (open_noise if number % 2 else open_http2)(battle.target)
        battle.seen["held"] += 1
        if number % 3 == 0:
            line.say(PREFACE[:10])
        await line.is_closed_within(max(0.1, battle.seconds))

    for _ in range(4):
        await battle.many(100, one) if battle.is_on else None
