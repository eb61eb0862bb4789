"""The encoder says in bytes what ``full`` and ``delta`` say, whatever it was asked before."""

from __future__ import annotations

from random import Random

import msgspec
from hypothesis import given
from hypothesis import strategies as st

from appliance import netmap
from appliance.netmap.encoded import Encoder
from appliance.records import NodeID
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg
from tests.netmap.messages import read_messages
from tests.netmap.tailnets import CAPVERS
from tests.netmap.test_law import history
from tests.support import fakeclient


@given(st.integers(0, 2**32), st.integers(1, 30), st.integers(1, 5), st.integers(1, 5))
def test_bytes_mean_what_the_messages_mean(
    seed: int, size: int, steps: int, chunk_peers: int
) -> None:
    rng = Random(seed)
    versions = history(rng, size, steps)
    encoder = Encoder(chunk_peers, long_list=1 + seed % 3)
    capvers = rng.sample(CAPVERS, 2)
    for _ in range(25):
        old, new = rng.choice(versions), rng.choice(versions)
        viewers = sorted(old.nodes.keys() & new.nodes.keys())
        if not viewers:
            continue
        viewer, capver, zstd = rng.choice(viewers), rng.choice(capvers), rng.random() < 0.7
        check_full(encoder, new, viewer, capver, zstd=zstd)
        check_delta(encoder, old, new, viewer, capver, zstd=zstd)


@given(st.integers(0, 2**32), st.integers(4, 14))
def test_all_sessions_follow_all_versions(seed: int, size: int) -> None:
    """The law again, with the bytes that sessions get, in the order in which they get them."""
    rng = Random(seed)
    versions = history(rng, size, steps=6)
    encoder = Encoder(chunk_peers=4)
    sessions = {viewer: fakeclient.ClientState() for viewer in versions[0].nodes}
    capvers = {viewer: rng.choice((116, 142, 148)) for viewer in sessions}
    seen: dict[NodeID, Snapshot] = {}
    for version in versions:
        for viewer in [viewer for viewer in sessions if viewer in version.nodes]:
            capver = capvers[viewer]
            if viewer not in seen:
                parts: list[bytes] | None = encoder.full(version, viewer, capver, zstd=True)
            elif rng.random() < 0.2:
                continue
            else:
                parts = encoder.delta(seen[viewer], version, viewer, capver, zstd=True)
            for message in read_messages(parts or (), zstd=True):
                sessions[viewer] = fakeclient.apply(sessions[viewer], message)
            seen[viewer] = version
            known = fakeclient.apply(fakeclient.ClientState(), netmap.full(version, viewer, capver))
            assert sessions[viewer].netmap() == known.netmap()


def check_full(
    encoder: Encoder, snapshot: Snapshot, viewer: NodeID, capver: int, *, zstd: bool
) -> None:
    parts = encoder.full(snapshot, viewer, capver, zstd=zstd)
    assert read_messages(parts, zstd=zstd) == [
        as_read(netmap.full(snapshot, viewer, capver)),
    ]


def check_delta(
    encoder: Encoder, old: Snapshot, new: Snapshot, viewer: NodeID, capver: int, *, zstd: bool
) -> None:
    parts = encoder.delta(old, new, viewer, capver, zstd=zstd)
    assert parts != []
    found = [for_others(m, viewer) for m in read_messages(parts or (), zstd=zstd)]
    wanted = [as_read(message) for message in netmap.delta(old, new, viewer, capver)]
    assert found == wanted
    for message in read_messages(parts or (), zstd=zstd):
        assert viewer not in {peer.id for peer in message.peers_changed or ()}


def as_read(message: tailcfg.MapResponse) -> tailcfg.MapResponse:
    """Give a message as a reader of its bytes sees it."""
    return tailcfg.decode_map_response(tailcfg.encode(message))


def for_others(message: tailcfg.MapResponse, viewer: NodeID) -> tailcfg.MapResponse:
    """Give a message without what it says of the viewer as a peer, which clients pass over."""
    patches = tuple(p for p in message.peers_changed_patch or () if p.node_id != viewer)
    unseen = {i: seen for i, seen in (message.peer_seen_change or {}).items() if i != viewer}
    return msgspec.structs.replace(
        message, peers_changed_patch=patches or None, peer_seen_change=unseen or None
    )
