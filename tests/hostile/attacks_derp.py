"""At the relay and at STUN: strangers, liars, floods, and receivers that never read."""

from __future__ import annotations

import asyncio
import os
import socket
import struct

from appliance.wire import derp
from appliance.wire.derp import FrameType, LoginBox
from appliance.wire.keys import MeshKey, NodeKey, PrivateKey
from tests.fuzz.harness import mutate
from tests.hostile.attacks import Battle, attack
from tests.hostile.attacks_members import REGISTER, ask, registration
from tests.hostile.raw import (
    RelayLine,
    open_http2,
    open_relay,
    open_relay_door,
    relay_private,
)
from tests.support import derpframes, stunclient

KEY_BYTES = 32


async def enrol_for_relay(battle: Battle, count: int) -> list[PrivateKey]:
    """Become members whose node keys the relay knows."""
    privates = [PrivateKey.generate(os.urandom) for _ in range(count)]
    line = await open_http2(battle.target)
    for number, private in enumerate(privates):
        body = registration(battle.target.auth_key, NodeKey(private.public_raw), ephemeral=True)
        heard = b""
        if number:
            line = await open_http2(battle.target)
        line.say(ask(1, REGISTER, body))
        while b"MachineAuthorized" not in heard:
            got = await line.hear(10.0)
            if not got:
                raise ConnectionResetError("not let in")
            heard += got
        line.close()
    return privates


@attack("headwater_relay_refused_total")
async def wrong_logins(battle: Battle) -> None:
    """Boxes that do not open, weak keys, other frames first, strangers' keys, wrong mesh keys."""
    rng = battle.rng

    async def one() -> None:
        line, server_raw = await open_relay_door(battle.target)
        private = PrivateKey.generate(os.urandom)
        box = LoginBox(private, server_raw)
        mesh = MeshKey(os.urandom(32))
        good = derp.encode_client_info(
            private.public_raw, box, derp.ClientInfo(mesh_key=mesh), os.urandom(24)
        )
        stranger = derp.encode_client_info(
            private.public_raw, box, derp.ClientInfo(), os.urandom(24)
        )
        other = LoginBox(private, PrivateKey.generate(os.urandom).public_raw)
        data = rng.choice(
            (
                good,
                stranger,
                derp.encode_client_info(bytes(32), box, derp.ClientInfo(), os.urandom(24)),
                derp.encode_client_info(
                    private.public_raw, other, derp.ClientInfo(), os.urandom(24)
                ),
                mutate(rng, good),
                b"\x02\xff\xff\xff\xff" + bytes(1000),
                b"\x02\x00\x00\x3f\xff" + bytes(0x3FFF),
                derpframes.encode_send_packet(private.public_raw, b"x"),
                derp.encode_frame(FrameType.CLIENT_INFO, b""),
                private.public_raw,
                rng.randbytes(100),
            )
        )
        await line.press(data)
        try:
            rest = await line.rest(1.0)
            battle.seen["closed"] += 1
        except TimeoutError:
            rest = b""
            battle.seen["waiting"] += 1
        if data in (good, stranger) and rest[:1] == b"\x03":
            battle.seen["let in"] += 1
        line.close()

    await battle.again(10, one)


@attack("headwater_relay_refused_total:protocol", seconds=3.0)
async def damaged_relay_frames(battle: Battle) -> None:
    """Behind a good login: frames of any type and length, cut and mutated."""
    rng = battle.rng
    (private,) = await enrol_for_relay(battle, 1)

    async def one() -> None:
        line = await open_relay(battle.target, private=private)
        frames = [
            derpframes.encode_send_packet(rng.randbytes(32), rng.randbytes(rng.randint(0, 3000))),
            derp.encode_frame(rng.randrange(256), rng.randbytes(rng.randint(0, 300))),
            struct.pack(
                ">BI", rng.randrange(256), rng.choice((0, 1, 1 << 20, 1 << 31, 0xFFFFFFFF))
            ),
            derp.encode_frame(FrameType.WATCH_CONNS),
            derp.encode_frame(FrameType.CLOSE_PEER, relay_private(0).public_raw),
            derpframes.encode_forward_packet(bytes(32), relay_private(0).public_raw, b"x"),
            struct.pack(">BI", FrameType.SEND_PACKET, KEY_BYTES + 65_537) + bytes(3000),
            struct.pack(">BI", FrameType.SEND_PACKET, 3) + bytes(3),
            struct.pack(">BI", 0x99, 1 << 20) + bytes(1 << 20),
        ]
        data = b"".join(rng.choice(frames) for _ in range(10))
        await line.press(mutate(rng, data) if rng.random() < 0.5 else data)
        battle.seen["closed" if await line.is_closed_within(0.2) else "open"] += 1
        line.close()

    await battle.again(10, one)


