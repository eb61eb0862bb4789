"""Filters and SSH rules in pieces: they read as if written whole, and long lists are made once."""

from __future__ import annotations

import json
from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address

import pytest

from appliance.netmap.capver import band
from appliance.netmap.encoded import Encoder
from appliance.netmap.ruletexts import OWN_FRAME_BYTES, RuleTexts, packed
from appliance.netmap.texts import Fragment, Fragments
from appliance.policy.answers.admission import admit
from appliance.policy.text.language import Background
from appliance.records import Node, NodeID, Tailnet, TailnetID, UserID
from appliance.tailnet import policies
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey, NodeKey
from tests.netmap.messages import read_messages
from tests.netmap.tailnets import START
from tests.netmap.test_encoded import check_delta, check_full
from tests.policy.worlds import node, user

CAPVERS = (113, 119, 148)
MANY = 150
TAGGED = (NodeID(1), NodeID(2))
OF = band(148)
POLICY = {
    "tagOwners": {"tag:a": [], "tag:b": [], "tag:c": []},
    "grants": [
        {"src": ["autogroup:member"], "dst": ["tag:a"], "ip": ["tcp:22"]},
        {"src": ["ann@example.com"], "dst": ["tag:a"], "ip": ["tcp:80"]},
        {
            "src": ["autogroup:member"],
            "dst": ["tag:c"],
            "app": {"tailscale.com/cap/relay": [], "example.com/cap/x": [{"a": 1}]},
        },
    ],
    "ssh": [
        {"action": "check", "src": ["autogroup:member"], "dst": ["tag:a"], "users": ["root"]},
        {"action": "accept", "src": ["ann@example.com"], "dst": ["tag:a"], "users": ["root"]},
    ],
}


def tailnet() -> Snapshot:
    """Give three tagged devices and many of users, Ann among them with one, under the policy."""
    edit = Edit(Snapshot(Tailnet(TailnetID(1), "t", "tail.example.net", START)), Sequences())
    people = [user(1, "ann@example.com"), user(2, "bob@example.com")]
    devices = [node(1, tags=("tag:a",)), node(2, tags=("tag:a", "tag:b")), node(3, tags=("tag:c",))]
    devices.append(node(4, user=UserID(1)))
    devices += [member(number) for number in range(5, MANY)]
    for person in people:
        edit.put(person)
    for device in devices:
        edit.put(device)
    admitted = admit(json.dumps(POLICY), edit.users, edit.nodes, Background(), with_tests=False)
    edit.set_policy(admitted.policy, admitted.compiled)
    made = edit.finish()[0]
    return policies.settle(made, made)


def member(number: int) -> Node:
    """Give one of Bob's devices."""
    return replace(
        node(1, user=UserID(2)),
        id=NodeID(number),
        stable_id=f"n{number}",
        name=f"n{number}",
        machine_key=MachineKey(number.to_bytes(32)),
        node_key=NodeKey(number.to_bytes(32)),
        ipv4=IPv4Address("100.64.0.0") + number,
        ipv6=IPv6Address("fd7a:115c:a1e0::") + number,
    )


def joined(old: Snapshot, number: int) -> Snapshot:
    edit = Edit(old, Sequences())
    edit.put(member(number))
    return policies.settle(old, edit.finish()[0])


@pytest.mark.parametrize("capver", CAPVERS)
@pytest.mark.parametrize("zstd", [True, False])
def test_messages_in_pieces_mean_what_they_are_made_of(capver: int, *, zstd: bool) -> None:
    first = tailnet()
    second = joined(first, MANY)
    encoder = Encoder()
    for viewer in (*TAGGED, NodeID(3), NodeID(4), NodeID(5)):
        check_full(encoder, first, viewer, capver, zstd=zstd)
        check_delta(encoder, first, second, viewer, capver, zstd=zstd)
        check_full(encoder, second, viewer, capver, zstd=zstd)


@pytest.mark.parametrize(
    ("capver", "wanted"),
    [(119, {"example.com/cap/x"}), (120, {"example.com/cap/x", "tailscale.com/cap/relay"})],
)
def test_rights_on_a_peer_relay_are_told_from_120(capver: int, wanted: set[str]) -> None:
    """S1: the bands were out of order, so that 1.86 to 1.90 were not told."""
    parts = Encoder().full(tailnet(), NodeID(3), capver, zstd=False)
    (full,) = read_messages(parts, zstd=False)
    rules = (full.packet_filters or {})["base"] or ()
    caps = {name for rule in rules for grant in rule.cap_grant for name in grant.cap_map or {}}
    assert wanted <= caps
    assert ("tailscale.com/cap/relay" in caps) == (capver >= 120)


def test_a_long_list_is_one_piece_for_all_who_are_told_of_it() -> None:
    texts, snapshot = RuleTexts(), tailnet()
    one, other = (texts.filter(snapshot.compiled.packet_filter(each), OF) for each in TAGGED)
    assert len(one) >= 3
    assert one[1] is other[1]
    assert one[1].text.startswith(b'"SrcIPs":["100.')
    assert one[0] is not other[0]
    assert texts.filter(snapshot.compiled.packet_filter(TAGGED[0]), OF) is one


def test_a_list_that_comes_twice_is_left_to_compression() -> None:
    sources = tuple(map(str, range(100)))
    rules = tuple(tailcfg.FilterRule(src_ips=sources, ip_proto=(each,)) for each in (6, 17))
    assert len(RuleTexts().filter(rules, OF)) == 1
    assert len(RuleTexts().filter(rules[:1], OF)) == 3


def test_what_two_policies_did_not_ask_for_is_forgotten() -> None:
    texts, snapshot = RuleTexts(), tailnet()
    for each in TAGGED:
        texts.filter(snapshot.compiled.packet_filter(each), OF)
    assert len(texts) == 2
    texts.grow_older()
    texts.filter(snapshot.compiled.packet_filter(TAGGED[0]), OF)
    assert len(texts) == 2
    texts.grow_older()
    assert len(texts) == 1
    texts.grow_older()
    assert len(texts) == 0
    assert texts.held_bytes == 0


def test_pieces_count_what_is_theirs() -> None:
    kept = Fragments(1000)
    shared = Fragment(b"s" * 500)
    what = object()
    pieces = kept.pieces_of(what, 0, lambda: (Fragment(b"ab"), shared, Fragment(b"c")))
    assert kept.pieces_of(what, 0, lambda: ()) is pieces
    assert kept.held_bytes == 6


def test_large_pieces_have_frames_and_small_ones_share_one() -> None:
    large = Fragment(b"x" * OWN_FRAME_BYTES)
    pieces = (b"a", Fragment(b"b"), large, b"c", Fragment(b"d"))
    assert packed(pieces, zstd=False) == [b"ab", large.text, b"cd"]
    frames = packed(pieces, zstd=True)
    assert len(frames) == 3
    assert frames[1] is large.data(zstd=True)
    assert packed((large,), zstd=False) == [large.text]
