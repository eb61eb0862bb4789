"""Who is connected and where packets go, decided without sockets."""

from __future__ import annotations

import random
from ipaddress import IPv4Address

import pytest

from appliance.relay.counters import Drop, Refusal
from appliance.relay.server import GONE_BURST, MAX_SAME_KEY, RelayServer
from appliance.wire import derp
from appliance.wire.derp import Frame, FrameReader, FrameType, PeerPresent, PresentFlag
from appliance.wire.keys import NodeKey
from tests.support import derpframes

A, B, C = (letter * 32 for letter in (b"a", b"b", b"c"))


class FakeLink:
    """A link that remembers what it was sent."""

    def __init__(self, key: bytes, *, trusted: bool = False) -> None:
        self.key = key
        self.trusted = trusted
        self.congested = False
        self.duplicated = False
        self.heard: set[bytes] | None = None
        self.gone_tokens = GONE_BURST
        self.closed_for: Refusal | None = None
        self._reader = FrameReader()
        self._frames: list[Frame] = []

    def write(self, data: bytes | bytearray | memoryview) -> None:
        self._frames += self._reader.feed(bytes(data))

    def close(self, reason: Refusal) -> None:
        self.closed_for = reason

    def presence(self) -> PeerPresent:
        return PeerPresent(self.key, IPv4Address("192.0.2.1"), 7, PresentFlag.REGULAR)

    def take(self) -> list[Frame]:
        frames, self._frames = self._frames, []
        return frames

    def gone(self) -> list[tuple[bytes, int]]:
        return [
            derp.decode_peer_gone(frame.payload)
            for frame in self.take()
            if frame.kind == FrameType.PEER_GONE
        ]


class FakeWay:
    def __init__(self) -> None:
        self.room = True
        self.sent: list[tuple[bytes, bytes, bytes]] = []

    def forward(self, source: bytes, destination: bytes, frames: memoryview) -> bool:
        self.sent.append((source, destination, bytes(frames)))
        return self.room


def packet(source: bytes, data: bytes = b"data") -> bytes:
    return derpframes.encode_recv_packet(source, data)


def server_with(*links: FakeLink) -> RelayServer:
    server = RelayServer()
    for link in links:
        server.connect(link)
    return server


def test_packets_reach_their_destination_and_are_counted() -> None:
    a, b = FakeLink(A), FakeLink(B)
    server = server_with(a, b)
    server.forward(a, B, packet(A) * 3, 3, 0)
    assert b.take() == [Frame(FrameType.RECV_PACKET, A + b"data")] * 3
    counters = server.counters
    assert (counters.packets_received, counters.packets_sent) == (3, 3)
    assert (counters.bytes_received, counters.bytes_sent) == (12, 12)


def test_full_queue_drops_and_counts() -> None:
    a, b = FakeLink(A), FakeLink(B)
    server = server_with(a, b)
    b.congested = True
    server.forward(a, B, packet(A), 1, 1)
    assert not b.take()
    assert server.counters.dropped[Drop.QUEUE_TAIL] == 1
    assert server.counters.dropped_bytes[Drop.QUEUE_TAIL] == 4
    assert server.counters.dropped_disco[Drop.QUEUE_TAIL] == 1
    assert server.counters.packets_received == 1
    assert server.counters.packets_sent == 0


def test_unknown_peer_is_named_only_to_who_looks_for_a_path_and_seldom() -> None:
    a = FakeLink(A)
    server = server_with(a)
    server.forward(a, B, packet(A), 1, 0)
    assert not a.take()
    for _ in range(GONE_BURST + 2):
        server.forward(a, B, packet(A), 1, 1)
    assert a.gone() == [(B, derp.GoneReason.NOT_HERE)] * GONE_BURST
    server.refill()
    server.forward(a, B, packet(A), 1, 1)
    assert len(a.gone()) == 1
    assert server.counters.dropped[Drop.UNKNOWN_DEST] == GONE_BURST + 4
    for _ in range(GONE_BURST + 1):
        server.refill()
    assert a.gone_tokens == GONE_BURST


def test_listeners_hear_once_that_a_peer_left() -> None:
    a, b, c = FakeLink(A), FakeLink(B), FakeLink(C)
    server = server_with(a, b, c)
    server.forward(a, B, packet(A), 1, 0)
    b.take()
    server.disconnect(a)
    assert b.gone() == [(A, derp.GoneReason.DISCONNECTED)]
    assert not c.take()
    again = FakeLink(A)
    server.connect(again)
    server.disconnect(again)
    assert not b.take()


