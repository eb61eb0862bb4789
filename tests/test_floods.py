"""What strangers can make the server write: counted in bytes, with the real doors and the real format.

All records are of one moment, so that no verdict depends on how long the machine takes.
"""

from __future__ import annotations

import io
import logging
import os
import random
from collections.abc import Iterator
from pathlib import Path

import pytest

from appliance import log
from appliance.control.exchange import Exchange
from appliance.control.ts2021 import Ts2021
from appliance.front.dispatch import Front
from appliance.relay import pages
from appliance.relay.door import RelayDoor
from appliance.wire.keys import PrivateKey
from tests.support.memorystream import Alarms, MemoryStream

MINUTE_BYTES = 100_000
"""What the log may grow by in one minute of any attack."""
FLOOD = 1_000
BUGS = 50
"""Enough to be held back; pytest itself formats every traceback, and slowly."""


@pytest.fixture
def written() -> Iterator[io.StringIO]:
    """Set the program's log up as a server does, with every record of one moment."""
    root, package = logging.getLogger(), logging.getLogger("appliance")
    kept = (root.handlers[:], root.level, package.handlers[:], package.level, package.propagate)
    make = logging.getLogRecordFactory()

    def of_one_moment(*args: object, **kwargs: object) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.created = 1_000_000.0
        return record

    logging.setLogRecordFactory(of_one_moment)
    stream = io.StringIO()
    log.set_up("info", "text", stream)
    yield stream
    logging.setLogRecordFactory(make)
    root.handlers[:], root.level, package.handlers[:], package.level, package.propagate = kept


def a_handler(exchange: Exchange) -> None:
    exchange.respond(404, b"")


def doors() -> Front:
    """Make a front with every route that a server has for strangers."""
    key = PrivateKey.generate(os.urandom)
    control, relay = Ts2021(key, a_handler), RelayDoor(key)
    routes = {"/ts2021": control.open, "/derp": relay.route, **pages.routes({"x": ["192.0.2.1"]})}
    return Front(routes, call_later=Alarms().call_later)


async def ask(front: Front, head: str) -> bytes:
    stream = MemoryStream(front.sink(), peer=("192.0.2.1", 1))
    stream.deliver(head.encode("latin-1", "replace"))
    answer = stream.take()
    stream.lose()
    return answer


WEBSOCKET = (
    "Connection: Upgrade\r\nUpgrade: websocket\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
    "Sec-WebSocket-Protocol: tailscale-control-protocol, derp\r\n"
)


async def test_too_many_query_fields_are_a_400_and_no_line(written: io.StringIO) -> None:
    """H4: each of them was a traceback of 850 bytes, without bound."""
    front = doors()
    query = "&".join(f"a{n}=1" for n in range(20))
    for _ in range(20):
        answer = await ask(front, f"GET /ts2021?{query} HTTP/1.1\r\nHost: x\r\n{WEBSOCKET}\r\n")
        assert answer.startswith(b"HTTP/1.1 400 ")
    assert not written.getvalue()


QUERIES = (
    "",
    "?" + "&".join("a" * 300),
    "?" + "%ff%00" * 50,
    "?q=%F0%9F&q=x",
    "?X-Tailscale-Handshake=" + "A" * 2000,
    "?X-Tailscale-Handshake=%ff%%%",
    "?" + ";".join(["a"] * 40),
    "?q=" + "9" * 5000,
)
FIELDS = (
    WEBSOCKET,
    WEBSOCKET.replace("AAAA==", "\xff=="),
    WEBSOCKET.replace(": 13", ": " + "9" * 5000),
    "Upgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n",
    "X-Tailscale-Handshake: " + "9" * 3000 + "\r\n",
    "X-Tailscale-Handshake: \xff\xfe\r\n",
    "Upgrade: DERP\r\nConnection: Upgrade\r\n",
    "Derp-Fast-Start: 1\r\n",
    "Ideal-Node: " + "9" * 5000 + "\r\n",
    "X-Tailscale-Challenge: \xff\r\n",
    "X-Tailscale-Challenge: " + "c" * 3000 + "\r\n",
    "X-Forwarded-For: " + "9" * 5000 + ", ::::, 1.2.3.4.5\r\n",
)


async def test_no_request_of_strangers_at_a_door_is_a_traceback(written: io.StringIO) -> None:
    """H4, the kind: whatever a door parses of a stranger's, it answers itself."""
    front, rng = doors(), random.Random(4)
    paths = [path for path in front.routes if path != "*"]
    for _ in range(FLOOD):
        line = (
            f"{rng.choice(('GET', 'POST', 'HEAD', 'PUT'))} {rng.choice(paths)}{rng.choice(QUERIES)}"
        )
        fields = "".join(rng.sample(FIELDS, rng.randint(0, 3)))
        answer = await ask(front, f"{line} HTTP/1.1\r\nHost: x\r\n{fields}\r\n")
        assert not answer.startswith(b"HTTP/1.1 5"), (line, fields, answer)
    assert not written.getvalue()


async def test_route_that_fails_is_seen_and_bounded(written: io.StringIO) -> None:
    """H4: should a stranger find another bug, it writes three tracebacks and not a disk full."""

    def bug(_head: object, _stream: object) -> None:
        raise ValueError("x" * 10_000)

    front = Front({"/bug": bug}, call_later=Alarms().call_later)
    for number in range(BUGS):
        answer = await ask(front, f"GET /bug?{number} HTTP/1.1\r\nHost: x\r\n\r\n")
        assert answer.startswith(b"HTTP/1.1 500 ")
    text = written.getvalue()
    assert text.count("Traceback") == log.TRACEBACKS_PER_MINUTE
    assert len(text.encode()) < MINUTE_BYTES / 4


def test_the_programs_own_words_stand_in_every_message() -> None:
    """A message that a stranger could write would be a kind of its own each time."""
    program = Path(log.__file__).parent
    built = [
        f"{path.name}: {line.strip()}"
        for path in program.rglob("*.py")
        for line in path.read_text().splitlines()
        if "log.warning(f" in line or "log.error(f" in line or "log.exception(f" in line
    ]
    assert not built
