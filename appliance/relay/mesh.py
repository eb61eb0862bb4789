"""The mesh: links from this relay to every other one of its region.

Dials the others for good, hears who is connected there, and sends packets for those on. Each
direction uses the link that the sender of the packet has dialled. Not for what others send us over
the links that they dialled: those are ordinary clients with the mesh key (``link``).
Source: tailscale v1.104.5 cmd/derper/mesh.go, derp/derphttp/mesh_client.go.
"""

from __future__ import annotations

import asyncio
import logging
import random
import ssl
from contextlib import suppress
from dataclasses import dataclass
from enum import Enum, auto
from functools import partial
from urllib.parse import urlsplit

from appliance.front.stream import Stream, dial
from appliance.loops import Loop, run_all
from appliance.relay.door import RelayDoor
from appliance.relay.scan import forward_frames
from appliance.wire import derp
from appliance.wire.derp import ClientInfo, Frame, FrameReader, FrameType, LoginBox
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import MeshKey

log = logging.getLogger(__name__)

# -- our own limits --

PING_S = 10.0
"""A link that said nothing for so long is pinged. Relays answer; their own keep-alives come once a
minute, and until a dead link is noticed every packet for the other relay is lost."""

SILENCE_S = 30.0
"""A link that says nothing for so long, pings included, is dead."""

RETRY_S = 5.0
"""Before dialling again; official relays wait the same. Some jitter comes on top."""

LOGIN_TIMEOUT_S = 10.0
"""From the connection until the other relay has answered the login."""

MAX_HEAD_BYTES = 8 * 1024
"""The HTTP answer of a relay has a few hundred bytes."""

QUEUE_BYTES = 1024 * 1024
"""What may wait for one other relay before packets for it are dropped."""


@dataclass(frozen=True, slots=True)
class MeshPeer:
    """Another relay of the region: its URL, like ``https://relay2.example.com/derp``.

    ``dial_host`` is dialled instead of the URL's host when it is not empty (a private network).
    """

    url: str
    dial_host: str = ""


@dataclass(frozen=True, slots=True)
class MeshTiming:
    """When a link is pinged and when it is given up; the defaults are right outside of tests."""

    login_s: float = LOGIN_TIMEOUT_S
    ping_s: float = PING_S
    silence_s: float = SILENCE_S


@dataclass(frozen=True, slots=True)
class _Target:
    host: str
    port: int
    tls: bool
    path: str


def parse_url(url: str) -> _Target:
    """Read a relay's URL. Raises ValueError for one that cannot be dialled."""
    parts = urlsplit(url)
    if parts.scheme not in ("http", "https") or not parts.hostname:
        raise ValueError(f"not the URL of a relay: {url!r}")
    tls = parts.scheme == "https"
    return _Target(parts.hostname, parts.port or (443 if tls else 80), tls, parts.path or "/derp")


class MeshCounters:
    """How the mesh does."""

    __slots__ = ("broken", "connected", "dials", "pings", "sent")

    def __init__(self) -> None:
        self.dials = 0
        self.connected = 0
        """Gauge: links that are up."""
        self.broken = 0
        self.pings = 0
        """Pings sent over links that had fallen silent."""
        self.sent = 0
        """ForwardPacket frames written."""