def test_listener_that_left_hears_nothing_and_leaves_no_trace() -> None:
    a, b = FakeLink(A), FakeLink(B)
    server = server_with(a, b)
    server.forward(a, B, packet(A), 1, 0)
    b.take()
    server.disconnect(b)
    server.disconnect(a)
    assert not b.take()
    assert not server._listeners


def test_newest_of_several_connections_is_active_until_another_speaks() -> None:
    old, new, b = FakeLink(A), FakeLink(A), FakeLink(B)
    server = server_with(old, new, b)
    assert server.counters.duplicate_keys == 1
    assert old.duplicated
    assert new.duplicated
    server.forward(b, A, packet(B), 1, 0)
    assert new.take()
    assert not old.take()
    server.note_activity(old)
    server.forward(b, A, packet(B), 1, 0)
    assert old.take()
    assert not new.take()
    server.disconnect(old)
    assert (new.duplicated, server.counters.duplicate_keys) == (False, 0)
    server.forward(b, A, packet(B), 1, 0)
    assert new.take()


def test_connections_of_one_key_are_bounded() -> None:
    links = [FakeLink(A) for _ in range(MAX_SAME_KEY + 1)]
    server = server_with(*links)
    assert [link.closed_for for link in links] == [Refusal.CROWDED] + [None] * MAX_SAME_KEY
    server.disconnect(links[0])
    assert len(list(server.links())) == MAX_SAME_KEY


