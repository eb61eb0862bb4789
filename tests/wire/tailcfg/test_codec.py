"""Decoding as lenient as Go, encoding as strict as the strictest client."""

import ipaddress
from datetime import UTC, datetime

import pytest

from appliance.wire import tailcfg
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import DiscoKey, NodeKey

KEY = NodeKey(bytes(range(32)))


def test_register_response_always_has_what_strict_clients_need() -> None:
    assert tailcfg.encode(tailcfg.RegisterResponse()) == (
        b'{"User":{"ID":0,"DisplayName":""},'
        b'"Login":{"ID":0,"Provider":"","LoginName":"","DisplayName":""},'
        b'"NodeKeyExpired":false,"MachineAuthorized":false,"AuthURL":"","Error":""}'
    )


def test_keep_alive_is_exactly_the_text_that_clients_remember() -> None:
    assert tailcfg.encode(tailcfg.MapResponse(keep_alive=True)) == b'{"KeepAlive":true}'


def test_absent_and_empty_are_told_apart_on_output() -> None:
    assert tailcfg.encode(tailcfg.MapResponse()) == b"{}"
    response = tailcfg.MapResponse(
        health=(), dns_config=tailcfg.DNSConfig(), packet_filters={"a": (), "*": None}
    )
    assert tailcfg.encode(response) == (
        b'{"DNSConfig":{},"PacketFilters":{"a":[],"*":null},"Health":[]}'
    )


def test_node_without_authorisation_says_so() -> None:
    assert b'"MachineAuthorized":false' in tailcfg.encode(tailcfg.Node())


def test_field_names_match_in_any_case() -> None:
    request = tailcfg.decode_map_request(
        b'{"version":142,"HostInfo":{"hostname":"pi","netinfo":{"preferredderp":3}},"Later":[{}]}'
    )
    assert request.version == 142
    assert request.hostinfo is not None
    assert request.hostinfo.hostname == "pi"
    assert request.hostinfo.net_info == tailcfg.NetInfo(preferred_derp=3)


def test_escaped_field_name_is_understood() -> None:
    assert tailcfg.decode_map_request(b'{"\\u0056ersion":9,"\\u0073tream":true}').stream


def test_null_is_the_zero_value_everywhere() -> None:
    request = tailcfg.decode_map_request(
        b'{"Version":null,"NodeKey":null,"Stream":null,"Hostinfo":{"OS":null,"Services":null,'
        b'"RequestTags":["tag:a",null],"NetInfo":{"DERPLatency":{"1-v4":null}}},'
        b'"Endpoints":["1.2.3.4:5",null,""]}'
    )
    assert request == tailcfg.MapRequest(
        hostinfo=tailcfg.Hostinfo(
            request_tags=("tag:a", ""), net_info=tailcfg.NetInfo(derp_latency={"1-v4": 0})
        ),
        endpoints=(tailcfg.AddrPort.parse("1.2.3.4:5"),),
    )


def test_null_keeps_its_meaning_where_it_deletes() -> None:
    text = b'{"PacketFilters":{"*":null,"a":[]},"DisplayMessages":{"x":null},"Health":null}'
    response = tailcfg.decode_map_response(text)
    assert response.packet_filters == {"*": None, "a": ()}
    assert response.display_messages == {"x": None}
    assert response.health is None


def test_year_one_is_no_time_but_never_in_a_patch() -> None:
    request = tailcfg.decode_register_request(b'{"Expiry":"0001-01-01T00:00:00Z"}')
    assert request.expiry is None
    response = tailcfg.decode_map_response(
        b'{"Node":{"ID":1,"KeyExpiry":"0001-01-01T00:00:00Z"},'
        b'"PeersChangedPatch":[{"NodeID":1,"KeyExpiry":"0001-01-01T00:00:00Z"}]}'
    )
    assert response.node is not None
    assert response.node.key_expiry is None
    assert response.peers_changed_patch is not None
    assert response.peers_changed_patch[0].key_expiry == tailcfg.NEVER


