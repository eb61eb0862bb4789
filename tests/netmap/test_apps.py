"""What apps with a window make visible: macOS, iOS, Android, Windows (``docs/compatibility.md``)."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from itertools import pairwise
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import netmap
from appliance.netmap.encoded import Encoder
from appliance.netmap.selfnode import BY_ROLE, CAP_IS_ADMIN, CAP_IS_OWNER
from appliance.policy.answers.admission import admit
from appliance.policy.text.language import Background
from appliance.records import NodeID, Presence, Role, Settings, User, UserID
from appliance.tailnet import expiry, policies, presence
from appliance.tailnet.routes import EXIT_ROUTES
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from tests.netmap.messages import read_messages
from tests.netmap.tailnets import START, empty_tailnet, make_node
from tests.netmap.test_law import history
from tests.support import fakeclient
from tests.support.builder import build

CAPVER = 148
ONE, TWO, TAGGED = map(NodeID, (1, 2, 3))
ONLINE_SINCE = START - timedelta(hours=1)


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
        edit.set_presence(number, Presence(online=True, sessions=1, online_since=ONLINE_SINCE))
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


# ── LastSeen ─────────────────────────────────────────────────────────────────────────────────


def test_every_peer_says_when_it_was_seen() -> None:
    """Apple's apps take a peer without it for one that was never online."""
    edit = Edit(tailnet(), Sequences())
    presence.session_opened(edit, TAGGED, START)
    presence.session_closed(edit, TWO, START + timedelta(hours=1))
    presence.session_opened(edit, TWO, START + timedelta(hours=2))
    seen = {
        peer.id: (peer.online, peer.last_seen) for peer in full(edit.finish()[0], ONE).peers or ()
    }
    assert seen == {TWO: (True, ONLINE_SINCE), TAGGED: (True, START)}


def test_coming_and_going_say_when() -> None:
    first = tailnet()
    edit = Edit(first, Sequences())
    presence.session_opened(edit, TAGGED, START)
    second = edit.finish()[0]
    edit = Edit(second, Sequences())
    presence.session_closed(edit, TAGGED, START + timedelta(hours=1))
    third = edit.finish()[0]
    edit = Edit(third, Sequences())
    expiry.tick(edit, START + timedelta(hours=2))
    fourth = edit.finish()[0]
    (came,) = delta(first, second, ONE)
    assert came.peers_changed_patch == (
        tailcfg.PeerChange(node_id=TAGGED, online=True, last_seen=START),
    )
    assert delta(second, third, ONE) == [], "the grace time is nobody's news"
    (left,) = delta(third, fourth, ONE)
    assert left.peers_changed_patch == (
        tailcfg.PeerChange(node_id=TAGGED, online=False, last_seen=START + timedelta(hours=1)),
    )


def test_reconnecting_is_no_news() -> None:
    old = tailnet()
    edit = Edit(old, Sequences())
    for minute in range(3):
        presence.session_closed(edit, TWO, START + timedelta(minutes=minute))
        presence.session_opened(edit, TWO, START + timedelta(minutes=minute, seconds=1))
    assert delta(old, edit.finish()[0], ONE) == []


# ── capabilities of peers ────────────────────────────────────────────────────────────────────


def under_policy(text: str, old: Snapshot) -> Snapshot:
    edit = Edit(old, Sequences())
    if text:
        admitted = admit(text, edit.users, edit.nodes, Background(), with_tests=False)
        edit.set_policy(admitted.policy, admitted.compiled)
    return policies.settle(old, edit.finish()[0])


def test_every_approved_exit_node_is_suggested_without_a_policy() -> None:
    """Apple's apps list no others."""
    edit = Edit(tailnet(), Sequences())
    hostinfo = tailcfg.Hostinfo(routable_ips=EXIT_ROUTES)
    edit.put(replace(edit.nodes[TWO], hostinfo=hostinfo, approved_routes=EXIT_ROUTES))
    edit.put(replace(edit.nodes[TAGGED], hostinfo=hostinfo))
    made = edit.finish()[0]
    snapshot = policies.settle(made, made)
    told = {peer.id: peer.cap_map for peer in full(snapshot, ONE).peers or ()}
    assert told == {TWO: {"suggest-exit-node": ()}, TAGGED: None}


def test_peers_are_told_which_nodes_have_names_below_their_own() -> None:
    attribute = '{"target": ["tag:web"], "attr": ["dns-subdomain-resolve"]}'
    text = f"""{{"tagOwners": {{"tag:web": []}}, "nodeAttrs": [{attribute}],
        "grants": [{{"src": ["*"], "dst": ["*"], "ip": ["*"]}}]}}"""
    old = tailnet()
    old = policies.settle(old, old)
    new = under_policy(text, old)
    told = {peer.id: peer.cap_map for peer in full(new, ONE).peers or ()}
    assert told == {TWO: None, TAGGED: {"dns-subdomain-resolve": ()}}
    (message,) = delta(old, new, ONE)
    assert [peer.cap_map for peer in message.peers_changed or ()] == [{"dns-subdomain-resolve": ()}]


def test_peers_have_their_own_capability_version() -> None:
    edit = Edit(tailnet(), Sequences())
    edit.put(replace(edit.nodes[TWO], capver=116))
    (cap,) = {peer.cap for peer in full(edit.finish()[0], ONE).peers or () if peer.id == TWO}
    assert cap == 116


# ── ids ──────────────────────────────────────────────────────────────────────────────────────


def test_tailnet_has_an_id_that_only_the_node_itself_is_told() -> None:
    told = full(tailnet(), ONE)
    assert told.node is not None
    assert told.node.stable_tailnet_id == "T1"
    assert {peer.stable_tailnet_id for peer in told.peers or ()} == {""}


@given(st.integers(0, 2**32), st.integers(2, 12))
def test_no_node_is_its_own_peer_and_no_stable_id_comes_twice(seed: int, size: int) -> None:
    """Android's app ends when it does: it takes the stable id for the key of a list's row."""
    rng = Random(seed)
    versions, encoder = history(rng, size, steps=4), Encoder(chunk_peers=3)
    for old, new in pairwise(versions):
        for viewer in sorted(old.nodes.keys() & new.nodes.keys()):
            state = fakeclient.ClientState()
            before = encoder.full(old, viewer, CAPVER, zstd=False)
            after = encoder.delta(old, new, viewer, CAPVER, zstd=False) or ()
            for message in read_messages([*before, *after], zstd=False):
                told = [*(message.peers or ()), *(message.peers_changed or ())]
                assert viewer not in {node.id for node in told}
                assert len({node.stable_id for node in told}) == len(told)
                state = fakeclient.apply(state, message)
            shown = [node.stable_id for node in (state.node, *state.peers.values()) if node]
            assert len(set(shown)) == len(shown) == 1 + len(state.peers)


def test_stable_ids_of_several_tailnets_differ() -> None:
    ids = Sequences()
    first = build("alice: laptop phone; tag:web: srv", ids=ids, tailnet_id=1)
    second = build("bob: laptop phone; tag:web: srv", ids=ids, tailnet_id=2)
    nodes = [*first.nodes.values(), *second.nodes.values()]
    assert len({node.stable_id for node in nodes}) == len(nodes) == 6
    assert first.tailnet.stable_id != second.tailnet.stable_id
