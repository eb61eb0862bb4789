"""Handshake messages from strangers: opened only if untouched, else ProtocolError."""

from __future__ import annotations

import random

from appliance.wire import noise
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import PrivateKey
from tests.fuzz.harness import main, mutate

SERVER = PrivateKey(b"\x11" * 32)
CLIENT = PrivateKey(b"\x22" * 32)


def case(rng: random.Random) -> None:
    prologue = rng.randbytes(rng.randrange(40))
    initiator = noise.Initiator(
        CLIENT, SERVER.public_raw, prologue, PrivateKey.generate(rng.randbytes)
    )
    initiation = initiator.initiation
    heard = mutate(rng, initiation) if rng.random() < 0.7 else initiation
    try:
        machine, response, at_server = noise.respond(
            SERVER, prologue, heard, PrivateKey.generate(rng.randbytes)
        )
    except ProtocolError:
        assert heard != initiation
        return
    assert (heard, machine) == (initiation, CLIENT.public_raw)
    answer = mutate(rng, response) if rng.random() < 0.5 else response
    try:
        at_client = initiator.finish(answer)
    except ProtocolError:
        assert answer != response
        return
    assert answer == response
    plaintext = rng.randbytes(rng.randrange(100))
    sealed = at_client.send.seal(plaintext)
    record = mutate(rng, sealed) if rng.random() < 0.5 else sealed
    try:
        assert at_server.receive.open(record) == plaintext
        assert record == sealed
    except ProtocolError:
        assert record != sealed


if __name__ == "__main__":
    main(case)
