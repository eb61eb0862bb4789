"""The model of the Go client: what it keeps, and what it famously loses."""

import ipaddress
from datetime import timedelta

import pytest
from msgspec.structs import replace

from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey, NodeKey
from tests.support.complaints import complaints
from tests.support.fakeclient import EPOCH, ClientAborts, ClientState, apply

ENDPOINT = tailcfg.AddrPort.parse("192.0.2.1:41641")
LATER = EPOCH + timedelta(hours=1)


def a_node(number: int, **fields: object) -> tailcfg.Node:
    plain = tailcfg.Node(
        id=number,
        stable_id=f"n{number}",
        name=f"n{number}.example.ts.net.",
        user=number * 10,
        key=NodeKey(bytes([number]) * 32),
        disco_key=DiscoKey(bytes([number]) * 32),
        addresses=(
            ipaddress.ip_network(f"100.64.0.{number}/32"),
            ipaddress.ip_network(f"fd7a:115c:a1e0::{number}/128"),
        ),
        machine_authorized=True,
        online=True,
    )
    return replace(plain, **fields)


def after(*responses: tailcfg.MapResponse) -> ClientState:
    state = ClientState()
    for response in responses:
        state = apply(state, response)
    return state


def start(*peers: tailcfg.Node) -> tailcfg.MapResponse:
    return tailcfg.MapResponse(node=a_node(1), peers=peers or None)


def test_first_message_needs_the_node() -> None:
    with pytest.raises(ClientAborts):
        apply(ClientState(), tailcfg.MapResponse(domain="x"))
    apply(ClientState(), tailcfg.MapResponse(keep_alive=True))


def test_absent_allowed_ips_are_the_addresses() -> None:
    state = after(start(a_node(2), a_node(3, allowed_ips=())))
    assert state.peers[2].allowed_ips == a_node(2).addresses
    assert state.peers[3].allowed_ips == ()


def test_empty_peers_change_nothing_and_full_peers_hide_the_rest() -> None:
    state = after(start(a_node(2)), tailcfg.MapResponse(peers=()))
    assert list(state.peers) == [2]
    state = apply(state, tailcfg.MapResponse(peers=(a_node(3),), peers_changed=(a_node(4),)))
    assert list(state.peers) == [3]


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"online": None}, {"online": True}),
        ({"online": True}, {"online": None}),
        ({}, {"last_seen": EPOCH}),
        ({"last_seen": EPOCH}, {}),
        ({"endpoints": (ENDPOINT,)}, {"endpoints": None}),
        ({"home_derp": 900}, {"home_derp": 0}),
        ({"cap": 100}, {"cap": 0}),
        ({"key_signature": b"s"}, {"key_signature": b""}),
    ],
)
def test_change_that_the_client_loses(old: dict[str, object], new: dict[str, object]) -> None:
    first = after(start(a_node(2, **old)))
    second = apply(first, tailcfg.MapResponse(peers_changed=(a_node(2, **new),)))
    assert second.peers == first.peers
    # With a field that cannot be patched the whole node is taken, and nothing is lost.
    third = apply(first, tailcfg.MapResponse(peers_changed=(a_node(2, name="x.", **new),)))
    assert third.peers == after(start(a_node(2, name="x.", **new))).peers


@pytest.mark.parametrize(
    ("old", "new"),
    [
        ({"online": True}, {"online": False}),
        ({"last_seen": EPOCH}, {"last_seen": LATER}),
        ({"endpoints": (ENDPOINT,)}, {"endpoints": ()}),
        ({"home_derp": 900}, {"home_derp": 901}),
        ({"cap_map": {"a": ()}}, {}),
        ({"cap_map": {"a": ()}}, {"cap_map": {"a": (tailcfg.raw(1),)}}),
        ({"key_expiry": EPOCH}, {}),
        ({}, {"key_expiry": EPOCH}),
        ({}, {"key": NodeKey(bytes([9]) * 32)}),
        ({}, {"disco_key": None}),
        ({}, {"tags": ("tag:a",)}),
        ({}, {"hostinfo": tailcfg.Hostinfo()}),
    ],
)
def test_change_that_arrives(old: dict[str, object], new: dict[str, object]) -> None:
    first = after(start(a_node(2, **old)))
    second = apply(first, tailcfg.MapResponse(peers_changed=(a_node(2, **new),)))
    assert second.peers == after(start(a_node(2, **new))).peers != first.peers