def test_times_are_aware() -> None:
    request = tailcfg.decode_register_request(b'{"Expiry":"1970-01-01T01:02:03.000000001+01:00"}')
    assert request.expiry == datetime(1970, 1, 1, 0, 2, 3, tzinfo=UTC)


@pytest.mark.parametrize(
    "garbage",
    [
        b"",
        b"null",
        b"[]",
        b"{",
        b"\xff\xfe",
        b'{"Version":"1"}',
        b'{"Version":1e999}',
        b'{"Version":99999999999999999999999}',
        b'{"NodeKey":"mkey:00"}',
        b'{"NodeKey":7}',
        b'{"Hostinfo":{"OS":"\xff"}}',
        b'{"Hostinfo":{"OS":"\\ud800"}}',
        b'{"Endpoints":["1.2.3.4:65536"]}',
        b'{"Hostinfo":{"TPM":{"FirmwareVersion":18446744073709551616}}}',
        b'{"Hostinfo":{"TPM":{"FirmwareVersion":-1}}}',
        b'{"Endpoints":["::1:5"]}',
        b'{"Hostinfo":{"RoutableIPs":["10.0.0.0"]}}',
        b"[" * 100_000,
        b'{"x":' * 100_000,
        b'{"Hostinfo":' * 100_000,
        b'{"a":"' + b"a" * tailcfg.MAX_REQUEST_BYTES + b'"}',
    ],
    ids=lambda text: repr(text[:30]),
)
def test_garbage_is_a_protocol_error(garbage: bytes) -> None:
    with pytest.raises(ProtocolError):
        tailcfg.decode_map_request(garbage)


def test_whole_node_comes_back_as_it_was() -> None:
    node = tailcfg.Node(
        id=7,
        stable_id="n7",
        name="pi.example.ts.net.",
        key=KEY,
        disco_key=DiscoKey(KEY.raw),
        addresses=(
            ipaddress.ip_network("100.64.0.7/32"),
            ipaddress.ip_network("fd7a:115c:a1e0::7/128"),
        ),
        allowed_ips=(),
        endpoints=(tailcfg.AddrPort.parse("[2001:db8::1]:41641"),),
        created=datetime(2026, 1, 2, 3, 4, 5, 678, tzinfo=UTC),
        cap_map={"https://tailscale.com/cap/ssh": (), "x": (tailcfg.raw({"a": [1, None]}),)},
        hostinfo=tailcfg.Hostinfo(os="linux", userspace=False),
        online=False,
    )
    assert tailcfg.decode_node(tailcfg.encode(node)) == node


@pytest.mark.parametrize(
    ("name", "go"),
    [
        ("auth_url", "AuthURL"),
        ("allowed_ips", "AllowedIPs"),
        ("is_wireguard_only", "IsWireGuardOnly"),
        ("os_has_ipv6", "OSHasIPv6"),
        ("tka_head", "TKAHead"),
        ("wol_macs", "WoLMACs"),
        ("working_icmpv4", "WorkingICMPv4"),
    ],
)
def test_acronyms(name: str, go: str) -> None:
    assert tailcfg.message.go_name(name) == go


def test_capability_versions_name_their_releases() -> None:
    capver = tailcfg.capver
    assert capver.first_release(capver.OLDEST_SUPPORTED) == "1.80"
    assert capver.first_release(capver.NEWEST_KNOWN) == "1.104"
    assert capver.first_release(10_000) is None
    versions = [version for _, version in capver.RELEASES]
    assert versions == sorted(versions)
    assert (versions[0], versions[-1]) == (capver.OLDEST_SUPPORTED, capver.NEWEST_KNOWN)


def test_history_has_one_line_for_each_capability_version() -> None:
    capver = tailcfg.capver
    numbers = [version.number for version in capver.HISTORY]
    assert numbers == list(range(capver.OLDEST_SUPPORTED, capver.NEWEST_KNOWN + 1))
    gates = {value for name, value in vars(capver).items() if name.startswith("CAPVER_")}
    assert gates <= set(numbers)
