"""One logged-in connection to the relay: frames in, packets out.

The sink that a login hands its stream to. Reads a whole wake's bytes at once, turns packets around
in place (``scan``) and gives them to the server by destination; answers pings; obeys the frames of
trusted relays. Not for who may come (``login``, ``door``) and not for where packets go (``server``).
Source: tailscale v1.104.5 derp/derpserver/derpserver.go, sclient.run and its handlers.
"""

from __future__ import annotations

import asyncio
import logging
import struct
from ipaddress import IPv4Address, IPv6Address, ip_address

from appliance.front.stream import Stream
from appliance.ratelimit import TokenBucket
from appliance.relay.counters import Refusal
from appliance.relay.scan import (
    HEAD_BYTES,
    LONG_HEAD_BYTES,
    Run,
    long_head_at,
    recv_head,
    rewrite_run,
    turn_at,
)
from appliance.relay.server import GONE_BURST, RelayServer
from appliance.wire import derp
from appliance.wire.derp import (
    DISCO_MAGIC,
    HEADER_BYTES,
    MAX_FORWARD_BYTES,
    MAX_FRAME_BYTES,
    MAX_PING_BYTES,
    MAX_SEND_BYTES,
    MIN_DISCO_BYTES,
    PING_BYTES,
    ClientInfo,
    FrameType,
    PeerPresent,
    PresentFlag,
)
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import KEY_BYTES

log = logging.getLogger(__name__)

# -- our own limits --

QUEUE_BYTES = 256 * 1024
"""What may wait for one client before packets for it are dropped: 180 full packets. uvloop counts
what this round of the loop has not offered to the kernel yet, so a lower mark drops for nothing."""

QUEUE_RESUME_BYTES = 128 * 1024
"""Delivery goes on below this."""

MAX_CONTROLS = 256
"""Frames other than packets in one wake; each costs 2 us for 5 bytes on the wire, so a read full of
them would hold everybody up for 30 ms. A stock client sends one now and then."""

MAX_PONGS = 8
"""Pings answered per wake; a stock client sends one and waits."""

SETTLE_S = 5.0
"""A home named this soon after the login is no move: source: derpserver.go setPreferred."""

_SEND = int(FrameType.SEND_PACKET)
_RECV = int(FrameType.RECV_PACKET)
_UNKNOWN_ADDRESS = IPv6Address(0)
_size_at = struct.Struct(">I").unpack_from