class Mesh:
    """All links to the other relays of the region."""

    def __init__(
        self,
        door: RelayDoor,
        mesh_key: MeshKey,
        peers: tuple[MeshPeer, ...],
        *,
        tls: ssl.SSLContext | None = None,
        retry_s: float = RETRY_S,
        timing: MeshTiming | None = None,
    ) -> None:
        self.counters = MeshCounters()
        self._timing = timing or MeshTiming()
        self._door = door
        self._mesh_key = mesh_key
        self._peers = peers
        self._tls = tls
        self._retry_s = retry_s

    def loops(self) -> tuple[Loop, ...]:
        """Return one loop a link; that of a link to ourselves ends."""
        return tuple(
            Loop("mesh", partial(self._keep_up, peer), about=peer.url, repeats=False)
            for peer in self._peers
        )

    async def run(self) -> None:
        """Run the loops until cancelled, without a supervisor."""
        await run_all(self.loops())

    async def _keep_up(self, peer: MeshPeer) -> None:
        target = parse_url(peer.url)
        while True:
            self.counters.dials += 1
            link = MeshLink(self._door, self._mesh_key, self.counters, target, self._timing)
            try:
                await dial(
                    link,
                    peer.dial_host or target.host,
                    target.port,
                    tls=self._context() if target.tls else None,
                    server_hostname=target.host if target.tls else None,
                )
                reason = await link.ended_for()
            except (OSError, TimeoutError) as error:
                reason = str(error) or type(error).__name__
            finally:
                link.give_up()
            if link.is_ourselves:
                log.info("mesh peer is this relay itself", extra={"remote": peer.url})
                return
            log.warning("mesh link is down", extra={"remote": peer.url, "reason": reason})
            jitter = random.random()  # noqa: S311  # only to spread the dials of many relays
            await asyncio.sleep(self._retry_s * (1 + jitter / 4))

    def _context(self) -> ssl.SSLContext:
        if self._tls is None:
            self._tls = ssl.create_default_context()
        return self._tls


class _State(Enum):
    HTTP = auto()
    GREETING = auto()
    LOGIN = auto()
    UP = auto()
    OVER = auto()


