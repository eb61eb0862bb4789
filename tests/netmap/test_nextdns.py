"""NextDNS: what it is told of a node, which profile a node uses, when a session hears of it."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import replace
from random import Random
from urllib.parse import parse_qsl, urlsplit

import msgspec
import pytest

from appliance import netmap
from appliance.netmap.dns import dns_config
from appliance.netmap.encoded import Encoder
from appliance.netmap.nextdns import Asker, address_for, is_nextdns
from appliance.policy.answers.admission import admit
from appliance.policy.engine import nodeattrs
from appliance.records import Node, NodeID, Settings, User, UserID
from appliance.tailnet import policies
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from tests.netmap.messages import read_messages, unpack
from tests.netmap.tailnets import START, empty_tailnet, make_node
from tests.netmap.test_encoded import check_delta, check_full

CAPVER = 148
URL = "https://dns.nextdns.io/abc"
GLOBAL = Settings(nameservers=(URL,))
ONE, TWO = NodeID(1), NodeID(2)
ASKER = Asker(query="device_name=box")
Attrs = Sequence[tuple[str, ...]]


def node(number: int, **fields: object) -> Node:
    """Make a node that calls itself ``box<number>`` and runs Linux."""
    made = make_node(number, Random(number), user_id=UserID(1), hostname=f"box{number}")
    hostinfo = tailcfg.Hostinfo(os="linux", hostname=made.hostname)
    return replace(made, **{"hostinfo": hostinfo, **fields})  # type: ignore[arg-type]  # real fields


def tailnet(*nodes: Node, settings: Settings = GLOBAL, attrs: Attrs = ()) -> Snapshot:
    """Make a tailnet of Ada's nodes, under a policy if there are attributes."""
    edit = Edit(empty_tailnet(), Sequences())
    edit.put(User(UserID(1), "ada", START, email="ada@example.org"))
    for each in nodes or tuple(node(number) for number in range(1, 13)):
        edit.put(each)
    edit.set_settings(settings)
    snapshot = edit.finish()[0]
    return under(snapshot, attrs) if attrs else snapshot


def under(old: Snapshot, attrs: Attrs) -> Snapshot:
    """Set a policy of node attributes in which everybody sees everybody."""
    document = {
        "grants": [{"src": ["*"], "dst": ["*"], "ip": ["*"]}],
        "nodeAttrs": [{"target": [who], "attr": names} for who, *names in attrs],
    }
    background = policies.background(old)
    admitted = admit(json.dumps(document), old.users, old.nodes, background, with_tests=False)
    edit = Edit(old, Sequences())
    policies.replace_policy(edit, admitted, START, source="database", by="a test")
    return policies.settle(old, edit.finish()[0])


def changed(old: Snapshot, node_id: NodeID, **fields: object) -> Snapshot:
    """Change a node's record."""
    edit = Edit(old, Sequences())
    edit.put(replace(old.nodes[node_id], **fields))  # type: ignore[arg-type]  # real fields
    return policies.settle(old, edit.finish()[0])


def with_settings(old: Snapshot, **fields: object) -> Snapshot:
    """Take other settings."""
    edit = Edit(old, Sequences())
    edit.set_settings(replace(old.settings, **fields))  # type: ignore[arg-type]  # real fields
    return policies.settle(old, edit.finish()[0])


def resolver(snapshot: Snapshot, viewer: NodeID = ONE) -> str:
    """Give the address of the first resolver that a node is told."""
    return netmap.view(snapshot, viewer).dns_config.fallback_resolvers[0].addr


def device(address: str) -> dict[str, str]:
    """Read what an address says of the device, as NextDNS does."""
    return dict(parse_qsl(urlsplit(address).query, keep_blank_values=True, strict_parsing=True))


# ── addresses ────────────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "address",
    [
        "https://dns.nextdns.io",
        "https://dns.nextdns.io/",
        URL,
        "https://dns.nextdns.io?x=1",
        "HTTPS://DNS.NextDNS.io/abc",
        "https://dns.nextdns.io:443/abc",
    ],
)
def test_nextdns_is_known_by_its_host(address: str) -> None:
    assert is_nextdns(address)
    assert address_for(address, ASKER).startswith("https://dns.nextdns.io/")


