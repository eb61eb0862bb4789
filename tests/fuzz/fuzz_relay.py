"""A hostile client of the relay, and a hostile relay of the mesh: closed or obeyed, never a bug.

Beside the hostile one sits an honest pair, whose packets must arrive whatever happens.
"""

from __future__ import annotations

import asyncio
import random
from ipaddress import IPv4Address

from appliance.relay.door import RelayDoor
from appliance.relay.mesh import MeshCounters, MeshLink, parse_url
from appliance.wire import derp, http1
from appliance.wire.derp import ClientInfo, FrameType, LoginBox
from appliance.wire.http1 import Answer
from appliance.wire.keys import MeshKey, PrivateKey
from tests.fuzz.harness import main, mutate, pieces
from tests.relay.wireclient import HEAD, MemoryClient, login_frame
from tests.support import derpframes
from tests.support.memorystream import MemoryStream

SERVER = PrivateKey(b"\x21" * 32)
MESH = MeshKey(b"m" * 32)
HONEST = [PrivateKey(bytes([n]) * 32) for n in (1, 2)]
HOSTILE = PrivateKey(b"\x07" * 32)


def join(door: RelayDoor, own: PrivateKey, info: ClientInfo | None = None) -> MemoryClient:
    stream = MemoryStream(peer=("192.0.2.1", 1))
    sink = door.route(http1.decode_head(HEAD + b"\r\n"), stream)
    assert not isinstance(sink, Answer)
    stream.hand_over(sink)
    stream.take()
    stream.deliver(login_frame(own, SERVER.public_raw, info))
    return MemoryClient(stream, own)


def frames(rng: random.Random) -> bytes:
    """Make frames that a client may or may not send, in any order."""
    keys = [own.public_raw for own in HONEST] + [HOSTILE.public_raw, bytes(32)]
    body = rng.randbytes(rng.choice((0, 1, 40, 1400)))
    return b"".join(
        rng.choice(
            (
                derpframes.encode_send_packet(rng.choice(keys), body),
                derpframes.encode_send_packet(rng.choice(keys), derp.DISCO_MAGIC + bytes(80)),
                derpframes.encode_forward_packet(rng.choice(keys), rng.choice(keys), body),
                derp.encode_ping(rng.randbytes(8)),
                derpframes.encode_note_preferred(preferred=rng.random() < 0.5),
                derp.encode_watch_conns(),
                derpframes.encode_close_peer(HOSTILE.public_raw),
                derp.encode_frame(rng.randrange(256), rng.randbytes(rng.randint(0, 200))),
            )
        )
        for _ in range(rng.randint(1, 12))
    )


async def against_the_relay(rng: random.Random) -> None:
    door = RelayDoor(SERVER, mesh_key=MESH)
    left, right = (join(door, own) for own in HONEST)
    info = ClientInfo(mesh_key=MESH) if rng.random() < 0.4 else None
    hostile = join(door, HOSTILE, info)
    if rng.random() < 0.3:
        hostile = MemoryClient(MemoryStream(), HOSTILE)
        sink = door.route(http1.decode_head(HEAD + b"\r\n"), hostile.stream)
        assert not isinstance(sink, Answer)
        hostile.stream.hand_over(sink)
        hostile.stream.deliver(mutate(rng, login_frame(HOSTILE, SERVER.public_raw, info)))
    data = frames(rng)
    if rng.random() < 0.7:
        data = mutate(rng, data)
    for piece in pieces(rng, data):
        if not hostile.stream.closed:
            hostile.stream.deliver(piece)
        assert len(hostile.stream._kept) <= derp.MAX_FORWARD_BYTES + derp.HEADER_BYTES
    if rng.random() < 0.5:
        hostile.stream.lose()
    right.take()
    left.send(right.key, b"still here")
    assert (left.key, b"still here") in right.packets()
    door.close()
    assert door.counters.clients == 0
    assert door.unfinished_logins == 0


async def against_the_mesh(rng: random.Random) -> None:
    door = RelayDoor(SERVER, mesh_key=MESH)
    link = MeshLink(door, MESH, MeshCounters(), parse_url("https://relay.test/derp"))
    stream = MemoryStream(link)
    far = PrivateKey(b"\x33" * 32)
    box = LoginBox(far, SERVER.public_raw)
    present = derp.PeerPresent(
        rng.randbytes(32), IPv4Address("192.0.2.7"), rng.randrange(65536), derp.PresentFlag.REGULAR
    )
    told = [
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: DERP\r\n\r\n",
        derp.encode_server_key(far.public_raw),
        derp.encode_server_info(box, derp.ServerInfo(), rng.randbytes(24)),
        derp.encode_peer_present(present),
        derp.encode_peer_gone(present.key, rng.randrange(256)),
        derp.encode_peer_present(present),
        derp.encode_frame(FrameType.PING, b"12345678"),
    ]
    data = b"".join(told)
    if rng.random() < 0.8:
        data = mutate(rng, data)
    for piece in pieces(rng, data):
        if not stream.closed:
            stream.deliver(piece)
    link.forward(bytes(32), present.key, memoryview(derpframes.encode_recv_packet(bytes(32), b"x")))
    stream.lose()
    assert door.server.remote_clients == 0
    assert not link.is_up


def case(rng: random.Random) -> None:
    with asyncio.Runner() as runner:
        runner.run(against_the_relay(rng) if rng.random() < 0.7 else against_the_mesh(rng))


if __name__ == "__main__":
    main(case)