class MeshLink:
    """One dialled link: the sink of its stream and a way for packets (``server.Forwarder``)."""

    def __init__(
        self,
        door: RelayDoor,
        mesh_key: MeshKey,
        counters: MeshCounters,
        target: _Target,
        timing: MeshTiming | None = None,
    ) -> None:
        self.is_ourselves = False
        self._door = door
        self._mesh_key = mesh_key
        self._counters = counters
        self._target = target
        self._timing = timing or MeshTiming()
        self._state = _State.HTTP
        self._reader = FrameReader()
        self._box: LoginBox | None = None
        self._stream: Stream | None = None
        self._congested = False
        self._present: set[bytes] = set()
        self._heard_at = 0.0
        self._over = asyncio.Event()
        self._changed = asyncio.Event()  # up or over: the clock of ``ended_for`` is another one
        self._reason = ""

    @property
    def is_up(self) -> bool:
        """Whether the other relay has let us in."""
        return self._state is _State.UP

    async def ended_for(self) -> str:
        """Wait for the end of the link, pinging a silent one, and return the reason."""
        loop = asyncio.get_running_loop()
        login_by = loop.time() + self._timing.login_s
        while not self._over.is_set():
            now = loop.time()
            if not self.is_up and login_by <= now:
                return "the login took too long"
            silent_s = now - self._heard_at
            if self.is_up and silent_s >= self._timing.silence_s:
                return "it does not answer pings"
            if self.is_up and silent_s >= self._timing.ping_s:
                self._ping()
            # One ping every ``ping_s`` of silence; a lost one is followed by others.
            until = now + self._timing.ping_s if self.is_up else login_by
            with suppress(TimeoutError):
                async with asyncio.timeout_at(until):
                    await self._changed.wait()
            self._changed.clear()
        return self._reason or "closed"

    def give_up(self) -> None:
        """End the link and forget who was reachable over it."""
        self._finish("given up")
        if self._stream is not None:
            self._stream.abort()

    def forward(self, source: bytes, destination: bytes, frames: memoryview) -> bool:
        """Send packets on to the other relay; False when there is no room."""
        if self._state is not _State.UP or self._congested or self._stream is None:
            return False
        out = forward_frames(frames, source, destination)
        self._counters.sent += len(out)
        self._stream.write_many(out)
        return True

    # -- the stream's sink --

    def connected(self, stream: Stream) -> None:
        """Ask for the upgrade; without fast start, since we read no certificate for it."""
        self._stream = stream
        stream.set_write_limits(QUEUE_BYTES, QUEUE_BYTES // 2)
        self._heard_at = asyncio.get_running_loop().time()
        host = f"[{self._target.host}]" if ":" in self._target.host else self._target.host
        lines = (
            f"GET {self._target.path} HTTP/1.1",
            f"Host: {host}:{self._target.port}",
            "Upgrade: DERP",
            "Connection: Upgrade",
            "User-Agent: headwater-mesh",
        )
        stream.write(("\r\n".join(lines) + "\r\n\r\n").encode())

    def received(self, _buffer: bytearray, view: memoryview, end: int) -> int:
        """Take the HTTP answer, then frames."""
        if self._state is _State.OVER:
            return end
        self._heard_at = asyncio.get_running_loop().time()
        try:
            if self._state is _State.HTTP:
                return self._http(bytes(view[:end]))
            for frame in self._reader.feed(view[:end]):
                self._frame(frame)
        except ProtocolError as error:
            self._finish(str(error))
            if self._stream is not None:
                self._stream.close()
        return end

    def ended(self) -> None:
        """The other relay closes."""
        self._finish("closed by the other relay")
        if self._stream is not None:
            self._stream.close()

    def paused(self) -> None:
        """Drop packets from now on."""
        self._congested = True

    def resumed(self) -> None:
        """Send on again."""
        self._congested = False

    def lost(self, error: Exception | None) -> None:
        """The connection is gone."""
        self._finish(str(error) if error else "connection lost")

    # -- inside --

    def _http(self, data: bytes) -> int:
        head, found, _ = data.partition(b"\r\n\r\n")
        if not found:
            if len(data) > MAX_HEAD_BYTES:
                raise ProtocolError("mesh: an endless HTTP answer")
            return 0
        status = head.split(b"\r\n", 1)[0].split(b" ", 2)
        if len(status) < 2 or not status[0].startswith(b"HTTP/1.") or status[1] != b"101":
            raise ProtocolError(f"mesh: the other relay answers {status[1:2]!r}")
        self._state = _State.GREETING
        taken = len(head) + len(found)
        for frame in self._reader.feed(data[taken:]):
            self._frame(frame)
        return len(data)

    def _frame(self, frame: Frame) -> None:
        if self._state is _State.GREETING:
            self._greeted(frame)
        elif self._state is _State.LOGIN:
            self._let_in(frame)
        elif self._state is _State.UP:
            self._hear(frame)

    def _greeted(self, frame: Frame) -> None:
        if frame.kind != FrameType.SERVER_KEY:
            raise ProtocolError("mesh: the first frame is no ServerKey")
        theirs = derp.decode_server_key(frame.payload)
        private = self._door.private
        if theirs == private.public_raw:
            self.is_ourselves = True
            raise ProtocolError("mesh: this is ourselves")
        self._box = LoginBox(private, theirs)
        info = ClientInfo(mesh_key=self._mesh_key)
        self._write(
            derp.encode_client_info(private.public_raw, self._box, info, self._door.nonce())
        )
        self._state = _State.LOGIN

    def _let_in(self, frame: Frame) -> None:
        if frame.kind != FrameType.SERVER_INFO or self._box is None:
            raise ProtocolError("mesh: no ServerInfo after the login")
        derp.decode_server_info(frame.payload, self._box)
        self._box = None
        self._write(derp.encode_watch_conns())
        self._state = _State.UP
        self._changed.set()
        self._counters.connected += 1
        log.info("mesh link is up", extra={"remote": self._target.host})

    def _hear(self, frame: Frame) -> None:
        if frame.kind == FrameType.PEER_PRESENT:
            key = derp.decode_peer_present(frame.payload).key
            self._present.add(key)
            self._door.server.add_forwarder(key, self)
        elif frame.kind == FrameType.PEER_GONE:
            key, _ = derp.decode_peer_gone(frame.payload)
            self._present.discard(key)
            self._door.server.remove_forwarder(key, self)
        elif frame.kind == FrameType.PING:
            self._write(derp.encode_pong(derp.decode_ping(frame.payload)))

    def _ping(self) -> None:
        if not self._congested:  # what waits for it shows well enough that it does not read
            self._counters.pings += 1
            self._write(derp.encode_ping(self._door.nonce()[: derp.PING_BYTES]))

    def _write(self, data: bytes) -> None:
        if self._stream is not None:
            self._stream.write(data)

    def _finish(self, reason: str) -> None:
        if self._state is _State.OVER:
            return
        if self._state is _State.UP:
            self._counters.connected -= 1
            self._counters.broken += 1
        self._state = _State.OVER
        self._reason = reason
        for key in self._present:
            self._door.server.remove_forwarder(key, self)
        self._present.clear()
        self._over.set()
        self._changed.set()
