"""Chunk tables follow the versions and keep what did not change."""

from __future__ import annotations

import json
from random import Random

from hypothesis import given
from hypothesis import strategies as st

from appliance.netmap.changes import touched
from appliance.netmap.chunks import ChunkTable
from appliance.netmap.texts import PeerTexts
from appliance.policy.engine.compile import EVERYONE, Sight
from appliance.records import NodeID, Presence, UserID
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from tests.netmap import tailnets
from tests.netmap.tailnets import empty_tailnet, make_node

NOBODY = NodeID(0)


@given(st.integers(0, 2**32), st.integers(0, 30), st.integers(1, 6))
def test_table_that_follows_is_as_a_new_one(seed: int, size: int, chunk_peers: int) -> None:
    rng = Random(seed)
    snapshot = tailnets.random_tailnet(rng, size)
    ids = Sequences(user=100, node=100, auth_key=100)
    known = [*range(1, 40), *range(95, 140)]
    sight = rng.choice((EVERYONE, Sight(frozenset(map(NodeID, rng.sample(known, 60))))))
    texts = PeerTexts()
    table = ChunkTable(sight, texts, snapshot, chunk_peers)
    for _ in range(12):
        old, snapshot = snapshot, tailnets.random_step(rng, snapshot, ids)
        table.advance(snapshot, touched(old, snapshot))
        fresh = ChunkTable(sight, PeerTexts(), snapshot, chunk_peers)
        assert told(table) == told(fresh)
        assert table.owners == fresh.owners
        assert table.has_others(NOBODY) == bool(told(table))
        check_shape(table, chunk_peers)


def test_chunks_that_did_not_change_stay_the_same_bytes() -> None:
    old = snapshot_of(20)
    table = ChunkTable(EVERYONE, PeerTexts(), old, 5)
    before = table.without(NOBODY, zstd=True)
    edit = Edit(old, Sequences())
    edit.set_presence(NodeID(7), Presence(online=True))
    new = edit.finish()[0]
    table.advance(new, touched(old, new))
    after = table.without(NOBODY, zstd=True)
    assert [a is b for a, b in zip(before, after, strict=True)] == [True, False, True, True]


def test_another_session_of_a_node_changes_nothing() -> None:
    old = snapshot_of(10)
    table = ChunkTable(EVERYONE, PeerTexts(), old, 5)
    before = table.without(NOBODY, zstd=True)
    edit = Edit(old, Sequences())
    edit.set_presence(NodeID(7), Presence(sessions=1))
    new = edit.finish()[0]
    table.advance(new, touched(old, new))
    after = table.without(NOBODY, zstd=True)
    assert all(a is b for a, b in zip(before, after, strict=True))


def test_only_the_viewers_own_chunk_is_made_for_it() -> None:
    table = ChunkTable(EVERYONE, PeerTexts(), snapshot_of(20), 5)
    everyone = table.without(NOBODY, zstd=False)
    parts = table.without(NodeID(13), zstd=False)
    assert [a is b for a, b in zip(everyone, parts, strict=True)] == [True, True, False, True]
    assert NodeID(13) not in ids_in(parts)


def test_first_chunk_of_the_viewer_alone_leaves_no_comma() -> None:
    table = ChunkTable(EVERYONE, PeerTexts(), snapshot_of(3), 1)
    assert ids_in(table.without(NodeID(1), zstd=False)) == [2, 3]
    assert ids_in(table.without(NodeID(2), zstd=False)) == [1, 3]
    assert ids_in(table.without(NOBODY, zstd=False)) == [1, 2, 3]


def test_held_bytes_count_what_was_made() -> None:
    old = snapshot_of(20)
    table = ChunkTable(EVERYONE, PeerTexts(), old, 5)
    assert table.held_bytes == 0
    parts = [*table.without(NOBODY, zstd=True), *table.without(NOBODY, zstd=False)]
    assert table.held_bytes == sum(map(len, parts))
    edit = Edit(old, Sequences())
    edit.drop(old.nodes[NodeID(3)])
    new = edit.finish()[0]
    table.advance(new, touched(old, new))
    assert table.held_bytes < sum(map(len, parts))
    kept = [*table.without(NOBODY, zstd=True), *table.without(NOBODY, zstd=False)]
    assert table.held_bytes == sum(map(len, kept))


def test_owner_leaves_with_the_last_node() -> None:
    old = snapshot_of(20)
    table = ChunkTable(EVERYONE, PeerTexts(), old, 5)
    assert UserID(20) in table.owners
    edit = Edit(old, Sequences())
    edit.drop(old.nodes[NodeID(20)])
    new = edit.finish()[0]
    table.advance(new, touched(old, new))
    assert UserID(20) not in table.owners


def snapshot_of(size: int) -> Snapshot:
    rng = Random(1)
    edit = Edit(empty_tailnet(), Sequences())
    for number in range(1, size + 1):
        edit.put(make_node(number, rng, user_id=UserID(number)))
    return edit.finish()[0]


def told(table: ChunkTable) -> list[object]:
    """Give the peers that a table tells a viewer that is none of them."""
    text = b"".join(table.without(NOBODY, zstd=False))
    peers: list[object] = json.loads(b"[" + text + b"]")
    return peers


def ids_in(parts: list[bytes]) -> list[int]:
    return [peer["ID"] for peer in json.loads(b"[" + b"".join(parts) + b"]")]


def check_shape(table: ChunkTable, chunk_peers: int) -> None:
    """Chunks are in order, none is empty or far too big, and there are not far too many."""
    ids = [node_id for chunk in table._chunks for node_id in chunk.ids]
    assert ids == sorted(set(ids))
    assert table._starts == [chunk.ids[0] for chunk in table._chunks]
    assert all(len(chunk.ids) <= 2 * chunk_peers for chunk in table._chunks)
