"""DERP frames and boxes from a hostile peer: a value or ProtocolError, nothing else."""

from __future__ import annotations

import contextlib
import random
from collections.abc import Callable

from appliance.wire import derp
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import PrivateKey
from tests.fuzz.harness import main, mutate, pieces
from tests.support import derpframes

SERVER = PrivateKey(b"\x55" * 32)
CLIENT = PrivateKey(b"\x66" * 32)
BOX = derp.LoginBox(CLIENT, SERVER.public_raw)

DECODERS: list[Callable[[bytes], object]] = [
    derp.decode_server_key,
    lambda payload: derp.decode_client_info(payload, SERVER),
    lambda payload: derp.decode_server_info(payload, BOX),
    derpframes.decode_send_packet,
    derpframes.decode_recv_packet,
    derpframes.decode_forward_packet,
    derp.decode_peer_gone,
    derp.decode_peer_present,
    derpframes.decode_close_peer,
    derpframes.decode_note_preferred,
    derp.decode_ping,
    derpframes.decode_health,
    derpframes.decode_restarting,
]


def case(rng: random.Random) -> None:
    nonce = rng.randbytes(24)
    text = mutate(rng, b'{"meshKey":"00","version":2,"CanAckPings":true,"AppName":"x"}')
    key = CLIENT.public_raw if rng.random() < 0.9 else rng.choice((bytes(32), b"\xff" * 32))
    frames = [
        derp.encode_server_key(rng.randbytes(32)),
        derp.encode_frame(derp.FrameType.CLIENT_INFO, key + BOX.seal(text, nonce)),
        derp.encode_frame(derp.FrameType.SERVER_INFO, BOX.seal(text, nonce)),
        derpframes.encode_send_packet(rng.randbytes(32), rng.randbytes(rng.randint(0, 200))),
        derp.encode_frame(rng.randrange(256), rng.randbytes(rng.randint(0, 100))),
    ]
    data = b"".join(rng.sample(frames, 3))
    if rng.random() < 0.7:
        data = mutate(rng, data)
    reader = derp.FrameReader()
    with contextlib.suppress(ProtocolError):
        for piece in pieces(rng, data):
            for frame in reader.feed(piece):
                decode(rng, frame.payload)
    assert reader.unfinished <= len(data)


def decode(rng: random.Random, payload: bytes) -> None:
    for decoder in DECODERS:
        with contextlib.suppress(ProtocolError):
            decoder(payload if rng.random() < 0.5 else mutate(rng, payload))


if __name__ == "__main__":
    main(case)
