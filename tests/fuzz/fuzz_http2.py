"""Mutated HTTP/2 inside a good Noise session: the link answers or closes, and never raises."""

from __future__ import annotations

import importlib.util
import logging
import random
import struct
from collections.abc import Callable

from appliance.control.exchange import Exchange, OutStream
from appliance.control.http2 import PREFACE, engine
from appliance.control.link import Link
from appliance.wire.keys import MachineKey
from tests.fuzz.harness import main, mutate, pieces
from tests.support.memorystream import MemoryStream

ENGINES = ["h2"] + (["ngh2"] if importlib.util.find_spec("ngh2") else [])


class NoCipher:
    """Stands for the Noise session: what goes in comes out."""

    def feed(self, data: bytes) -> bytes:
        return data

    def seal(self, data: bytes) -> bytes:
        return data


class Owner:
    """Stands for the door."""

    def __init__(self) -> None:
        self.now = 0.0
        self.reasons: list[str] = []
        self.later: list[Callable[[], None]] = []

    def clock(self) -> float:
        return self.now

    def vouched(self, link: Link) -> None:
        pass

    def call_soon(self, call: Callable[[], None]) -> None:
        self.later.append(call)

    def hoards(self, link: Link, held_bytes: int) -> None:
        pass

    def closed(self, _link: Link, reason: str) -> None:
        self.reasons.append(reason)


def frame(kind: int, flags: int, stream_id: int, payload: bytes) -> bytes:
    head = struct.pack(">I", len(payload))[1:] + struct.pack(">BBI", kind, flags, stream_id)
    return head + payload


def random_frame(rng: random.Random) -> bytes:
    stream_id = rng.choice((0, 1, 1, 3, 5, 2, 7, 2**31 - 1))
    match rng.randrange(9):
        case 0 | 1 | 2:
            pack = b"\x83\x87\x04\x01/\x41\x01x" if rng.random() < 0.8 else rng.randbytes(20)
            return frame(1, rng.choice((4, 5, 5, 0, 0x24, 0x0C)), stream_id, pack)
        case 3 | 4:
            return frame(0, rng.choice((0, 1, 8)), stream_id, rng.randbytes(rng.randint(0, 300)))
        case 5:
            return frame(3, 0, stream_id, rng.randbytes(4))
        case 6:
            setting = struct.pack(
                ">HI", rng.randint(1, 9), rng.choice((0, 1, 100, 2**31 - 1, 16384))
            )
            return frame(4, rng.choice((0, 0, 1)), 0, setting * rng.randint(0, 3))
        case 7:
            return frame(8, 0, stream_id, struct.pack(">I", rng.choice((0, 1, 65535, 2**31 - 1))))
        case _:
            return frame(rng.randint(0, 12), rng.randrange(256), stream_id, rng.randbytes(8))


def act_on(out: OutStream, act: float) -> None:
    if act < 0.3:
        out.write([b"z" * 100])
    elif act < 0.4:
        out.close()
    elif act < 0.5:
        out.abort()


def case(rng: random.Random) -> None:
    owner = Owner()
    streams = []

    def handler(exchange: Exchange) -> None:
        match rng.randrange(5):
            case 0:
                exchange.respond(200, b"x" * rng.choice((0, 5, 20_000, 100_000)))
            case 1 | 2:
                out = exchange.open_stream()
                streams.append(out)
                out.write([b"y" * rng.choice((1, 300, 70_000))])
            case 3:
                exchange.on_closed(lambda: None)
            case _:
                raise ValueError("a bug")

    http = engine(rng.choice(ENGINES))(0.0)
    link = Link(
        owner, handler, NoCipher(), http, machine_key=MachineKey(bytes(32)), version=1, head=b""
    )
    stream = MemoryStream(link)
    data = (
        PREFACE
        + frame(4, 0, 0, b"")
        + b"".join(random_frame(rng) for _ in range(rng.randint(1, 8)))
    )
    if rng.random() < 0.6:
        data = mutate(rng, data)
    logging.disable(logging.CRITICAL)
    try:
        for piece in pieces(rng, data):
            stream.deliver(piece)
            for out in streams:
                act_on(out, rng.random())
            if rng.random() < 0.1 and not stream.closed:
                stream.block()
                stream.unblock()
        while owner.later:
            owner.later.pop()()
            stream.deliver(b"")
        owner.now += rng.choice((0, 50, 500))
        link.sweep(owner.now)
        stream.lose()
    finally:
        logging.disable(logging.NOTSET)
    assert len(owner.reasons) == 1
    assert all(out.closed for out in streams)


if __name__ == "__main__":
    main(case)
