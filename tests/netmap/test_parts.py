"""The parts of a view: nodes as peers and as themselves, users, DNS, relays; and their old forms."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from ipaddress import ip_network
from random import Random

import pytest

from appliance import netmap
from appliance.netmap.capver import Band, band, fit_derp_map
from appliance.netmap.dns import dns_config
from appliance.netmap.peers import peer
from appliance.netmap.relays import derp_map
from appliance.netmap.selfnode import CAP_FILE_SHARING, CAP_SSH, self_node
from appliance.policy.engine.compile import Compiled, Sight
from appliance.records import (
    TAGGED_USER_ID,
    Network,
    Node,
    NodeID,
    Presence,
    Settings,
    User,
    UserID,
)
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey
from tests.netmap.tailnets import ENDPOINTS, SERVICES, START, empty_tailnet, make_node

LAN = ip_network("10.0.0.0/8")
EXIT: tuple[Network, ...] = (ip_network("0.0.0.0/0"), ip_network("::/0"))
NODE = make_node(
    1,
    Random(1),
    user_id=UserID(1),
    disco_key=DiscoKey(b"d" * 32),
    endpoints=ENDPOINTS[:1],
    home_derp=900,
    capver=142,
    hostinfo=tailcfg.Hostinfo(
        os="linux",
        os_version="6.1",
        hostname="box",
        ipn_version="1.102",
        backend_log_id="secret",
        device_model="M1",
        routable_ips=(LAN, *EXIT),
        request_tags=("tag:web",),
        services=SERVICES,
        ssh_host_keys=("ssh-ed25519 AAAA",),
        app_connector=True,
        location=tailcfg.Location(city="Arica"),
    ),
)

OTHER = make_node(2, Random(2), user_id=UserID(1))


def tailnet(*nodes: Node, settings: Settings | None = None) -> Snapshot:
    edit = Edit(empty_tailnet(), Sequences())
    edit.put(User(UserID(1), "ada", START, email="ada@example.org"))
    for node in nodes or (NODE,):
        edit.put(node)
    edit.set_settings(settings or Settings())
    return edit.finish()[0]


def with_presence(snapshot: Snapshot, presence: Presence) -> Snapshot:
    edit = Edit(snapshot, Sequences())
    edit.set_presence(NODE.id, presence)
    return edit.finish()[0]


def test_peer_is_told_only_what_peers_read() -> None:
    shown = peer(tailnet(), NODE)
    assert shown.hostinfo == tailcfg.Hostinfo(
        os="linux",
        hostname="box",
        services=SERVICES[:3],
        ssh_host_keys=("ssh-ed25519 AAAA",),
        app_connector=True,
        location=tailcfg.Location(city="Arica"),
    )
    assert shown.cap_map is None
    assert shown.machine_authorized
    assert shown.name == "node-1.example.net."


def test_addresses_are_a_pair_of_ipv4_and_ipv6() -> None:
    assert [str(prefix) for prefix in peer(tailnet(), NODE).addresses] == [
        "100.64.0.1/32",
        "fd7a:115c:a1e0::1/128",
    ]


def test_routes_are_served_when_offered_and_approved() -> None:
    node = replace(NODE, approved_routes=(LAN, *EXIT, ip_network("192.168.0.0/16")))
    shown = netmap.view(tailnet(node, OTHER), OTHER.id).peers[node.id]
    assert shown.allowed_ips == (*shown.addresses, EXIT[0], LAN, EXIT[1])
    assert shown.primary_routes == (LAN,)
    assert peer(tailnet(), NODE).allowed_ips is None


def test_endpoints_are_always_said() -> None:
    node = replace(NODE, endpoints=())
    assert b'"Endpoints":[]' in tailcfg.encode(peer(tailnet(node), node))


def test_online_and_when_it_was_last_seen_are_always_said() -> None:
    seen = START + timedelta(days=1)
    never = peer(tailnet(), NODE)
    assert (never.online, never.last_seen) == (False, None)
    offline = peer(with_presence(tailnet(), Presence(last_seen=seen)), NODE)
    assert (offline.online, offline.last_seen) == (False, seen)
    later = seen + timedelta(hours=1)
    presence = Presence(online=True, last_seen=later, online_since=seen)
    online = peer(with_presence(tailnet(), presence), NODE)
    assert (online.online, online.last_seen) == (True, seen)


def test_expired_node_is_told_as_such_to_peers_and_itself() -> None:
    snapshot = with_presence(tailnet(), Presence(expired=True))
    assert peer(snapshot, NODE).expired
    assert self_node(snapshot, NODE).expired


def test_self_is_authorized_online_and_has_its_attributes() -> None:
    shown = self_node(tailnet(), NODE)
    assert shown.machine_authorized
    assert shown.online
    assert {CAP_SSH, CAP_FILE_SHARING} <= (shown.cap_map or {}).keys()
    assert shown.endpoints is None
    assert shown.disco_key is None
    without = self_node(tailnet(settings=Settings(file_sharing=False)), NODE)
    assert CAP_FILE_SHARING not in (without.cap_map or {})


def test_tagged_nodes_belong_to_the_pseudo_user_with_a_profile() -> None:
    tagged = make_node(2, Random(2), tags=("tag:web",))
    view = netmap.view(tailnet(NODE, tagged), NODE.id)
    assert view.peers[NodeID(2)].user == TAGGED_USER_ID
    assert view.user_profiles[TAGGED_USER_ID].login_name == "tagged-devices"
    assert view.user_profiles[UserID(1)].login_name == "ada@example.org"
    assert view.user_profiles[UserID(1)].display_name == "ada"


def test_view_shows_what_the_sight_shows_and_no_profile_more() -> None:
    edit = Edit(tailnet(NODE, make_node(2, Random(2), user_id=UserID(2))), Sequences())
    edit.put(User(UserID(2), "bob", START))
    edit.set_compiled(Compiled(default_sight=Sight(frozenset({NODE.id}))))
    snapshot = edit.finish()[0]
    view = netmap.view(snapshot, NODE.id)
    assert not view.peers
    assert view.user_profiles.keys() == {1}
    assert netmap.full(snapshot, NODE.id, 148).peers is None
    assert netmap.view(snapshot, NodeID(2)).peers.keys() == {1}


def test_unknown_viewer_has_no_view() -> None:
    with pytest.raises(KeyError):
        netmap.view(tailnet(), NodeID(99))


# ── DNS and relays ───────────────────────────────────────────────────────────────────────────


def dns(**fields: object) -> tailcfg.DNSConfig:
    return dns_config(tailnet(settings=replace(Settings(), **fields)))  # type: ignore[arg-type]  # real names


def test_magic_dns_has_its_suffix_and_route() -> None:
    assert dns() == tailcfg.DNSConfig(
        proxied=True, domains=("example.net",), routes={"example.net": ()}
    )
    assert dns(search_domains=("example.org", "example.net")).domains == (
        "example.net",
        "example.org",
    )


def test_without_magic_dns_nothing_is_proxied() -> None:
    assert dns(magic_dns=False, search_domains=("example.org",)) == tailcfg.DNSConfig(
        domains=("example.org",)
    )


def test_nameservers_override_or_stand_by() -> None:
    quad9 = (tailcfg.Resolver(addr="9.9.9.9"),)
    over = dns(nameservers=("9.9.9.9",), override_local_dns=True)
    assert (over.resolvers, over.fallback_resolvers) == (quad9, ())
    standing_by = dns(nameservers=("9.9.9.9",))
    assert (standing_by.resolvers, standing_by.fallback_resolvers) == ((), quad9)


def test_split_dns_loses_its_dots() -> None:
    split = dns(split_dns=(("corp.example.", ("10.0.0.53",)),))
    assert split.routes == {
        "example.net": (),
        "corp.example": (tailcfg.Resolver(addr="10.0.0.53"),),
    }


def test_records_outside_the_suffix_get_a_route_for_older_clients() -> None:
    records = (
        tailcfg.DNSRecord(name="nas.example.net", value="10.0.0.9"),
        tailcfg.DNSRecord(name="Grafana.example.org.", value="10.0.0.9"),
    )
    config = dns(extra_records=records)
    assert config.extra_records == records
    assert config.routes == {"example.net": (), "grafana.example.org": ()}


def test_derp_map_always_replaces_all_that_a_client_has() -> None:
    empty = derp_map(tailnet())
    assert tailcfg.encode(empty) == b'{"HomeParams":{"RegionScore":{}},"Regions":{}}'
    scores = tailcfg.DERPHomeParams(region_score={900: 0.5})
    scored = Settings(derp_map=tailcfg.DERPMap(home_params=scores))
    assert derp_map(tailnet(settings=scored)).home_params == scores


# ── older clients ────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    ("capver", "wanted"),
    [
        (113, Band.OLDEST),
        (114, Band.OLDEST),
        (115, Band.NO_MEASURE_NO_HOME),
        (120, Band.PEER_RELAYS),
        (130, Band.PEER_RELAYS),
        (131, Band.AUTO_UPDATE_ATTRIBUTE),
        (10_000, Band.AUTO_UPDATE_ATTRIBUTE),
    ],
)
def test_band_of_a_version(capver: int, wanted: Band) -> None:
    assert band(capver) is wanted


def test_bands_are_in_order() -> None:
    """S1: 120 stood before 115, so 1.86 to 1.90 were not told of their rights on peer relays."""
    assert list(Band) == sorted(Band)
    for capver in range(113, 149):
        assert band(capver) == max(of for of in Band if of <= capver)


def test_before_115_a_region_that_is_no_home_is_avoided() -> None:
    relay = tailcfg.DERPRegion(region_id=1, no_measure_no_home=True)
    both = tailcfg.DERPMap(regions={1: relay, 2: tailcfg.DERPRegion(region_id=2)})
    old = fit_derp_map(both, band(113)).regions or {}
    assert (old[1].avoid, old[1].no_measure_no_home) == (True, False)
    assert not old[2].avoid
    assert fit_derp_map(both, band(115)) is both


def test_automatic_updates_are_a_field_before_131_and_an_attribute_after() -> None:
    told = {capver: netmap.full(tailnet(), NODE.id, capver) for capver in (113, 130, 131)}
    assert [full.default_auto_update for full in told.values()] == [False, False, None]


def test_full_map_can_tell_the_time() -> None:
    assert netmap.full(tailnet(), NODE.id, 148, START).control_time == START
    assert netmap.full(tailnet(), NODE.id, 148).control_time is None


def test_logs_are_off_when_the_settings_say_so() -> None:
    on, off = (
        netmap.full(tailnet(settings=Settings(disable_logs=disable)), NODE.id, 148).debug
        for disable in (False, True)
    )
    assert on is None
    assert off == tailcfg.Debug(disable_log_tail=True)