def test_subscriptions_are_bounded_and_given_back(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("appliance.relay.server.MAX_SUBSCRIPTIONS", 2)
    a, b, c = FakeLink(A), FakeLink(B), FakeLink(C)
    server = server_with(a, b, c)
    for source, target in ((a, B), (a, C), (b, C), (c, A)):
        server.forward(source, target, packet(source.key), 1, 0)
    assert (b.heard, c.heard, a.heard) == ({A}, {A}, None)
    server.disconnect(a)
    assert server._subscriptions == 0
    assert b.gone() == c.gone() == [(A, 0)]
    server.forward(b, C, packet(B), 1, 0)
    assert c.heard == {B}
    server.disconnect(c)
    assert server._subscriptions == 0


def test_last_connection_of_a_key_decides_when_it_is_gone() -> None:
    first, second, third, b = FakeLink(A), FakeLink(A), FakeLink(A), FakeLink(B)
    server = server_with(first, second, third, b)
    server.forward(third, B, packet(A), 1, 0)
    b.take()
    server.note_activity(first)
    server.disconnect(first)
    server.forward(b, A, packet(B), 1, 0)
    assert third.take()  # the one that was active before
    server.disconnect(third)
    assert not b.take()
    assert not second.duplicated
    server.disconnect(second)
    assert b.gone() == [(A, 0)]
    assert server.counters.clients == 1


def test_close_peer_ends_every_connection_of_the_key() -> None:
    first, second, b = FakeLink(A), FakeLink(A), FakeLink(B)
    server = server_with(first, second, b)
    assert server.close_peer(NodeKey(A)) == 2
    assert [link.closed_for for link in (first, second, b)] == [Refusal.REVOKED] * 2 + [None]
    assert server.close_peer(NodeKey(C)) == 0
    assert server.is_connected(NodeKey(B))
    assert sorted(link.key for link in server.links()) == [A, A, B]


def test_watchers_hear_of_everybody_then_of_changes() -> None:
    watcher, a = FakeLink(C, trusted=True), FakeLink(A)
    server = server_with(watcher, a)
    shown = [frame for data in server.watch(watcher) for frame in FrameReader().feed(data)]
    assert {derp.decode_peer_present(frame.payload).key for frame in shown} == {A, C}
    twin, b = FakeLink(A), FakeLink(B)
    server.connect(twin)
    server.connect(b)
    assert [frame.kind for frame in watcher.take()] == [FrameType.PEER_PRESENT] * 2
    server.disconnect(twin)
    assert not watcher.take()  # the key is still here
    server.disconnect(a)
    assert watcher.gone() == [(A, 0)]
    server.disconnect(watcher)
    assert server.counters.watchers == 0
    server.disconnect(b)
    assert not watcher.take()


def test_forwarder_is_used_only_without_a_local_connection() -> None:
    a, way = FakeLink(A), FakeWay()
    server = server_with(a)
    server.add_forwarder(B, way)
    server.forward(a, B, packet(A), 1, 0)
    assert way.sent == [(A, B, packet(A))]
    assert server.counters.forwarded_out == 1
    b = FakeLink(B)
    server.connect(b)
    server.forward(a, B, packet(A), 1, 0)
    assert b.take()
    assert len(way.sent) == 1


def test_forwarder_without_room_drops() -> None:
    a, way = FakeLink(A), FakeWay()
    server = server_with(a)
    server.add_forwarder(B, way)
    way.room = False
    server.forward(a, B, packet(A), 1, 0)
    assert server.counters.dropped[Drop.QUEUE_TAIL] == 1


def test_earliest_forwarder_is_used_until_it_goes() -> None:
    a, first, second = FakeLink(A), FakeWay(), FakeWay()
    server = server_with(a)
    server.add_forwarder(B, first)
    server.add_forwarder(B, second)
    server.add_forwarder(B, first)
    server.forward(a, B, packet(A), 1, 0)
    server.remove_forwarder(B, first)
    server.forward(a, B, packet(A), 1, 0)
    assert (len(first.sent), len(second.sent)) == (1, 1)
    server.remove_forwarder(B, second)
    server.remove_forwarder(B, second)
    assert server.remote_clients == 0


def test_forwarded_packets_are_delivered_or_dropped_never_sent_on() -> None:
    mesh, a, way = FakeLink(C, trusted=True), FakeLink(A), FakeWay()
    server = server_with(mesh, a)
    server.add_forwarder(B, way)
    server.deliver_forwarded(mesh, B, A, packet(B))
    assert a.take() == [Frame(FrameType.RECV_PACKET, B + b"data")]
    server.deliver_forwarded(mesh, A, B, packet(A))
    assert not way.sent
    assert server.counters.dropped[Drop.UNKNOWN_DEST_ON_FWD] == 1
    disco = packet(A, derp.DISCO_MAGIC + bytes(80))
    server.deliver_forwarded(mesh, A, B, disco)
    assert mesh.gone() == [(B, derp.GoneReason.NOT_HERE)]
    a.congested = True
    server.deliver_forwarded(mesh, B, A, packet(B))
    assert server.counters.dropped[Drop.QUEUE_TAIL] == 1
    assert server.counters.forwarded_in == 4


def test_peer_behind_a_forwarder_is_gone_with_its_last_way() -> None:
    mesh, a, way = FakeLink(C, trusted=True), FakeLink(A), FakeWay()
    server = server_with(mesh, a)
    server.add_forwarder(B, way)
    server.deliver_forwarded(mesh, B, A, packet(B))
    a.take()
    local = FakeLink(B)
    server.connect(local)
    server.disconnect(local)
    assert not a.take()  # still reachable over the mesh
    server.remove_forwarder(B, way)
    assert a.gone() == [(B, 0)]


@pytest.mark.parametrize("seed", range(20))
def test_tables_are_empty_after_any_comings_and_goings(seed: int) -> None:  # noqa: C901  # one case a kind
    """Whatever happens in whatever order, nothing is left when everybody has gone."""
    rng = random.Random(seed)
    server = RelayServer()
    keys = [bytes([i]) * 32 for i in range(5)]
    ways = [FakeWay(), FakeWay()]
    links: list[FakeLink] = []
    for _ in range(400):
        match rng.randrange(7):
            case 0 | 1:
                link = FakeLink(rng.choice(keys), trusted=rng.random() < 0.2)
                links.append(link)
                server.connect(link)
                if link.trusted:
                    server.watch(link)
            case 2 if links:
                server.disconnect(links.pop(rng.randrange(len(links))))
            case 3 if links:
                server.note_activity(rng.choice(links))
            case 4 if links:
                link = rng.choice(links)
                server.forward(link, rng.choice(keys), packet(link.key), 1, rng.randrange(2))
            case 5:
                server.add_forwarder(rng.choice(keys), rng.choice(ways))
            case _:
                server.remove_forwarder(rng.choice(keys), rng.choice(ways))
        by_key = {link.key for link in links}
        assert set(server._active) == by_key
        assert len(list(server.links())) == len(links) == server.counters.clients
        for key, same in server._duplicates.items():
            assert len(same) > 1
            assert server._active[key] in same
            assert all(link.duplicated for link in same)
    for link in links:
        server.disconnect(link)
    for key in keys:
        for way in ways:
            server.remove_forwarder(key, way)
    assert not server._active
    assert not server._duplicates
    assert not server._forwarders
    assert not server._listeners
    assert not server._watchers
    assert server._subscriptions == 0
    assert server.counters.duplicate_keys == server.counters.watchers == 0