@pytest.mark.parametrize(
    "address",
    [
        "http://dns.nextdns.io/abc",
        "https://dns.nextdns.io.evil.example/abc",
        "https://evil.example/dns.nextdns.io/abc",
        "https://dns.nextdns.io@evil.example/abc",
        "https://ada@dns.nextdns.io/abc",
        "https://dns.nextdns.io:8443/abc",
        "https://evil-dns.nextdns.io/abc",
        "https://x.dns.nextdns.io/abc",
        "https://dns.nextdns.io\\@evil.example/abc",
        "https://[dns.nextdns.io/abc",
        "//dns.nextdns.io/abc",
        "dns.nextdns.io",
        "45.90.28.0",
        "2a07:a8c0::ab:cdef",
        "",
    ],
)
def test_look_alikes_stay_as_they_are(address: str) -> None:
    assert not is_nextdns(address)
    assert address_for(address, Asker("other", "device_name=box")) == address


@pytest.mark.parametrize(
    ("address", "told", "wanted"),
    [
        (URL, Asker(), URL),
        (URL, Asker("other"), "https://dns.nextdns.io/other"),
        (URL + "/name/model", Asker("other"), "https://dns.nextdns.io/other"),
        (URL + "/name/model", ASKER, URL + "/name/model?device_name=box"),
        ("https://dns.nextdns.io", ASKER, "https://dns.nextdns.io/?device_name=box"),
        (URL + "?a=%20b&c", ASKER, URL + "?a=%20b&c&device_name=box"),
        (URL + "?device_name=all&a=1", ASKER, URL + "?a=1&device_name=box"),
        (URL + "?device_name=all", Asker("other"), "https://dns.nextdns.io/other?device_name=all"),
    ],
)
def test_profile_and_query_are_put_in(address: str, told: Asker, wanted: str) -> None:
    assert address_for(address, told) == wanted


# ── what a node is told ──────────────────────────────────────────────────────────────────────


def test_each_node_tells_its_name_system_and_address() -> None:
    snapshot = tailnet()
    assert resolver(snapshot) == (f"{URL}?device_name=box1&device_model=linux&device_ip=100.64.0.1")
    assert device(resolver(snapshot, TWO))["device_name"] == "box2"


def test_resolvers_fallback_and_split_routes_all_count() -> None:
    split = (("corp.example.", (URL, "10.0.0.53")), ("lab.example", ("10.0.0.54",)))
    for override in (False, True):
        settings = Settings(nameservers=("9.9.9.9", URL), split_dns=split)
        snapshot = tailnet(settings=replace(settings, override_local_dns=override))
        told = netmap.view(snapshot, ONE).dns_config
        mine = resolver(tailnet())
        both = tuple(tailcfg.Resolver(addr=address) for address in ("9.9.9.9", mine))
        assert (told.resolvers, told.fallback_resolvers) == ((both, ()) if override else ((), both))
        assert [each.addr for each in told.routes["corp.example"]] == [mine, "10.0.0.53"]
        assert [each.addr for each in told.routes["lab.example"]] == ["10.0.0.54"]
        assert told.routes["example.net"] == ()


@pytest.mark.parametrize("hostname", ["bÖx <&>#?/=+%", "Ada's phone", "x" * 300, "\ud800"])
def test_odd_host_names_are_encoded(hostname: str) -> None:
    address = resolver(tailnet(node(1, hostname=hostname)))
    address.encode("ascii")
    assert " " not in address
    assert "+" not in address
    read = device(address)
    assert read["device_name"] == hostname.encode(errors="replace").decode()
    assert read["device_ip"] == "100.64.0.1"


def test_what_is_not_known_is_left_out() -> None:
    bare = node(1, hostname="", hostinfo=tailcfg.Hostinfo(), ipv4=None, ipv6=None)
    assert resolver(tailnet(bare)) == URL


