"""What apps with a window make visible: macOS, iOS, Android, Windows (``docs/compatibility.md``)."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from appliance import netmap
from appliance.netmap.encoded import Encoder
from appliance.netmap.selfnode import BY_ROLE, CAP_IS_ADMIN, CAP_IS_OWNER
from appliance.records import NodeID, Presence, Role, Settings, User, UserID
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from tests.netmap.messages import read_messages
from tests.netmap.tailnets import START, empty_tailnet, make_node

CAPVER = 148
ONE, TWO, TAGGED = map(NodeID, (1, 2, 3))


def tailnet(role: Role = Role.MEMBER) -> Snapshot:
    """Two devices of Ada, who has this role, and a tagged one."""
    edit = Edit(empty_tailnet(), Sequences())
    edit.put(User(UserID(1), "ada", START, role=role))
    for number in (ONE, TWO):
        edit.put(make_node(number, Random(number), user_id=UserID(1), home_derp=900))
    edit.put(make_node(TAGGED, Random(3), tags=("tag:web",)))
    edit.set_settings(
        Settings(extra_records=(tailcfg.DNSRecord(name="nas.example.net", value="10.0.0.9"),))
    )
    for number in (ONE, TWO):
        edit.set_presence(number, Presence(online=True, sessions=1))
    return edit.finish()[0]


def expired(old: Snapshot, node_id: NodeID) -> Snapshot:
    edit = Edit(old, Sequences())
    edit.set_presence(node_id, replace(old.presence_of(node_id), expired=True))
    return edit.finish()[0]


def full(snapshot: Snapshot, viewer: NodeID) -> tailcfg.MapResponse:
    (message,) = read_messages(
        Encoder().full(snapshot, viewer, CAPVER, zstd=False, now=START), zstd=False
    )
    return message


def delta(old: Snapshot, new: Snapshot, viewer: NodeID) -> list[tailcfg.MapResponse]:
    return read_messages(Encoder().delta(old, new, viewer, CAPVER, zstd=False) or (), zstd=False)


def capabilities(message: tailcfg.MapResponse) -> set[str]:
    assert message.node is not None
    return {name for name in message.node.cap_map or {} if name in (CAP_IS_ADMIN, CAP_IS_OWNER)}


# ── is-admin ─────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize("role", Role)
def test_only_owners_and_administrators_are_told_that_they_administer(role: Role) -> None:
    """F9: every node was told so, those of members and tagged ones too."""
    wanted = {
        Role.OWNER: {CAP_IS_ADMIN, CAP_IS_OWNER},
        Role.ADMIN: {CAP_IS_ADMIN},
    }.get(role, set())
    snapshot = tailnet(role)
    assert capabilities(full(snapshot, ONE)) == wanted
    assert capabilities(full(snapshot, TAGGED)) == set()


def test_every_role_says_what_it_adds() -> None:
    assert set(BY_ROLE) == set(Role)


def test_new_role_reaches_open_sessions_of_the_user_and_no_others() -> None:
    old = tailnet()
    edit = Edit(old, Sequences())
    edit.put(replace(old.users[UserID(1)], role=Role.ADMIN))
    new = edit.finish()[0]
    for viewer in (ONE, TWO):
        (message,) = delta(old, new, viewer)
        assert capabilities(message) == {CAP_IS_ADMIN}
        assert message.user_profiles is None
    assert delta(old, new, TAGGED) == []


# ── expired nodes ────────────────────────────────────────────────────────────────────────────


def test_expired_node_is_told_of_itself_and_the_relays_only() -> None:
    """H13: it got all peers with their endpoints, and every change, until it was deleted."""
    message = full(expired(tailnet(), ONE), ONE)
    assert message.node is not None
    assert message.node.expired
    assert message.peers is None
    assert message.packet_filters == {"base": ()}
    assert message.dns_config == tailcfg.DNSConfig()
    assert message.derp_map is not None
    assert [user.id for user in message.user_profiles or ()] == [1]


def test_expiry_takes_peers_and_names_away_from_an_open_session() -> None:
    old = tailnet()
    new = expired(old, ONE)
    (message,) = delta(old, new, ONE)
    assert message.node is not None
    assert message.node.expired
    assert message.peers_removed == (2, 3)
    assert message.packet_filters == {"base": ()}
    assert message.dns_config == tailcfg.DNSConfig()


def test_expired_node_hears_nothing_of_others() -> None:
    old = expired(tailnet(), ONE)
    edit = Edit(old, Sequences(node=10, user=10))
    edit.put(User(UserID(2), "bob", START))
    edit.put(make_node(11, Random(11), user_id=UserID(2)))
    edit.put(replace(old.nodes[TWO], name="renamed", endpoints=()))
    edit.set_presence(TWO, Presence(last_seen=START))
    edit.set_settings(replace(old.settings, nameservers=("10.0.0.53",)))
    new = edit.finish()[0]
    assert delta(old, new, ONE) == []
    assert [peer.id for peer in delta(old, new, TAGGED)[0].peers_changed or ()] == [2, 11]


def test_peers_go_on_to_see_an_expired_node_as_expired() -> None:
    old = tailnet()
    new = expired(old, ONE)
    (message,) = delta(old, new, TWO)
    assert [(peer.id, peer.expired) for peer in message.peers_changed or ()] == [(1, True)]
    assert [peer.expired for peer in full(new, TWO).peers or () if peer.id == 1] == [True]


def test_node_that_is_valid_again_is_told_all_that_a_full_map_tells() -> None:
    new = tailnet()
    (message,) = delta(expired(new, ONE), new, ONE)
    wanted = netmap.full(new, ONE, CAPVER)
    assert message.peers_changed == wanted.peers
    for field in ("node", "packet_filters", "ssh_policy", "dns_config", "derp_map"):
        assert getattr(message, field) == getattr(wanted, field)
