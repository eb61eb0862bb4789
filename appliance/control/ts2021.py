"""The way into the nodes' door: ``/ts2021`` by HTTP upgrade or by WebSocket, then Noise.

Not for what is said inside (``link`` carries it, the handler answers it) and not for reading the
request head (``front.dispatch`` does, and gives it to ``Ts2021.open``). Keeps account of the links:
how many strangers there are, how fast one source may shake hands, which deadlines have passed.
Source: tailscale control/controlhttp, control/controlbase; reference sections 3.1, 3.2, 3.6.
"""

from __future__ import annotations

import asyncio
import base64
import binascii
import logging
import os
import time
from collections.abc import Callable
from itertools import islice
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl

from appliance.control.http2 import Http2Factory, engine
from appliance.control.link import Link
from appliance.front.source import source_of
from appliance.front.stream import Sink, Stream, WebSocketStream
from appliance.loops import Loop
from appliance.ratelimit import SourceBuckets
from appliance.wire import websocket
from appliance.wire.controlbase import ServerHandshake, encode_early_payload, encode_error
from appliance.wire.errors import ProtocolError
from appliance.wire.http1 import Answer, Head
from appliance.wire.keys import ChallengeKey, PrivateKey

if TYPE_CHECKING:
    from appliance.control.exchange import Handler
    from appliance.wire.keys import MachineKey

log = logging.getLogger(__name__)

# What the protocol says.
UPGRADE = "tailscale-control-protocol"
HANDSHAKE_FIELD = "x-tailscale-handshake"
EARLY_MIN_VERSION = 49
"""Clients below would take the early payload for HTTP/2."""
SWITCHING = (
    b"HTTP/1.1 101 Switching Protocols\r\n"
    b"Upgrade: tailscale-control-protocol\r\nConnection: upgrade\r\n\r\n"
)

# Ours, each with its reason.
MAX_INITIATION_TEXT = 1_024
"""The true text has 136 characters."""
MAX_QUERY_FIELDS = 16
"""Of a WebSocket's URL; clients send one, and parse_qsl raises ValueError for more than it is told."""
MAX_STRANGERS = 4_000
"""Links whose machine key nobody knows, at about 50 KB each; the oldest idle one makes room."""
MAX_STRANGERS_BYTES = 32 << 20
"""What unfinished requests of all strangers together may hold; who holds most is closed."""
MAX_LINKS = 16
"""Links of one machine: stock clients have one, and two while they change networks. The oldest is
closed, which is dead already when a node comes back from nowhere."""
STRANGER_SCAN = 32
"""How many of the oldest strangers are looked at for an idle one, so that making room is cheap."""
SWEEP_S = 5.0
"""How often deadlines are checked; they are 30 s and more."""
SOURCE_BURST = 3_000.0
"""Handshakes that one address may begin at once: a whole site behind one NAT comes back."""
SOURCE_PER_S = 100.0
"""Handshakes of one address in the long run, each about 0.7 ms of our time: 7 % of a core."""
MAX_SOURCES = 20_000
"""Addresses that are remembered; the least recent one is forgotten, which only favours it."""


class Ts2021Counters:
    """What happened at the door, for the metrics."""

    __slots__ = ("accepted", "closed", "evicted", "failed", "refused", "throttled", "websocket")

    def __init__(self) -> None:
        self.accepted = 0
        self.websocket = 0
        """Of the accepted ones."""
        self.refused = 0
        """Requests that were not a proper upgrade."""
        self.failed = 0
        """Handshakes that did not work out: wrong server key, damaged or made-up initiation."""
        self.throttled = 0
        self.evicted = 0
        self.closed: dict[str, int] = {}
        """By reason; the reasons are the few words that ``link`` uses."""


class Farewell:
    """A sink that says its last words and closes: for refusals that come behind the 101."""

    __slots__ = ("_words",)

    def __init__(self, words: bytes) -> None:
        self._words = words

    def connected(self, stream: Stream) -> None:
        """Speak and close."""
        stream.write(self._words)
        stream.close()

    def received(self, _buffer: bytearray, _view: memoryview, end: int) -> int:
        """Ignore what still comes."""
        return end

    def ended(self) -> None:
        """Nothing to do: it is closing."""

    def paused(self) -> None:
        """Nothing to do: it writes no more."""

    def resumed(self) -> None:
        """Nothing to do: it writes no more."""

    def lost(self, error: Exception | None) -> None:
        """Nothing to do: nothing was held."""