def test_node_without_ipv4_tells_its_ipv6_address() -> None:
    address = resolver(tailnet(node(1, ipv4=None)))
    assert "device_ip=fd7a%3A115c%3Aa1e0%3A%3A1" in address
    hidden = tailnet(attrs=[("100.64.0.1", "disable-ipv4")])
    assert device(resolver(hidden))["device_ip"] == "fd7a:115c:a1e0::1"
    assert device(resolver(hidden, TWO))["device_ip"] == "100.64.0.2"


def test_policy_gives_another_profile_and_says_nothing_of_the_device() -> None:
    snapshot = tailnet(
        attrs=[
            ("100.64.0.1", "nextdns:kids"),
            ("100.64.0.2", "nextdns:no-device-info", "nextdns:lab"),
            ("100.64.0.3", "nextdns:no-device-info"),
        ]
    )
    assert resolver(snapshot) == (
        "https://dns.nextdns.io/kids?device_name=box1&device_model=linux&device_ip=100.64.0.1"
    )
    assert resolver(snapshot, TWO) == "https://dns.nextdns.io/lab"
    assert resolver(snapshot, NodeID(3)) == URL
    assert urlsplit(resolver(snapshot, NodeID(4))).path == "/abc"


def test_first_profile_in_the_policys_order_counts() -> None:
    attrs = [("*", "nextdns:zebra", "nextdns:ape"), ("100.64.0.1", "nextdns:bee")]
    assert urlsplit(resolver(tailnet(attrs=attrs))).path == "/zebra"
    assert urlsplit(resolver(tailnet(attrs=attrs[::-1]))).path == "/bee"
    assert urlsplit(resolver(tailnet(attrs=attrs[::-1]), TWO)).path == "/zebra"


def test_nodes_are_still_shown_these_attributes() -> None:
    own = netmap.view(tailnet(attrs=[("*", "nextdns:kids")]), ONE).node
    assert "nextdns:kids" in (own.cap_map or {})


@pytest.mark.parametrize(
    ("attribute", "profile"),
    [
        ("nextdns:a.B_c-9", "a.B_c-9"),
        ("nextdns:" + "x" * 64, "x" * 64),
        ("nextdns:" + "x" * 65, ""),
        ("nextdns:a/b", ""),
        ("nextdns:a?b", ""),
        ("nextdns:a\n", ""),
        ("nextdns:é", ""),
        ("nextdns:", ""),
        ("nextdns", ""),
        ("NextDNS:abc", ""),
        ("nextdns:no-device-info", ""),
        ("funnel", ""),
    ],
)
def test_profile_that_an_attribute_names(attribute: str, profile: str) -> None:
    assert nodeattrs.nextdns_profile(attribute) == profile


# ── when a session hears of it ───────────────────────────────────────────────────────────────


def heard(old: Snapshot, new: Snapshot, viewer: NodeID) -> str | None:
    """Give the resolver that a delta tells, in both forms of it; None if it is not about DNS."""
    encoder = Encoder(chunk_peers=3)
    for each in sorted(old.nodes):
        check_full(encoder, new, each, CAPVER, zstd=True)
        check_delta(encoder, old, new, each, CAPVER, zstd=True)
    parts = encoder.delta(old, new, viewer, CAPVER, zstd=False) or []
    assert b"".join(parts).count(b'"DNSConfig"') <= 1
    for message in netmap.delta(old, new, viewer, CAPVER):
        if message.dns_config is not None:
            assert message.dns_config == netmap.view(new, viewer).dns_config
            return message.dns_config.fallback_resolvers[0].addr
    return None


def test_host_name_that_nobody_else_is_told_reaches_the_node_itself() -> None:
    old = tailnet()
    new = changed(old, ONE, hostname="other")
    assert device(heard(old, new, ONE) or "")["device_name"] == "other"
    assert netmap.delta(old, new, TWO, CAPVER) == ()
    assert Encoder().delta(old, new, TWO, CAPVER, zstd=True) is None


