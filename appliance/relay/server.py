"""The relay proper: who is connected, and where a packet goes.

Decisions only, no asyncio and no clock: links call in, and are written to. Not for reading frames
(``link`` and ``scan`` do), not for who may come (``door``). The one mutable state of the relay.
Source: tailscale v1.104.5 derp/derpserver/derpserver.go (registerClient, noteClientActivity,
lookupDest, notePeerGoneFromRegionLocked, addWatcher, AddPacketForwarder).
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from appliance.relay.counters import Drop, Refusal, RelayCounters
from appliance.relay.scan import HEAD_BYTES, count_disco
from appliance.wire import derp
from appliance.wire.derp import GoneReason, PeerPresent
from appliance.wire.keys import NodeKey

# -- our own limits --

GONE_BURST = 3
"""PeerGone answers to packets for unknown peers that a link may get at once; then one a second."""

MAX_SAME_KEY = 16
"""Connections with one key; a stock client has one, and two for a moment when it comes back. The
least recently active one makes room."""

MAX_SUBSCRIPTIONS = 1_000_000
"""Pairs of who heard from whom, at some 120 bytes each: a thousand clients that all talk to one
another. Beyond it a client is not told of a departure and finds out by itself."""


class Link(Protocol):
    """One logged-in connection, as the server sees it."""

    key: bytes
    """The client's node key, 32 bytes."""
    trusted: bool
    """It presented the mesh key: a relay of the region, or a tool of its operator."""
    congested: bool
    """Its write buffer is full: packets for it are dropped."""
    duplicated: bool
    """Others are connected with the same key."""
    heard: set[bytes] | None
    """Keys whose packets were written to it; it is told when one of them leaves."""
    gone_tokens: int
    """PeerGone answers that it may still get now."""

    def write(self, data: bytes | bytearray | memoryview, /) -> None:
        """Send whole frames."""

    def close(self, reason: Refusal, /) -> None:
        """End the connection."""

    def presence(self) -> PeerPresent:
        """Say what the other relays of the region are told."""


class Forwarder(Protocol):
    """A way to a client of another relay of the region."""

    def forward(self, source: bytes, destination: bytes, frames: memoryview, /) -> bool:
        """Send a run of whole RecvPacket frames on; False when there is no room."""


