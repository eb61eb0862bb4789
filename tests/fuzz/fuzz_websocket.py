"""WebSocket frames from a hostile client: events or WebSocketError, nothing else, and no hoard."""

from __future__ import annotations

import random

from appliance.wire.websocket import (
    Close,
    FrameReader,
    Opcode,
    WebSocketError,
    encode_frame,
)
from tests.fuzz.harness import main, mutate, pieces


def case(rng: random.Random) -> None:
    masked = rng.random() < 0.8
    sent = b"".join(
        encode_frame(
            rng.choice(list(Opcode)),
            rng.randbytes(rng.choice((0, 1, 2, 125, 126, 300, 70_000))),
            mask=rng.randbytes(4) if masked else None,
            fin=rng.random() < 0.8,
        )
        for _ in range(rng.randint(1, 4))
    )
    hostile = mutate(rng, sent) if rng.random() < 0.8 else rng.randbytes(rng.randint(0, 300))
    reader = FrameReader(masked=True)
    total = 0
    for piece in pieces(rng, hostile):
        total += len(piece)
        try:
            events = reader.feed(piece)
        except WebSocketError:
            return
        assert sum(len(e.payload) for e in events if not isinstance(e, Close)) <= total
        assert len(reader._buffer) <= 14 + 125
        if any(isinstance(event, Close) for event in events):
            return


if __name__ == "__main__":
    main(case)
