"""What the encoder shares, and that everything it keeps is bounded."""

from __future__ import annotations

from dataclasses import replace
from random import Random

from appliance.netmap import encoded
from appliance.netmap.capver import Band
from appliance.netmap.encoded import Encoder, Limits
from appliance.policy.engine.compile import Compiled, Sight
from appliance.records import NodeID, Presence, User, UserID
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from tests.netmap.messages import read_messages
from tests.netmap.tailnets import START, empty_tailnet, make_node

CAPVER = 148


def tailnet(size: int = 12) -> Snapshot:
    edit = Edit(empty_tailnet(), Sequences())
    edit.put(User(UserID(1), "one", START))
    for number in range(1, size + 1):
        edit.put(make_node(number, Random(number), user_id=UserID(1)))
    return edit.finish()[0]


def online(old: Snapshot, *nodes: int) -> Snapshot:
    edit = Edit(old, Sequences())
    for node_id in nodes:
        edit.set_presence(NodeID(node_id), Presence(online=True, sessions=1))
    return edit.finish()[0]


def seeing(old: Snapshot, sights: dict[NodeID, Sight]) -> Snapshot:
    edit = Edit(old, Sequences())
    edit.set_compiled(Compiled(sights=sights))
    return edit.finish()[0]


def test_full_maps_share_all_but_the_own_parts() -> None:
    encoder, snapshot = Encoder(chunk_peers=3), tailnet()
    one, other = (encoder.full(snapshot, NodeID(i), CAPVER, zstd=True) for i in (1, 12))
    assert [a is b for a, b in zip(one, other, strict=True)] == [
        *(False, True, True, True, True),
        *(False, True, True, False),
        True,
    ]


def test_older_clients_of_one_form_share_the_peers() -> None:
    encoder, snapshot = Encoder(chunk_peers=3), tailnet()
    one, other = (encoder.full(snapshot, NodeID(1), capver, zstd=True) for capver in (113, 131))
    assert all(a is b for a, b in zip(one[6:], other[6:], strict=True))


def test_delta_is_the_same_object_for_all_who_are_told_the_same() -> None:
    encoder, old = Encoder(), tailnet()
    new = online(old, 1, 2)
    told = [encoder.delta(old, new, NodeID(i), CAPVER, zstd=True) for i in range(1, 13)]
    assert told[0] is not None
    assert all(parts is told[0] for parts in told)


def test_who_alone_changed_hears_nothing() -> None:
    encoder, old = Encoder(), tailnet()
    assert encoder.delta(old, online(old, 1), NodeID(1), CAPVER, zstd=True) is None


def test_node_that_is_told_whole_never_hears_of_itself_as_a_peer() -> None:
    encoder, old = Encoder(), tailnet()
    edit = Edit(old, Sequences())
    for node_id in (1, 2):
        edit.put(replace(old.nodes[NodeID(node_id)], name=f"other-{node_id}"))
    new = edit.finish()[0]
    parts = encoder.delta(old, new, NodeID(1), CAPVER, zstd=False)
    (message,) = read_messages(parts or (), zstd=False)
    assert [peer.id for peer in message.peers_changed or ()] == [2]
    assert message.node is not None
    assert message.node.name == "other-1.example.net."


def test_peer_that_must_be_told_again_takes_two_messages() -> None:
    encoder, old = Encoder(), tailnet()
    edit = Edit(old, Sequences())
    edit.put(replace(old.nodes[NodeID(1)], home_derp=7))
    known = edit.finish()[0]
    parts = encoder.delta(known, old, NodeID(2), CAPVER, zstd=True)
    first, second = read_messages(parts or (), zstd=True)
    assert first == tailcfg.MapResponse(peers_removed=(1,))
    assert [peer.id for peer in second.peers_changed or ()] == [1]


def test_profiles_go_to_those_who_do_not_have_them() -> None:
    """X2: with a profile goes the domain, which makes clients show it in `tailscale status`."""
    encoder, old = Encoder(), tailnet()
    edit = Edit(old, Sequences(node=100))
    edit.put(User(UserID(2), "two", START))
    edit.put(make_node(101, Random(101), user_id=UserID(2)))
    joined = edit.finish()[0]
    edit = Edit(joined, Sequences())
    edit.put(replace(joined.nodes[NodeID(2)], name="renamed"))
    again = edit.finish()[0]
    told = []
    for before, after in ((old, joined), (joined, again)):
        parts = encoder.delta(before, after, NodeID(1), CAPVER, zstd=False)
        (message,) = read_messages(parts or (), zstd=False)
        told.append((message.domain, [user.id for user in message.user_profiles or ()]))
    assert told == [("example.net", [2]), ("", [])]


def test_keep_alive_is_exact_and_always_the_same() -> None:
    encoder = Encoder()
    assert encoder.keep_alive(zstd=False) == b'\x12\x00\x00\x00{"KeepAlive":true}'
    assert encoder.keep_alive(zstd=True) is encoder.keep_alive(zstd=True)
    assert read_messages([encoder.keep_alive(zstd=True)], zstd=True) == [
        tailcfg.MapResponse(keep_alive=True)
    ]


