"""ts2021 bytes from strangers, in any pieces: plaintext that was sent, or ProtocolError."""

from __future__ import annotations

import contextlib
import random

from appliance.wire import controlbase
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import MachineKey, PrivateKey
from tests.fuzz.harness import main, mutate, pieces
from tests.support.handshake import ClientHandshake, split_early_payload

SERVER = PrivateKey(b"\x33" * 32)
CLIENT = PrivateKey(b"\x44" * 32)


def case(rng: random.Random) -> None:
    server = controlbase.ServerHandshake(SERVER, rng.randbytes)
    client = ClientHandshake(
        CLIENT, MachineKey(SERVER.public_raw), rng.randrange(1 << 16), rng.randbytes
    )
    with contextlib.suppress(ProtocolError):
        server.read(mutate(rng, client.initiation))
    _, _, response, at_server = server.read(client.initiation)
    texts = [rng.randbytes(rng.choice((0, 1, 100, 4077, 9000))) for _ in range(3)]
    stream = response + b"".join(map(at_server.seal, texts))
    damaged = mutate(rng, stream) if rng.random() < 0.7 else stream
    heard = b""
    try:
        heard = listen(rng, client, damaged)
    except ProtocolError:
        assert damaged != stream
    assert b"".join(texts).startswith(heard)
    with contextlib.suppress(ProtocolError):
        split_early_payload(mutate(rng, controlbase.EARLY_PAYLOAD_MAGIC + bytes(20)))


def listen(rng: random.Random, client: ClientHandshake, data: bytes) -> bytes:
    session: controlbase.Session | None = None
    heard = b""
    for piece in pieces(rng, data):
        if session is None:
            done = client.feed(piece)
            if done is None:
                continue
            session, piece = done  # noqa: PLW2901 the rest of this piece
        heard += session.feed(rng.choice((bytes, bytearray, memoryview))(piece))
    return heard


if __name__ == "__main__":
    main(case)
