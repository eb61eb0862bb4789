"""Members gone bad: enrolled nodes that flood, lie, hoard and never read; and strangers who register."""

from __future__ import annotations

import asyncio
import os
import struct
from ipaddress import ip_network

import msgspec

from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey, NodeKey, PrivateKey
from tests.fuzz.harness import mutate
from tests.hostile.attacks import Battle, attack
from tests.hostile.raw import (
    CAPVER,
    DATA,
    END_HEADERS,
    END_STREAM,
    HEADERS,
    PREFACE,
    SETTINGS,
    WINDOW_UPDATE,
    NoiseLine,
    frame,
    head_block,
    open_http2,
    open_noise,
)

REGISTER = head_block("/machine/register")
MAP = head_block("/machine/map")


def ask(stream: int, head: bytes, body: bytes) -> bytes:
    """Write one request; bodies here are below the window."""
    pieces = [frame(HEADERS, END_HEADERS, stream, head)]
    for at in range(0, len(body) or 1, 16_000):
        last = at + 16_000 >= len(body)
        pieces.append(frame(DATA, END_STREAM if last else 0, stream, body[at : at + 16_000]))
    return b"".join(pieces)


def registration(auth_key: str, node_key: NodeKey, **more: object) -> bytes:
    """Write a register request."""
    return tailcfg.encode(
        msgspec.structs.replace(
            tailcfg.RegisterRequest(
                version=CAPVER,
                node_key=node_key,
                auth=tailcfg.RegisterResponseAuth(auth_key=auth_key),
                hostinfo=tailcfg.Hostinfo(hostname="hostile", os="linux"),
            ),
            **more,
        )
    )


async def enrol(battle: Battle) -> tuple[PrivateKey, NodeKey]:
    """Become a member, which is ephemeral so that nothing stays behind."""
    machine, node_key = PrivateKey.generate(os.urandom), NodeKey(os.urandom(32))
    line = await open_http2(battle.target, machine)
    body = registration(battle.target.auth_key, node_key, ephemeral=True)
    await line.press_plain(ask(1, REGISTER, body))
    heard = b""
    while b"MachineAuthorized" not in heard:
        got = await line.hear(10.0)
        if not got:
            raise ConnectionResetError("not let in")
        heard += got
    line.close()
    return machine, node_key


def poll(node_key: NodeKey, *, zstd: bool = False, stream: bool = True, **more: object) -> bytes:
    """Write a map request."""
    return tailcfg.encode(
        msgspec.structs.replace(
            tailcfg.MapRequest(
                version=CAPVER,
                compress="zstd" if zstd else "",
                keep_alive=True,
                node_key=node_key,
                disco_key=DiscoKey(os.urandom(32)),
                stream=stream,
                hostinfo=tailcfg.Hostinfo(hostname="hostile", os="linux"),
            ),
            **more,
        )
    )


@attack("headwater_control_handshakes_total:accepted")
async def strangers_who_register(battle: Battle) -> None:
    """Register with no key, wrong keys, absurd keys and damaged JSON, again and again."""
    rng = battle.rng
    keys = ("", "hskey-auth-" + "a" * 12 + "-" + "b" * 64, "tskey-auth-x", "x" * 100_000, "\0" * 50)

    async def one() -> None:
        line = await open_http2(battle.target)
        for stream in range(1, 12, 2):
            body = registration(rng.choice(keys), NodeKey(rng.randbytes(32)))
            if rng.random() < 0.5:
                body = mutate(rng, body)
            if not await line.press_plain(ask(stream, REGISTER, body)):
                break
            try:
                await line.hear(1.0)
                battle.seen["answered"] += 1
            except TimeoutError:
                battle.seen["no answer"] += 1
        line.close()

    await battle.again(6, one)