def test_warm_encoder_has_the_chunks_made() -> None:
    encoder, snapshot = Encoder(chunk_peers=3), tailnet()
    encoder.warm(snapshot)
    held_bytes = encoder.held_bytes
    assert held_bytes > 0
    encoder.full(snapshot, NodeID(1), CAPVER, zstd=True)
    assert 0 < encoder.kept.table_bytes < held_bytes
    Encoder().warm(tailnet(1))


def test_table_that_is_made_anew_tells_the_new_owners() -> None:
    encoder, old = Encoder(chunk_peers=3), tailnet()
    edit = Edit(old, Sequences())
    edit.put(User(UserID(2), "two", START))
    old = edit.finish()[0]
    encoder.full(old, NodeID(1), CAPVER, zstd=True)
    edit = Edit(old, Sequences())
    for node in list(old.nodes.values())[4:]:
        edit.put(replace(node, user_id=UserID(2)))
    new = edit.finish()[0]
    assert new.users is old.users
    (full,) = read_messages(encoder.full(new, NodeID(1), CAPVER, zstd=True), zstd=True)
    assert [user.id for user in full.user_profiles or ()] == [1, 2]


def test_old_versions_are_forgotten_when_a_newer_one_comes() -> None:
    encoder, first = Encoder(), tailnet()
    olds = [online(first, i) for i in range(1, 13)]
    new = online(first, *range(1, 13))
    for old in olds:
        encoder.delta(old, new, NodeID(1), CAPVER, zstd=True)
    assert encoder.kept.pairs == len(olds)
    encoder.delta(new, first, NodeID(1), CAPVER, zstd=True)
    assert encoder.kept.pairs == 1


def test_ways_from_old_versions_are_bounded() -> None:
    encoder, first = Encoder(), tailnet(40)
    new = online(first, *range(1, 41))
    for i in range(1, 41):
        encoder.delta(online(first, i), new, NodeID(1), CAPVER, zstd=True)
    assert encoder.kept.pairs == encoded.MAX_PAIRS


def test_tables_are_bounded_in_bytes() -> None:
    encoder = Encoder(chunk_peers=3, limits=Limits(table_bytes=4_000))
    first = tailnet(40)
    ids = list(first.nodes)
    sights = [Sight(frozenset(ids[start:])) for start in range(10)]
    snapshot = seeing(first, {node_id: sights[node_id % 10] for node_id in ids})
    for viewer in ids:
        encoder.full(snapshot, viewer, CAPVER, zstd=True)
        assert len(encoder.kept.sights) == 1 or encoder.held_bytes < 100_000
    assert 0 < encoder.kept.table_bytes < 12_000


def test_tables_of_a_policy_go_with_it() -> None:
    encoder, first = Encoder(), tailnet()
    everyone = Sight(frozenset(first.nodes))
    snapshot = seeing(first, dict.fromkeys(first.nodes, everyone))
    encoder.full(snapshot, NodeID(1), CAPVER, zstd=True)
    assert encoder.kept.sights == {everyone}
    encoder.full(first, NodeID(1), CAPVER, zstd=True)
    assert encoder.kept.sights == {first.compiled.default_sight}


def test_distinct_views_leave_nothing_behind() -> None:
    encoder, first = Encoder(), tailnet(40)
    ids = list(first.nodes)
    sights = {node_id: Sight(frozenset(ids) - {NodeID(node_id % 40 + 1)}) for node_id in ids}
    before, after = first, seeing(first, sights)
    for viewer in ids:
        encoder.full(after, viewer, CAPVER, zstd=True)
        encoder.delta(before, after, viewer, CAPVER, zstd=True)
    assert not encoder.kept.sights
    assert not encoder.kept.shared_deltas


def test_shared_deltas_are_bounded_in_bytes() -> None:
    encoder, old = Encoder(limits=Limits(pair_bytes=1_000)), tailnet()
    new = online(old, *range(1, 12))
    for of in Band:
        assert encoder.delta(old, new, NodeID(12), of, zstd=True)
    assert 0 < encoder.kept.shared_deltas < len(Band)


def test_filters_are_bounded_in_bytes() -> None:
    encoder, first = Encoder(limits=Limits(filter_bytes=300)), tailnet()
    edit = Edit(first, Sequences())
    filters: dict[NodeID, tuple[tailcfg.FilterRule, ...]] = {
        i: (tailcfg.FilterRule(src_ips=(str(i),)),) for i in first.nodes
    }
    edit.set_compiled(Compiled(filters=filters))
    snapshot = edit.finish()[0]
    for viewer in first.nodes:
        (full,) = read_messages(encoder.full(snapshot, viewer, CAPVER, zstd=True), zstd=True)
        assert full.packet_filters == {"base": filters[viewer]}
    assert 0 < encoder.kept.filters < 6
    assert encoder.kept.filter_bytes <= 300


def test_texts_of_nodes_that_are_gone_are_dropped() -> None:
    encoder, snapshot = Encoder(), tailnet(4)
    ids = Sequences(node=100)
    for _ in range(400):
        edit = Edit(snapshot, ids)
        number = ids.next_node()
        edit.put(make_node(number, Random(number), user_id=UserID(1)))
        if number > 101:
            edit.drop(edit.nodes[NodeID(number - 1)])
        snapshot = edit.finish()[0]
        encoder.full(snapshot, NodeID(1), CAPVER, zstd=True)
    assert encoder.kept.peers <= 2 * len(snapshot.nodes) + 257