class RelayServer:
    """Connections by key, the ways to other relays, and who wants to hear of what."""

    def __init__(self, counters: RelayCounters | None = None) -> None:
        self.counters = counters or RelayCounters()
        self._active: dict[bytes, Link] = {}
        self._duplicates: dict[bytes, list[Link]] = {}  # by key, most recently active last
        self._forwarders: dict[bytes, list[Forwarder]] = {}  # by key, the first one is used
        self._listeners: dict[bytes, set[Link]] = {}  # who has heard from this key
        self._watchers: dict[Link, None] = {}
        self._short_of_tokens: set[Link] = set()
        self._subscriptions = 0

    # -- connections --

    def connect(self, link: Link) -> None:
        """Register a connection; it becomes the active one of its key."""
        key = link.key
        was = self._active.get(key)
        if was is not None:
            same_key = self._duplicates.get(key)
            if same_key is None:
                self._duplicates[key] = [was, link]
                self.counters.duplicate_keys += 1
            else:
                same_key.append(link)
            was.duplicated = link.duplicated = True
        self._active[key] = link
        self.counters.accepted += 1
        self.counters.clients += 1
        self.counters.mesh_clients += link.trusted
        if self._watchers:
            self._tell_watchers(derp.encode_peer_present(link.presence()))
        if link.duplicated and len(self._duplicates[key]) > MAX_SAME_KEY:
            self._duplicates[key][0].close(Refusal.CROWDED)

    def disconnect(self, link: Link) -> None:
        """Forget a connection; the region hears of it when it was the last one of its key."""
        key = link.key
        self.counters.clients -= 1
        self.counters.mesh_clients -= link.trusted
        self._forget_listener(link)
        if link in self._watchers:
            del self._watchers[link]
            self.counters.watchers -= 1
        same_key = self._duplicates.get(key)
        if same_key is not None:
            same_key.remove(link)
            self._active[key] = same_key[-1]
            if len(same_key) == 1:
                same_key[0].duplicated = False
                del self._duplicates[key]
                self.counters.duplicate_keys -= 1
            return
        if self._active.get(key) is not link:
            return
        del self._active[key]
        if key not in self._forwarders:
            self._tell_listeners(key)
        if self._watchers:
            self._tell_watchers(derp.encode_peer_gone(key, GoneReason.DISCONNECTED))

    def note_activity(self, link: Link) -> None:
        """Make a duplicated link that just sent something the active one of its key."""
        if self._active.get(link.key) is link:
            return
        same_key = self._duplicates.get(link.key)
        if same_key is not None and link in same_key:
            same_key.remove(link)
            same_key.append(link)
            self._active[link.key] = link

    def close_peer(self, key: NodeKey | bytes) -> int:
        """Close every connection of a key (its node was removed or expired); tell how many."""
        raw = key.raw if isinstance(key, NodeKey) else key
        links = list(self._duplicates.get(raw, ()))
        if not links and raw in self._active:
            links = [self._active[raw]]
        for link in links:
            link.close(Refusal.REVOKED)
        return len(links)

    def is_connected(self, key: NodeKey) -> bool:
        """Tell whether a key has a connection here."""
        return key.raw in self._active

    def links(self) -> Iterator[Link]:
        """Give every connection, active or not."""
        for key, link in self._active.items():
            yield from self._duplicates.get(key) or (link,)

    # -- packets --

    def forward(
        self, link: Link, destination: bytes, frames: bytes | memoryview, count: int, disco: int
    ) -> None:
        """Deliver ``count`` RecvPacket frames from ``link``, all for one destination, or drop them.

        ``disco`` says how many of them are of path discovery.
        """
        target = self._active.get(destination)
        if target is None:
            self._forward_away(link, destination, memoryview(frames), count, disco)
            return
        counters = self.counters
        size = len(frames) - HEAD_BYTES * count
        if disco:
            counters.disco_received += disco
        if target.congested:
            counters.stopped += count
            counters.stopped_bytes += size
            counters.drop(Drop.QUEUE_TAIL, count, size, disco)
            return
        heard = target.heard
        if heard is None or link.key not in heard:
            self._subscribe(target, link.key)
        counters.passed += count
        counters.passed_bytes += size
        target.write(frames)

    def deliver_forwarded(
        self, link: Link, source: bytes, destination: bytes, frame: bytes
    ) -> None:
        """Deliver one RecvPacket frame that another relay sent on; never sent on again."""
        counters = self.counters
        counters.forwarded_in += 1
        target = self._active.get(destination)
        size = len(frame) - HEAD_BYTES
        if target is None:
            disco = count_disco(memoryview(frame))
            counters.drop(Drop.UNKNOWN_DEST_ON_FWD, 1, size, disco)
            self._answer_gone(link, destination, disco)
        elif target.congested:
            counters.drop(Drop.QUEUE_TAIL, 1, size, count_disco(memoryview(frame)))
        else:
            if target.heard is None or source not in target.heard:
                self._subscribe(target, source)
            counters.delivered_in += 1
            counters.delivered_in_bytes += size
            target.write(frame)

    def refill(self) -> None:
        """Grant every link one more PeerGone answer; to be called once a second."""
        for link in list(self._short_of_tokens):
            link.gone_tokens += 1
            if link.gone_tokens >= GONE_BURST:
                self._short_of_tokens.discard(link)

    def _forward_away(
        self, link: Link, destination: bytes, frames: memoryview, count: int, disco: int
    ) -> None:
        counters = self.counters
        size = len(frames) - HEAD_BYTES * count
        counters.stopped += count
        counters.stopped_bytes += size
        counters.disco_received += disco
        ways = self._forwarders.get(destination)
        if not ways:
            counters.drop(Drop.UNKNOWN_DEST, count, size, disco)
            self._answer_gone(link, destination, disco)
        elif ways[0].forward(link.key, destination, frames):
            counters.forwarded_out += count
        else:
            counters.drop(Drop.QUEUE_TAIL, count, size, disco)

    def _answer_gone(self, link: Link, destination: bytes, disco: int) -> None:
        """Tell a sender who looks for a path that the peer is not here; seldom."""
        if not disco or link.gone_tokens <= 0 or link.congested:
            return
        link.gone_tokens -= 1
        self._short_of_tokens.add(link)
        self.counters.peer_gone_not_here += 1
        link.write(derp.encode_peer_gone(destination, GoneReason.NOT_HERE))

    # -- who hears of departures --

    def _subscribe(self, target: Link, source: bytes) -> None:
        if self._subscriptions >= MAX_SUBSCRIPTIONS:
            return
        self._subscriptions += 1
        if target.heard is None:
            target.heard = set()
        target.heard.add(source)
        self._listeners.setdefault(source, set()).add(target)

    def _forget_listener(self, link: Link) -> None:
        self._short_of_tokens.discard(link)
        for source in link.heard or ():
            listeners = self._listeners.get(source)
            if listeners is not None:
                listeners.discard(link)
                if not listeners:
                    del self._listeners[source]
        self._subscriptions -= len(link.heard or ())
        link.heard = None

    def _tell_listeners(self, key: bytes) -> None:
        """Tell everyone who heard from a key that it left the region; once."""
        frame = derp.encode_peer_gone(key, GoneReason.DISCONNECTED)
        for listener in self._listeners.pop(key, ()):
            if listener.heard is not None:
                listener.heard.discard(key)
                self._subscriptions -= 1
            self.counters.peer_gone_disconnected += 1
            listener.write(frame)

    # -- the region --

    def watch(self, link: Link) -> list[bytes]:
        """Let a trusted link hear who comes and goes; gives the frames that tell who is here."""
        if link not in self._watchers:
            self._watchers[link] = None
            self.counters.watchers += 1
        return [derp.encode_peer_present(each.presence()) for each in self._active.values()]

    def _tell_watchers(self, frame: bytes) -> None:
        for watcher in self._watchers:
            watcher.write(frame)

    def add_forwarder(self, key: bytes, way: Forwarder) -> None:
        """Learn a way to a client of another relay; the earliest one that is known is used."""
        ways = self._forwarders.setdefault(key, [])
        if way not in ways:
            ways.append(way)

    def remove_forwarder(self, key: bytes, way: Forwarder) -> None:
        """Forget a way; with the last one the client has left the region."""
        ways = self._forwarders.get(key)
        if ways is None or way not in ways:
            return
        ways.remove(way)
        if not ways:
            del self._forwarders[key]
            if key not in self._active:
                self._tell_listeners(key)

    @property
    def remote_clients(self) -> int:
        """How many keys are reachable through other relays."""
        return len(self._forwarders)