@attack("headwater_control_handshakes_total:accepted")
async def strangers_who_poll(battle: Battle) -> None:
    """Ask for maps of node keys that are nobody's or somebody else's."""
    rng = battle.rng

    async def one() -> None:
        line = await open_http2(battle.target)
        for stream in range(1, 40, 2):
            body = poll(NodeKey(rng.randbytes(32)))
            if rng.random() < 0.4:
                body = mutate(rng, body)
            if not await line.press_plain(ask(stream, MAP, body)):
                break
        try:
            heard = await line.hear(2.0)
            battle.seen["told a map" if b"Peers" in heard else "answered"] += 1
        except TimeoutError:
            battle.seen["no answer"] += 1
        line.close()

    await battle.again(6, one)


def absurd(rng_bytes: bytes) -> tailcfg.Hostinfo:
    """Say of oneself as much as fits into a request, with bytes that databases refuse."""
    nul = "\0\u202e\x1b[2J" + rng_bytes.hex()[:8]
    return tailcfg.Hostinfo(
        hostname="x" * 5000 + nul,
        os=nul,
        os_version="y" * 9_000,
        ipn_version=nul * 40,
        routable_ips=tuple(ip_network((0x0A000000 + n * 256, 24)) for n in range(900)),
        request_tags=(),
        services=tuple(
            tailcfg.Service(proto=nul, port=n % 65536, description=nul) for n in range(100)
        ),
        ssh_host_keys=tuple(nul * 10 for _ in range(30)),
        wol_macs=tuple(nul for _ in range(90)),
    )


@attack("headwater_tailnet_version_total")
async def members_who_lie(battle: Battle) -> None:
    """Tell absurd and ever changing things of oneself, as fast as they are taken."""
    machine, node_key = await enrol(battle)

    async def one() -> None:
        line = await open_http2(battle.target, machine)
        for stream in range(1, 20, 2):
            if not battle.is_on:
                break
            body = poll(
                node_key, stream=False, omit_peers=True, hostinfo=absurd(battle.rng.randbytes(8))
            )
            line.say(ask(stream, MAP, body))
            try:
                await line.hear(5.0)
                battle.seen["answered"] += 1
            except TimeoutError:
                battle.seen["no answer"] += 1
            await asyncio.sleep(0.05)
        line.close()

    await battle.again(2, one)


async def _open_shut(battle: Battle, machine: PrivateKey, window: int) -> NoiseLine:
    line = await open_noise(battle.target, machine)
    said = PREFACE + frame(SETTINGS, 0, 0, struct.pack(">HI", 4, window)) + frame(SETTINGS, 1, 0)
    line.say(said)
    return line


@attack("headwater_control_map_messages_total:full")
async def members_who_never_read(battle: Battle) -> None:
    """Ask for maps with shut windows, or with open ones and a socket that nobody reads."""
    machine, node_key = await enrol(battle)

    async def one(number: int) -> None:
        line = await _open_shut(battle, machine, 0 if number % 2 else 1 << 30)
        if number % 2 == 0:
            line.say(frame(WINDOW_UPDATE, 0, 0, struct.pack(">I", 1 << 30)))
            line.writer.transport.pause_reading()  # type: ignore[attr-defined]  # of a socket
        for stream in range(1, 300, 2):
            body = poll(node_key, stream=stream == 1, read_only=True)
            if not await line.press_plain(ask(stream, MAP, body)):
                battle.seen["closed"] += 1
                break
        battle.seen["held"] += 1
        await asyncio.sleep(max(0.1, battle.seconds - 1))
        line.close()

    await battle.many(20, one)


@attack("headwater_control_map_sessions_total")
async def members_who_poll_anew(battle: Battle) -> None:
    """Open one poll after the other, on one link and on many, so that each ends the one before."""
    machine, node_key = await enrol(battle)

    async def one() -> None:
        line = await open_http2(battle.target, machine)
        for stream in range(1, 100, 2):
            if not await line.press_plain(ask(stream, MAP, poll(node_key))):
                battle.seen["closed"] += 1
                break
            battle.seen["polls"] += 1
            await asyncio.sleep(0.01)
        line.close()

    await battle.again(3, one)


@attack("headwater_control_handshakes_total:accepted")
async def members_who_come_and_go(battle: Battle) -> None:
    """Enrol new nodes without end with a good key; the key's owner would have to stop it."""

    async def one() -> None:
        await enrol(battle)
        battle.seen["enrolled"] += 1

    await battle.again(2, one)
