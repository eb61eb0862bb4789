"""TLS handshakes with and without a question of an authority open: what looking for it costs.

One process is client and server over memory, so that nothing but the handshake is measured: fresh
connections, TLS 1.3, the certificate's key on P-256, as stock clients do it.
"""

from __future__ import annotations

import asyncio
import contextlib
import ssl
import time
from collections.abc import Callable

from appliance.front.tlsstream import HandshakeGate, TlsStream, tune
from appliance.tls.challenges import Challenges
from tests.bench.table import Figure
from tests.fuzz.fuzz_tls import Owner, Transport, feed
from tests.support.certificates import client_context, server_context

HANDSHAKES = 400
ROUNDS = 5
NAME = "asked.example.com"


def shake_hands(client: ssl.SSLContext, server: ssl.SSLContext, challenges: Challenges) -> float:
    """Make one connection; return the seconds of CPU that the server's half took."""
    inb, outb = ssl.MemoryBIO(), ssl.MemoryBIO()
    tls = client.wrap_bio(inb, outb, server_hostname="localhost")
    gate, transport, spent = HandshakeGate(), Transport(), 0.0
    stream = TlsStream(Owner(), server, gate=gate, challenges=challenges)
    stream.connection_made(transport)
    for _ in range(3):
        with contextlib.suppress(ssl.SSLWantReadError):
            tls.do_handshake()
        data = outb.read()
        if not data:
            break
        began = time.process_time()
        feed(stream, data)
        spent += time.process_time() - began
        inb.write(transport.written)
        transport.written = b""
    assert gate.counters.finished == 1
    stream.abort()
    stream.connection_lost(None)
    return spent


async def measure(challenges: Challenges) -> float:
    """Return the µs of CPU of one handshake: the best of some rounds."""
    client, server = client_context(), server_context()
    tune(server)
    best = float("inf")
    for _ in range(ROUNDS):
        spent = sum(shake_hands(client, server, challenges) for _ in range(HANDSHAKES))
        best = min(best, 1e6 * spent / HANDSHAKES)
    return best


async def both() -> tuple[float, float]:
    """Measure in turns, so that a machine that grows busy slows both."""
    quiet, asked = Challenges(), Challenges()
    with asked.by_certificate(NAME, "token.thumbprint"):
        without, during = await measure(quiet), await measure(asked)
        return min(without, await measure(quiet)), min(during, await measure(asked))


def run(repeats: int) -> list[Figure]:
    """Measure both, and the difference."""
    rounds = [asyncio.run(both()) for _ in range(min(repeats, 3))]

    def figure(
        text: str, unit: str, take: Callable[[float, float], float], most: float | None
    ) -> Figure:
        return Figure("hellos", text, unit, tuple(take(*each) for each in rounds), most)

    return [
        figure("handshake, no question open", "µs", lambda without, _: without, None),
        figure("handshake while an authority asks", "µs", lambda _, during: during, None),
        figure("more while it asks", "%", lambda a, b: 100 * (b / a - 1), 5),
    ]