def test_system_and_address_reach_the_node_itself_alone() -> None:
    old = tailnet()
    hostinfo = msgspec.structs.replace(old.nodes[ONE].hostinfo, os="macOS")
    for fields in ({"hostinfo": hostinfo}, {"ipv4": None}):
        new = changed(old, ONE, **fields)
        assert heard(old, new, ONE) == resolver(new) != resolver(old)
        assert heard(old, new, TWO) is None


def test_other_changes_of_a_node_say_nothing_of_dns() -> None:
    old = tailnet(attrs=[("*", "nextdns:kids")])
    assert heard(old, changed(old, ONE, name="given", home_derp=7), ONE) is None
    assert heard(old, with_settings(old, file_sharing=False), ONE) is None


def test_policy_reaches_those_whom_it_concerns() -> None:
    old = tailnet(attrs=[("100.64.0.1", "nextdns:kids")])
    new = under(old, [("100.64.0.1", "nextdns:lab"), ("100.64.0.2", "nextdns:abc")])
    assert heard(old, new, ONE) == resolver(new)
    assert heard(old, new, TWO) is None, "the profile that it had"
    silent = under(new, [("100.64.0.2", "nextdns:no-device-info")])
    assert heard(new, silent, TWO) == URL
    assert heard(silent, new, TWO) == resolver(new, TWO)


def test_settings_reach_everybody_when_nextdns_comes_and_goes() -> None:
    plain = tailnet(settings=Settings(nameservers=("9.9.9.9",)))
    with_it = with_settings(plain, nameservers=(URL,))
    assert heard(plain, with_it, ONE) == resolver(with_it)
    assert heard(plain, with_it, TWO) == resolver(with_it, TWO)
    assert heard(with_it, plain, TWO) == "9.9.9.9"
    assert heard(with_it, with_settings(with_it, disable_logs=False), ONE) is None


# ── what is shared ───────────────────────────────────────────────────────────────────────────


def test_peers_are_shared_and_dns_rides_in_the_own_part() -> None:
    encoder, snapshot = Encoder(chunk_peers=3), tailnet()
    one, other = (encoder.full(snapshot, NodeID(i), CAPVER, zstd=True) for i in (1, 12))
    assert [a is b for a, b in zip(one, other, strict=True)] == [
        *(False, True, True, True, True),
        *(False, True, True, False),
        True,
    ]
    own, *shared = (unpack(part) for part in (one[0][4:], *one[1:]))
    assert b"device_name=box1&" in own
    assert not any(b"nextdns" in part for part in shared)


def test_delta_of_others_is_the_same_object_for_all() -> None:
    encoder, old = Encoder(), tailnet()
    new = changed(old, ONE, name="given", hostname="other")
    told = [encoder.delta(old, new, NodeID(i), CAPVER, zstd=True) for i in range(2, 13)]
    assert told[0] is not None
    assert all(parts is told[0] for parts in told)
    (mine,) = read_messages(encoder.delta(old, new, ONE, CAPVER, zstd=True) or (), zstd=True)
    assert mine.dns_config == netmap.view(new, ONE).dns_config


def test_without_nextdns_nothing_is_made_for_a_node(monkeypatch: pytest.MonkeyPatch) -> None:
    """The policy's attributes alone cost nothing either."""
    settings = Settings(nameservers=("9.9.9.9", "https://dns.nextdns.io.evil.example/abc"))
    old = tailnet(settings=settings, attrs=[("*", "nextdns:kids")])
    new = changed(old, ONE, hostname="other")

    def never(*_: object) -> Asker:
        raise AssertionError

    monkeypatch.setattr("appliance.netmap.nextdns.asker", never)
    encoder = Encoder(chunk_peers=3)
    assert encoder.delta(old, new, ONE, CAPVER, zstd=True) is None
    (full,) = read_messages(encoder.full(new, ONE, CAPVER, zstd=True), zstd=True)
    assert full.dns_config == dns_config(new)
