"""Damaged TLS, from the first byte of the handshake to records after the end: closed, never a bug."""

from __future__ import annotations

import asyncio
import random
import ssl
from typing import Any

from appliance.front import plainstream
from appliance.front.plainstream import Sink, SocketStream
from appliance.front.tlsstream import HandshakeGate, TlsStream
from tests.front.test_stream import Recorder
from tests.fuzz.harness import main, mutate, pieces
from tests.support.certificates import client_context, server_context

SERVER = server_context()
CLIENT = client_context()
VALIDATOR = client_context()
VALIDATOR.set_alpn_protocols(["acme-tls/1"])


class Answers:
    """A question of an authority is open, for every name."""

    is_pending = True

    def context_for(self, _server_name: str | None) -> ssl.SSLContext | None:
        return SERVER


class Transport(asyncio.Transport):
    """Keeps what is written; closing is remembered."""

    def __init__(self) -> None:
        super().__init__()
        self.written = b""
        self.closed = False

    def get_extra_info(self, name: str, default: Any = None) -> Any:
        return ("192.0.2.1", 1) if name == "peername" else default

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self.written += data

    def get_write_buffer_size(self) -> int:
        return 0

    def set_write_buffer_limits(self, high: int | None = None, low: int | None = None) -> None:
        pass

    def is_closing(self) -> bool:
        return self.closed

    def close(self) -> None:
        self.closed = True

    def abort(self) -> None:
        self.closed = True


class Owner:
    def __init__(self) -> None:
        self.sink = Recorder()
        self.ended = 0

    def stream_opened(self, _stream: SocketStream) -> Sink | None:
        return self.sink

    def stream_renamed(self, _stream: SocketStream) -> bool:
        return True

    def stream_closed(self, _stream: SocketStream, _error: Exception | None) -> None:
        self.ended += 1

    def write_stalled(self) -> None:
        pass


def feed(stream: TlsStream, data: bytes) -> None:
    """Do what the event loop does with bytes that came."""
    for at in range(0, len(data), plainstream.RECEIVE_BYTES):
        part = data[at : at + plainstream.RECEIVE_BYTES]
        stream.get_buffer(-1)[: len(part)] = part
        stream.buffer_updated(len(part))


async def attack(rng: random.Random) -> None:
    owner, gate, transport = Owner(), HandshakeGate(), Transport()
    challenges = Answers() if rng.random() < 0.5 else None
    stream = TlsStream(owner, SERVER, gate=gate, challenges=challenges)
    stream.connection_made(transport)
    inb, outb = ssl.MemoryBIO(), ssl.MemoryBIO()
    is_validator = rng.random() < 0.5
    client = (VALIDATOR if is_validator else CLIENT).wrap_bio(
        inb, outb, server_hostname="localhost"
    )
    damaged_at = rng.randrange(5)
    for step in range(5):
        try:
            if step < 2:
                client.do_handshake()
            elif step < 4:
                client.write(rng.randbytes(rng.choice((1, 100, 20_000, 100_000))))
            else:
                client.unwrap()
        except (ssl.SSLWantReadError, ssl.SSLError):
            pass
        data = outb.read()
        if step == damaged_at:
            data = mutate(rng, data) if rng.random() < 0.7 else rng.randbytes(200)
        for piece in pieces(rng, data):
            if not transport.closed:
                feed(stream, piece)
        inb.write(transport.written)
        transport.written = b""
    if owner.sink.stream is not None:  # nobody has a stream before its handshake is over
        assert challenges is None or not is_validator or damaged_at == 0
        stream.write(b"answer" * 1000)
    stream.eof_received()
    stream.connection_lost(None)
    assert gate.unfinished == 0
    assert owner.ended == 1
    assert owner.sink.events.count("lost") == owner.sink.events.count("connected")
    stream.write(b"after the end")


def case(rng: random.Random) -> None:
    with asyncio.Runner() as runner:
        runner.run(attack(rng))


if __name__ == "__main__":
    main(case)