def test_removed_and_added_in_one_message_is_gone() -> None:
    response = tailcfg.MapResponse(peers_removed=(2,), peers_changed=(a_node(2, cap=5),))
    assert after(start(a_node(2), a_node(3)), response).peers.keys() == {3}
    assert complaints(response) == ["node 2 is removed and added in one message"]


def test_patches_follow_changes_and_skip_strangers() -> None:
    state = after(
        start(a_node(2)),
        tailcfg.MapResponse(
            peers_changed=(a_node(3),),
            peers_changed_patch=(
                tailcfg.PeerChange(node_id=3, derp_region=7, key_expiry=EPOCH),
                tailcfg.PeerChange(node_id=99, derp_region=7),
            ),
            online_change={2: False},
            peer_seen_change={2: True, 99: True},
        ),
    )
    assert (state.peers[3].home_derp, state.peers[3].key_expiry) == (7, EPOCH)
    assert (state.peers[2].online, state.peers[2].last_seen) == (False, EPOCH)
    never = tailcfg.PeerChange(node_id=3, key_expiry=tailcfg.NEVER)
    state = apply(state, tailcfg.MapResponse(peers_changed_patch=(never,)))
    assert state.peers[3].key_expiry is None


def test_disco_key_of_a_node_gone_offline_needs_a_newer_last_seen() -> None:
    state = after(start(a_node(2, last_seen=EPOCH)))
    patch = tailcfg.PeerChange(node_id=2, disco_key=DiscoKey(bytes(32)), online=False)
    ignored = apply(state, tailcfg.MapResponse(peers_changed_patch=(patch,)))
    assert ignored.peers == state.peers
    newer = replace(patch, last_seen=LATER)
    taken = apply(state, tailcfg.MapResponse(peers_changed_patch=(newer,)))
    assert taken.peers[2].disco_key is None


def test_filters_by_name() -> None:
    rule = tailcfg.FilterRule(src_ips=("*",), dst_ports=(tailcfg.NetPortRange(ip="*"),))
    other = tailcfg.FilterRule(src_ips=("100.64.0.1",))
    state = after(
        start(),
        tailcfg.MapResponse(packet_filters={"base": (rule,)}),
        tailcfg.MapResponse(packet_filters={"a": (other,), "b": ()}),
    )
    assert state.netmap().packet_filter == (other, rule)
    state = apply(state, tailcfg.MapResponse(packet_filters={"a": None, "*": (rule,)}))
    assert state.packet_filters == {"b": (), "base": (rule,)}
    state = apply(state, tailcfg.MapResponse(packet_filters={"*": None, "c": (rule,)}))
    assert state.packet_filters == {"c": (rule,)}


def test_messages_beat_health_and_are_patched() -> None:
    message = tailcfg.DisplayMessage(title="t")
    state = after(
        start(),
        tailcfg.MapResponse(health=("ill",), display_messages={"a": message, "b": message}),
        tailcfg.MapResponse(display_messages={"a": None}),
        tailcfg.MapResponse(display_messages={}),
    )
    assert state.netmap().messages == {"b": message}
    state = apply(state, tailcfg.MapResponse(display_messages={"*": None}))
    assert [m.text for m in state.netmap().messages.values()] == ["ill"]
    assert apply(state, tailcfg.MapResponse(health=())).netmap().messages == {}


def test_relay_map_parts_are_kept() -> None:
    region = tailcfg.DERPRegion(region_id=900)
    scores = tailcfg.DERPHomeParams(region_score={900: 0.5})
    state = after(
        start(),
        tailcfg.MapResponse(derp_map=tailcfg.DERPMap(regions={900: region}, home_params=scores)),
        tailcfg.MapResponse(derp_map=tailcfg.DERPMap(home_params=tailcfg.DERPHomeParams())),
    )
    assert state.derp_map == tailcfg.DERPMap(regions={900: region}, home_params=scores)


def test_profiles_stay_but_only_those_of_visible_owners_show() -> None:
    profiles = tuple(tailcfg.UserProfile(id=user, login_name=str(user)) for user in (10, 20, 30))
    state = after(start(a_node(2)), tailcfg.MapResponse(user_profiles=profiles))
    assert state.netmap().user_profiles.keys() == {10, 20}


def test_same_ping_twice_is_answered_once() -> None:
    ping = tailcfg.PingRequest(url="https://unused/1")
    state = after(start(), *[tailcfg.MapResponse(keep_alive=True, ping_request=ping)] * 2)
    assert state.pings == (ping,)
    assert state.messages_seen == 1