class RelayLink:
    """A client of the relay (``server.Link``), as the sink of its stream."""

    __slots__ = (
        "_closed",
        "_controls",
        "_flags",
        "_limit",
        "_odd",
        "_own_key",
        "_pongs",
        "_preferred",
        "_server",
        "_since",
        "_skip",
        "_stream",
        "app_name",
        "congested",
        "duplicated",
        "gone_tokens",
        "heard",
        "key",
        "slot",
        "trusted",
        "write",
    )

    def __init__(
        self,
        server: RelayServer,
        key: bytes,
        info: ClientInfo,
        *,
        own_key: bytes,
        trusted: bool,
        not_ideal: bool,
        limit: TokenBucket | None = None,
    ) -> None:
        self.key = key
        self.trusted = trusted
        self.app_name = info.app_name
        self.congested = False
        self.duplicated = False
        self.heard: set[bytes] | None = None
        self.gone_tokens = GONE_BURST
        self.slot: set[RelayLink] = set()
        """Where the door remembers it for keep-alives: a link that is over must not stay there."""
        self._server = server
        self._own_key = own_key
        self._flags = _flags(info, trusted=trusted, not_ideal=not_ideal)
        self._limit = limit
        self._odd = limit is not None
        self._preferred = False
        self._skip = 0
        self._pongs = self._controls = 0
        self._closed = False
        self._stream: Stream

    # -- for the server --

    def close(self, reason: Refusal) -> None:
        """End the connection and count why."""
        if not self._closed:
            self._server.counters.refused[reason] += 1
            self._leave()
            self._stream.close()

    def presence(self) -> PeerPresent:
        """Say what the other relays of the region are told."""
        address, port = self.address()
        return PeerPresent(self.key, address, port, self._flags, self.app_name)

    def address(self) -> tuple[IPv4Address | IPv6Address, int]:
        """Give the client's address; zero when it is not known."""
        peer = self._stream.peer
        if peer is None:
            return _UNKNOWN_ADDRESS, 0
        try:
            return ip_address(peer[0].partition("%")[0]), peer[1]
        except ValueError:
            return _UNKNOWN_ADDRESS, 0

    @property
    def preferred(self) -> bool:
        """Whether the client calls this relay its home."""
        return self._preferred

    @property
    def closed(self) -> bool:
        """Whether the link is over."""
        return self._closed

    # -- the stream's sink --

    def connected(self, stream: Stream) -> None:
        """Take the stream over from the login and become reachable."""
        self._stream = stream
        self.write = stream.write
        self._since = asyncio.get_running_loop().time()
        stream.set_write_limits(QUEUE_BYTES, QUEUE_RESUME_BYTES)
        self._server.connect(self)
        if self._flags & PresentFlag.NOT_IDEAL:
            self._server.counters.not_ideal_clients += 1

    def received(self, buffer: bytearray, view: memoryview, end: int) -> int:
        """Take all whole frames, packets in place."""
        if self._odd or self.duplicated or end < LONG_HEAD_BYTES or buffer[0] != _SEND:
            return self._carefully(buffer, view, end)
        _, size, destination, magic = long_head_at(buffer)
        if HEADER_BYTES + size == end and KEY_BYTES <= size <= MAX_SEND_BYTES:
            # A lonely packet, as most are where the sender waits for answers.
            turn_at(buffer, 0, _RECV, size, self.key)
            disco = magic == DISCO_MAGIC and size >= KEY_BYTES + MIN_DISCO_BYTES
            self._server.forward(self, destination, view[:end], 1, disco)
            return end
        try:
            run = rewrite_run(buffer, 0, end, self.key)
        except ProtocolError as error:
            return self._refuse(error, end)
        destination, _, stop, count, disco = run
        if end - stop >= HEADER_BYTES:
            return self._carefully(buffer, view, end, run)
        if count:
            self._server.forward(self, destination, view[:stop], count, disco)
        return stop

    def ended(self) -> None:
        """Close: a client that sends no more is of no use."""
        self._leave()
        self._stream.close()

    def paused(self) -> None:
        """Drop packets for this client from now on."""
        self.congested = True

    def resumed(self) -> None:
        """Deliver again."""
        self.congested = False

    def lost(self, error: Exception | None) -> None:
        """Leave the relay."""
        if isinstance(error, ProtocolError) and not self._closed:
            self._server.counters.refused[Refusal.PROTOCOL] += 1
        self._leave()

    # -- inside: packets --

    def _carefully(
        self, buffer: bytearray, view: memoryview, end: int, run: Run | None = None
    ) -> int:
        """Take frames of any kind, from a client of any state, behind a run that is turned."""
        if self._closed:
            return end
        if self.duplicated:
            self._server.note_activity(self)
        try:
            at = self._take(buffer, view, end, [run] if run and run[3] else [])
        except ProtocolError as error:
            return self._refuse(error, end)
        if self._limit is not None:
            self._wait_for_rate(self._limit, at)
        return at

    def _take(self, buffer: bytearray, view: memoryview, end: int, runs: list[Run]) -> int:
        """Take frames behind those of ``runs``; packets leave by destination at the end."""
        at = runs[-1][2] if runs else 0
        if self._skip:
            at = min(self._skip, end)
            self._skip -= at
            self._set_odd()
        self._pongs = self._controls = 0
        while end - at >= HEADER_BYTES:
            if buffer[at] != _SEND:
                stop = self._control(buffer, view, at, end)
            elif end - at < HEAD_BYTES:
                break
            else:
                run = rewrite_run(buffer, at, end, self.key)
                stop = run[2]
                if run[3]:
                    runs.append(run)
            if stop == at:
                break
            at = stop
        if runs:
            self._deliver(view, runs)
        return at

    def _deliver(self, view: memoryview, runs: list[Run]) -> None:
        """Give many runs to the server, all of one destination in one piece."""
        groups: dict[bytes, list[Run]] = {}
        for run in runs:
            groups.setdefault(run[0], []).append(run)
        for destination, same in groups.items():
            parts = [view[run[1] : run[2]] for run in same]
            frames = parts[0] if len(parts) == 1 else b"".join(parts)
            count = sum(run[3] for run in same)
            self._server.forward(self, destination, frames, count, sum(run[4] for run in same))

    def _refuse(self, error: ProtocolError, end: int) -> int:
        log.debug(
            "relay client broke a rule", extra={"reason": str(error), "remote": self._remote()}
        )
        self.close(Refusal.PROTOCOL)
        return end

    def _set_odd(self) -> None:
        """Note whether ``received`` must look closer than at packets."""
        self._odd = self._closed or self._skip > 0 or self._limit is not None

    # -- inside: everything else --

    def _control(self, buffer: bytearray, view: memoryview, at: int, end: int) -> int:
        """Take one frame that is no SendPacket; gives where the next begins, or ``at`` to wait."""
        self._controls += 1
        if self._controls > MAX_CONTROLS and not self.trusted:
            raise ProtocolError("derp: a flood of frames that are no packets")
        kind = buffer[at]
        size: int = _size_at(buffer, at + 1)[0]
        body = at + HEADER_BYTES
        bound = _BOUNDS.get(kind)
        if bound is None:
            return self._pass_over(kind, size, body, end)
        if not bound[0] <= size <= bound[1]:
            raise ProtocolError(f"derp: {FrameType(kind).name} of {size} bytes")
        if end - body < size:
            return at
        if kind == FrameType.FORWARD_PACKET:
            self._forwarded(view[body : body + size])
        elif kind == FrameType.PING:
            self._ping(bytes(view[body : body + PING_BYTES]))
        elif kind == FrameType.NOTE_PREFERRED:
            self._note_preferred(preferred=buffer[body] != 0)
        elif kind == FrameType.WATCH_CONNS:
            self._watch()
        else:
            self._close_peer(bytes(view[body : body + size]))
        return body + size

    def _pass_over(self, kind: int, size: int, body: int, end: int) -> int:
        """Skip a frame of no interest as it comes, however long, up to the bound."""
        if size > MAX_FRAME_BYTES:
            raise ProtocolError(f"derp: frame of type {kind:#x} with {size} bytes")
        if kind != FrameType.PONG:
            self._server.counters.unknown_frames += 1
        stop = min(body + size, end)
        self._skip = body + size - stop
        self._set_odd()
        return stop

    def _forwarded(self, payload: memoryview) -> None:
        self._need_trust("ForwardPacket")
        source = bytes(payload[:KEY_BYTES])
        destination = bytes(payload[KEY_BYTES : 2 * KEY_BYTES])
        data = payload[2 * KEY_BYTES :]
        frame = b"".join((recv_head(len(data), source), data))
        self._server.deliver_forwarded(self, source, destination, frame)

    def _ping(self, data: bytes) -> None:
        counters = self._server.counters
        counters.pings += 1
        if not self.congested and self._pongs < MAX_PONGS:
            self._pongs += 1
            counters.pongs += 1
            self.write(derp.encode_pong(data))

    def _note_preferred(self, *, preferred: bool) -> None:
        if preferred is self._preferred:
            return
        self._preferred = preferred
        counters = self._server.counters
        counters.home_clients += 1 if preferred else -1
        if asyncio.get_running_loop().time() - self._since > SETTLE_S:
            if preferred:
                counters.home_moves_in += 1
            else:
                counters.home_moves_out += 1

    def _watch(self) -> None:
        self._need_trust("WatchConns")
        if self.key != self._own_key:  # we have dialled ourselves; the dialler notices too
            self._stream.write_many(self._server.watch(self))

    def _close_peer(self, key: bytes) -> None:
        self._need_trust("ClosePeer")
        self._server.close_peer(key)

    def _need_trust(self, what: str) -> None:
        if not self.trusted:
            raise ProtocolError(f"derp: {what} from a client without the mesh key")

    def _wait_for_rate(self, limit: TokenBucket, size_bytes: int) -> None:
        """Charge for bytes that came, and read on once the debt is paid; nothing is dropped."""
        loop = asyncio.get_running_loop()
        delay = limit.delay_s(size_bytes, loop.time())
        if delay > 0 and not self._closed:
            self._server.counters.rate_limited += 1
            self._stream.pause_reading()
            loop.call_later(delay, self._stream.resume_reading)

    def _leave(self) -> None:
        if self._closed:
            return
        self._closed = self._odd = True
        self.slot.discard(self)
        counters = self._server.counters
        if self._preferred:
            counters.home_clients -= 1
        if self._flags & PresentFlag.NOT_IDEAL:
            counters.not_ideal_clients -= 1
        self._server.disconnect(self)

    def _remote(self) -> str:
        return self._stream.peer[0] if self._stream.peer else ""


_BOUNDS: dict[int, tuple[int, int]] = {
    FrameType.FORWARD_PACKET: (2 * KEY_BYTES, MAX_FORWARD_BYTES),
    FrameType.PING: (PING_BYTES, MAX_PING_BYTES),
    FrameType.NOTE_PREFERRED: (1, 1),
    FrameType.WATCH_CONNS: (0, 0),
    FrameType.CLOSE_PEER: (KEY_BYTES, KEY_BYTES),
}
"""Frames that the relay obeys, with the least and the largest payload."""


def _flags(info: ClientInfo, *, trusted: bool, not_ideal: bool) -> PresentFlag:
    flags = PresentFlag(0)
    if info.is_prober:
        flags |= PresentFlag.PROBER
    if trusted:
        flags |= PresentFlag.MESH_PEER
    if not_ideal:
        flags |= PresentFlag.NOT_IDEAL
    return flags or PresentFlag.REGULAR