@attack("headwater_relay_dropped_packets_total:unknown_dest", seconds=3.0)
async def packets_for_everybody(battle: Battle) -> None:
    """Send to the bystanders and to keys that nobody has, as fast as the relay takes it."""
    privates = await enrol_for_relay(battle, 4)
    everybody = [relay_private(n).public_raw for n in range(12)]
    disco = derp.DISCO_MAGIC + bytes(100)

    async def one(number: int) -> None:
        line = await open_relay(battle.target, private=privates[number])
        while battle.is_on:
            strangers = [battle.rng.randbytes(32) for _ in range(20)]
            # A little for the two who listen: what is sent to them takes the place of other packets.
            batch = b"".join(
                derpframes.encode_send_packet(key, disco if key in strangers else bytes(1200))
                for key in (*everybody, *strangers, *strangers)
            )
            if not await line.press(batch):
                battle.seen["closed"] += 1
                break
            battle.seen["packets"] += 52
            await asyncio.sleep(0.01)
        line.close()

    await battle.many(4, one)


@attack("headwater_relay_dropped_packets_total:queue_tail", seconds=3.0)
async def receivers_that_never_read(battle: Battle) -> None:
    """Let clients be sent as much as possible and read nothing."""
    privates = await enrol_for_relay(battle, 6)
    deaf = [await open_relay(battle.target, private=private) for private in privates[2:]]
    for line in deaf:
        line.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket
    keys = [private.public_raw for private in privates[2:]]

    async def one(number: int) -> None:
        line = await open_relay(battle.target, private=privates[number])
        batch = b"".join(derpframes.encode_send_packet(key, bytes(1200)) for key in keys * 8)
        while battle.is_on and await line.press(batch):
            battle.seen["packets"] += 32
            for each in deaf:
                each.send(derp.encode_ping(bytes(8)) * 50)
            await asyncio.sleep(0.005)
        line.close()

    await battle.many(2, one)


@attack("headwater_relay_refused_total:crowded", seconds=3.0)
async def fights_over_a_key(battle: Battle) -> None:
    """Many connections with one key, each proving again and again that it is the active one."""
    (private,) = await enrol_for_relay(battle, 1)

    async def one(_number: int) -> None:
        line: RelayLine | None = None
        while battle.is_on:
            if line is None or line.reader.at_eof() or line.writer.is_closing():
                line = await open_relay(battle.target, private=private)
                battle.seen["logins"] += 1
            line.send_packet(relay_private(5).public_raw, b"me")
            line.send(derp.encode_ping(bytes(8)))
            await asyncio.sleep(0.02)
        if line is not None:
            line.close()

    await battle.many(120, one)


@attack("headwater_relay_logins_total", seconds=3.0)
async def relay_clients_that_come_and_go(battle: Battle) -> None:
    """Log in and leave without end."""
    (private,) = await enrol_for_relay(battle, 1)

    async def one() -> None:
        line = await open_relay(battle.target, private=private)
        line.send_packet(relay_private(5).public_raw, b"hello")
        line.send(b"\x07\x00\x00\x00\x01\x01")
        await asyncio.sleep(0)
        line.close()

    await battle.again(10, one)


@attack("headwater_stun_requests_total:malformed")
async def garbage_for_stun(battle: Battle) -> None:
    """Send datagrams of every kind, as fast as the kernel takes them."""
    rng = battle.rng
    good = stunclient.encode_request(os.urandom(12))
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as sock:
        sock.setblocking(False)
        sock.connect((battle.target.host, battle.target.stun_port or battle.target.port))
        while battle.is_on:
            for _ in range(200):
                data = rng.choice(
                    (mutate(rng, good), rng.randbytes(rng.randint(0, 1400)), b"", good)
                )
                try:
                    sock.send(data)
                    battle.seen["datagrams"] += 1
                except OSError:
                    break
            await asyncio.sleep(0.005)
