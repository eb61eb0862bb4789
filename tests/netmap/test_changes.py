"""What peers must be told of a node that changed, and in which form clients take it."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields, replace
from datetime import timedelta
from ipaddress import ip_network
from random import Random

import pytest

from appliance.netmap.changes import (
    CLOSER,
    PATCHABLE,
    UNSEEN,
    WHOLE,
    Patch,
    Resend,
    Transition,
    changes,
    touched,
    transition,
)
from appliance.records import OFFLINE, Node, NodeID, Presence, User, UserID
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey, NodeKey
from tests.netmap.tailnets import ENDPOINTS, START, empty_tailnet, make_node

LAN = ip_network("10.0.0.0/8")
BEFORE = START - timedelta(hours=1)
ONLINE = Presence(online=True, sessions=1, online_since=START)
SEEN = START + timedelta(hours=1)

NODE = make_node(
    7,
    Random(7),
    user_id=UserID(1),
    disco_key=DiscoKey(b"d" * 32),
    endpoints=ENDPOINTS[:1],
    home_derp=900,
    capver=142,
    expires_at=START,
    key_signature=b"signed",
    hostinfo=tailcfg.Hostinfo(os="linux", routable_ips=(LAN,)),
)


def change(**patch: object) -> Patch:
    return Patch(tailcfg.PeerChange(node_id=7, **patch))  # type: ignore[arg-type]  # named below


def test_every_field_of_a_record_is_accounted_for() -> None:
    groups = [PATCHABLE, UNSEEN, frozenset(WHOLE), CLOSER]
    assert sorted(name for group in groups for name in group) == sorted(
        field.name for field in fields(Node)
    )


@pytest.mark.parametrize(
    ("drawn", "wanted"),
    [
        ({"endpoints": ENDPOINTS[:2]}, change(endpoints=ENDPOINTS[:2])),
        ({"endpoints": ()}, change(endpoints=())),
        ({"home_derp": 901}, change(derp_region=901)),
        ({"home_derp": 0}, Resend.AGAIN),
        ({"capver": 148}, change(cap=148)),
        ({"capver": 0}, Resend.AGAIN),
        ({"key_signature": b"again"}, change(key_signature=b"again")),
        ({"key_signature": b""}, Resend.AGAIN),
        ({"disco_key": DiscoKey(b"e" * 32)}, change(disco_key=DiscoKey(b"e" * 32))),
        ({"disco_key": None}, change(disco_key=DiscoKey.zero())),
        ({"node_key": NodeKey(b"k" * 32)}, change(key=NodeKey(b"k" * 32))),
        ({"expires_at": SEEN}, change(key_expiry=SEEN)),
        ({"expires_at": None}, change(key_expiry=tailcfg.NEVER)),
        ({"endpoints": (), "home_derp": 5}, change(endpoints=(), derp_region=5)),
        ({"name": "other"}, Resend.WHOLE),
        ({"name": "other", "home_derp": 0}, Resend.WHOLE),
        ({"user_id": UserID(2)}, Resend.WHOLE),
        ({"user_id": None, "tags": ("tag:x",)}, Resend.WHOLE),
        ({"ipv4": None}, Resend.WHOLE),
        ({"approved_routes": (LAN,)}, None),  # of routes the viewer's outlook tells
        ({"approved_routes": (ip_network("10.7.0.0/16"),), "home_derp": 0}, Resend.AGAIN),
        ({"hostinfo": tailcfg.Hostinfo(os="linux")}, None),
        ({"hostinfo": tailcfg.Hostinfo(os="macOS")}, Resend.WHOLE),
        ({"hostinfo": tailcfg.Hostinfo(os="linux", ipn_version="9"), "capver": 0}, Resend.AGAIN),
        ({"net_info": tailcfg.NetInfo(preferred_derp=7)}, None),
        ({"hostname": "other", "ephemeral": True, "name_pinned": True}, None),
    ],
)
def test_record_that_changed(drawn: dict[str, object], wanted: Transition | None) -> None:
    now = replace(NODE, **drawn)  # type: ignore[arg-type]  # named above
    assert transition(NODE, now, ONLINE, ONLINE) == wanted


@pytest.mark.parametrize(
    ("before", "after", "wanted"),
    [
        (OFFLINE, ONLINE, change(online=True, last_seen=START)),
        (ONLINE, Presence(last_seen=SEEN), change(online=False, last_seen=SEEN)),
        (ONLINE, OFFLINE, Patch(tailcfg.PeerChange(node_id=7, online=False), unseen=True)),
        (ONLINE, replace(ONLINE, sessions=2), None),
        (ONLINE, replace(ONLINE, last_seen=SEEN), None),
        (OFFLINE, Presence(last_seen=SEEN), change(last_seen=SEEN)),
        (
            Presence(last_seen=SEEN),
            Presence(online=True),
            Patch(tailcfg.PeerChange(node_id=7, online=True), unseen=True),
        ),
        (Presence(last_seen=BEFORE), ONLINE, change(online=True, last_seen=START)),
        (Presence(last_seen=SEEN), OFFLINE, Patch(None, unseen=True)),
        (ONLINE, replace(ONLINE, expired=True), Resend.WHOLE),
        (Presence(expired=True), OFFLINE, Resend.WHOLE),
    ],
)
def test_presence_that_changed(
    before: Presence, after: Presence, wanted: Transition | None
) -> None:
    assert transition(NODE, NODE, before, after) == wanted


def test_record_and_presence_share_one_patch() -> None:
    now = replace(NODE, endpoints=())
    assert transition(NODE, now, OFFLINE, ONLINE) == change(
        endpoints=(), online=True, last_seen=START
    )


@pytest.mark.parametrize(
    ("after", "is_overlooked"),
    [
        (Presence(last_seen=SEEN), False),
        (Presence(last_seen=START), True),
        (Presence(last_seen=BEFORE), True),
        (OFFLINE, True),
        (ONLINE, False),
    ],
)
def test_new_disco_key_of_a_node_that_left_is_not_overlooked(
    after: Presence, *, is_overlooked: bool
) -> None:
    """Clients of 1.98 to 1.102 overlook a patch with it unless the node was seen later."""
    found = transition(NODE, replace(NODE, disco_key=DiscoKey(b"e" * 32)), ONLINE, after)
    assert (found is Resend.AGAIN) == is_overlooked


@pytest.mark.parametrize(
    ("act", "near"),
    [
        (lambda edit: edit.put(make_node(9, Random(9))), {9}),
        (lambda edit: edit.drop(edit.nodes[NodeID(2)]), {2}),
        (lambda edit: edit.put(replace(edit.nodes[NodeID(1)], home_derp=3)), {1}),
        (lambda edit: edit.set_presence(NodeID(3), Presence(sessions=1)), {3}),
        (lambda edit: edit.set_presence(NodeID(1), OFFLINE), {1}),
        (lambda edit: edit.put(User(UserID(9), "nine", START)), set()),
    ],
)
def test_only_what_is_another_object_is_looked_at(
    act: Callable[[Edit], None], near: set[int]
) -> None:
    old = small_tailnet()
    edit = Edit(old, Sequences())
    act(edit)
    new = edit.finish()[0]
    for before, after in ((old, new), (new, old)):
        assert changes(before, after).touched == touched(before, after) == near


def test_same_snapshot_has_no_changes() -> None:
    old = small_tailnet()
    assert not touched(old, old)
    assert not changes(old, old).transitions


def test_profiles_count_only_when_they_look_different() -> None:
    old = small_tailnet()
    edit = Edit(old, Sequences())
    edit.put(replace(old.users[UserID(1)], subject="x"))
    assert changes(old, edit.finish()[0]).users == frozenset()
    edit = Edit(old, Sequences())
    edit.put(replace(old.users[UserID(1)], display_name="One"))
    edit.put(User(UserID(2), "two", START))
    assert changes(old, edit.finish()[0]).users == {1, 2}


def test_new_domain_changes_every_name() -> None:
    old = small_tailnet()
    edit = Edit(old, Sequences())
    edit.put(replace(old.tailnet, domain="other.example"))
    found = changes(old, edit.finish()[0])
    assert found.transitions == dict.fromkeys(old.nodes, Resend.WHOLE)


def small_tailnet() -> Snapshot:
    edit = Edit(empty_tailnet(), Sequences())
    edit.put(User(UserID(1), "one", START))
    for number in (1, 2, 3):
        edit.put(make_node(number, Random(number), user_id=UserID(1)))
    edit.set_presence(NodeID(1), ONLINE)
    return edit.finish()[0]