class Ts2021:
    """The door: makes links out of upgrade requests and watches over them.

    ``handler`` answers the requests inside. ``is_known`` tells at the handshake whether somebody
    knows the machine key: its holder is a stranger only until the first record opens, so that a
    reconnect storm of our own nodes does not crowd the door. Otherwise a handler vouches later.
    """

    def __init__(
        self,
        private_key: PrivateKey,
        handler: Handler,
        *,
        http2: Http2Factory | None = None,
        is_known: Callable[[MachineKey], bool] | None = None,
        sources: SourceBuckets | None = None,
        max_strangers: int = MAX_STRANGERS,
        max_strangers_bytes: int = MAX_STRANGERS_BYTES,
        clock: Callable[[], float] = time.monotonic,
        call_soon: Callable[[Callable[[], None]], object] | None = None,
        random_bytes: Callable[[int], bytes] = os.urandom,
    ) -> None:
        self.clock = clock
        self.call_soon = call_soon or _on_the_loop
        self.counters = Ts2021Counters()
        self.links: set[Link] = set()
        self._handshake = ServerHandshake(private_key, random_bytes)
        self._handler = handler
        self._http2 = http2 or engine()
        self._is_known = is_known
        self._sources = sources or SourceBuckets(SOURCE_BURST, SOURCE_PER_S, MAX_SOURCES)
        self._max_strangers = max_strangers
        self._max_strangers_bytes = max_strangers_bytes
        self._strangers: dict[Link, int] = {}
        self._hoarded = 0
        self._by_machine: dict[MachineKey, dict[Link, None]] = {}
        # Nothing of ours reads an answer to the challenge, and clients stopped to give one with
        # 1.90, so one key serves the whole process.
        challenge = PrivateKey.generate(random_bytes).public_raw
        self._early = encode_early_payload(ChallengeKey(challenge))

    def open(self, head: Head, stream: Stream) -> Sink | Answer:
        """Take an upgrade request over, or refuse it (the route of ``/ts2021``)."""
        if websocket.is_handshake(head):
            return self._open_websocket(head, stream)
        if UPGRADE not in head.tokens("upgrade"):
            self.counters.refused += 1
            return _refusal(
                f"want Upgrade: {UPGRADE}. A proxy in front of this server must pass the Upgrade"
                " and Connection fields on, also for POST."
            )
        if head.method != "POST":
            self.counters.refused += 1
            return _refusal("the upgrade is a POST")
        if not self._admit(stream):
            return _THROTTLED
        initiation = _decode_initiation(head.get(HANDSHAKE_FIELD))
        if initiation is None:
            self.counters.refused += 1
            return _refusal("X-Tailscale-Handshake is missing or not base64")
        try:
            return self._shake_hands(initiation, SWITCHING)
        except ProtocolError as error:
            self._note_failure(stream, error)
            return Farewell(SWITCHING + encode_error(_explain(error)))

    def sweep(self) -> None:
        """Check every link's deadlines."""
        now = self.clock()
        for link in list(self.links):
            try:
                link.sweep(now)
            except Exception:
                # A bug: this link is of no more use, and the others must be swept all the same.
                log.exception("link failed", extra={"machine_key": link.machine_key.short})
                link.abandon()

    def loops(self) -> tuple[Loop, ...]:
        """Return what must run for deadlines to be kept."""
        return (Loop("control sweep", self.sweep, SWEEP_S),)

    async def close(self) -> None:
        """End every link with a GOAWAY and wait for the handlers that still run."""
        tasks = [task for link in self.links for task in link.tasks]
        for link in list(self.links):
            link.close("stopping")
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    # -- for the links (``link.Owner``) --

    def vouched(self, link: Link) -> None:
        """Take note that the link's machine key is known; close one if it has too many links."""
        self._hoarded -= self._strangers.pop(link, 0)
        links = self._by_machine.setdefault(link.machine_key, {})
        links[link] = None
        if len(links) > MAX_LINKS:
            oldest = next(iter(links))
            del links[oldest]
            oldest.close("superseded")

    def hoards(self, link: Link, held_bytes: int) -> None:
        """Take note what a stranger's unfinished requests hold; close the worst if it is too much."""
        if link not in self._strangers:
            return
        self._hoarded += held_bytes - self._strangers[link]
        self._strangers[link] = held_bytes
        if self._hoarded > self._max_strangers_bytes:
            worst = max(self._strangers, key=self._strangers.__getitem__)
            self._hoarded -= self._strangers.pop(worst)
            self.counters.evicted += 1
            worst.close("crowded")

    def closed(self, link: Link, reason: str) -> None:
        """Forget the link and count why it ended."""
        self.links.discard(link)
        self._hoarded -= self._strangers.pop(link, 0)
        links = self._by_machine.get(link.machine_key)
        if links is not None and link in links:
            del links[link]
            if not links:
                del self._by_machine[link.machine_key]
        self.counters.closed[reason] = self.counters.closed.get(reason, 0) + 1

    # -- inside --

    def _open_websocket(self, head: Head, stream: Stream) -> Sink | Answer:
        try:
            fields = dict(parse_qsl(head.query, max_num_fields=MAX_QUERY_FIELDS))
            switching = websocket.answer_handshake(head, UPGRADE)
        except websocket.WebSocketError as error:
            self.counters.refused += 1
            return _refusal(str(error))
        except ValueError:
            self.counters.refused += 1
            return _refusal(f"the query has more than {MAX_QUERY_FIELDS} fields")
        if not self._admit(stream):
            return _THROTTLED
        lowered = {name.lower(): value for name, value in fields.items()}
        initiation = _decode_initiation(lowered.get(HANDSHAKE_FIELD))
        goodbye = Farewell(switching + websocket.encode_close(websocket.CloseCode.POLICY))
        if initiation is None:
            self.counters.refused += 1
            return goodbye
        try:
            link = self._shake_hands(initiation, b"")
        except ProtocolError as error:
            self._note_failure(stream, error)
            return goodbye
        self.counters.websocket += 1
        stream.write(switching)
        return WebSocketStream(link)

    def _shake_hands(self, initiation: bytes, switching: bytes) -> Link:
        machine_key, version, response, session = self._handshake.read(initiation)
        link = Link(
            self,
            self._handler,
            session,
            self._http2(self.clock()),
            machine_key=machine_key,
            version=version,
            head=switching + response,
            early=self._early if version >= EARLY_MIN_VERSION else b"",
            recognised=self._is_known is not None and self._is_known(machine_key),
        )
        self.counters.accepted += 1
        self.links.add(link)
        self._strangers[link] = 0
        if len(self._strangers) > self._max_strangers:
            self._evict()
        return link

    def _admit(self, stream: Stream) -> bool:
        source = source_of(stream.peer)
        if source is None or self._sources.allow(source, self.clock()):
            return True
        self.counters.throttled += 1
        return False

    def _evict(self) -> None:
        """Close an old stranger: an idle one among the oldest, else the oldest."""
        oldest = list(islice(self._strangers, STRANGER_SCAN))
        victim = next((link for link in oldest if not link.streams), oldest[0])
        self._hoarded -= self._strangers.pop(victim)
        self.counters.evicted += 1
        victim.close("crowded")

    def _note_failure(self, stream: Stream, error: ProtocolError) -> None:
        self.counters.failed += 1
        remote = stream.peer[0] if stream.peer else None
        log.debug("noise handshake failed", extra={"remote": remote, "reason": str(error)})


def _on_the_loop(call: Callable[[], None]) -> object:
    return asyncio.get_running_loop().call_soon(call)


def _decode_initiation(text: str | None) -> bytes | None:
    if not text or len(text) > MAX_INITIATION_TEXT:
        return None
    try:
        return base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return None


def _refusal(sentence: str) -> Answer:
    return Answer(400, sentence.encode() + b"\n", close=True)


def _explain(error: ProtocolError) -> str:
    return f"{error} (if the server's key has changed, restart tailscaled)"


_THROTTLED = Answer(
    429,
    b"too many connections from this address\n",
    headers={"Retry-After": "5"},
    close=True,
)
