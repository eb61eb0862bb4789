"""What no recording shows: ipsets, postures, recorders, services, guests, approvers, failover."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta
from ipaddress import IPv4Network, ip_address, ip_network
from typing import Any

import msgspec
import pytest

from appliance.policy.engine import approvers, nodeattrs
from appliance.policy.engine.compile import Compiled, compile, recompile  # noqa: A004 - its name
from appliance.policy.engine.routes import Elections, RouteTable, elect
from appliance.policy.engine.ssh import check_period, ssh_policy
from appliance.policy.text import postures
from appliance.policy.text.language import Background
from appliance.records import Attribute, AttributeValue, Node, NodeID, Role, UserID
from tests.policy.worlds import node, read, user

USERS = {UserID(1): user(1, "ann@example.com"), UserID(2): user(2, "bob@example.com")}
TAGS: dict[str, Any] = {"tagOwners": {"tag:a": [], "tag:b": [], "tag:rec": []}}
DOMAINS = frozenset({"example.com"})


def made(document: dict[str, Any], *nodes: Node, background: Background | None = None) -> Compiled:
    known = {each.id: each for each in nodes}
    return compile(read({**TAGS, **document}), USERS, known, background or Background(DOMAINS))


def sources(compiled: Compiled, number: int) -> list[tuple[str, ...]]:
    return [rule.src_ips for rule in compiled.packet_filter(NodeID(number))]


def accept(src: str, dst: str, **more: object) -> dict[str, object]:
    return {"action": "accept", "src": [src], "dst": [dst], **more}


def test_ipset_names_addresses_at_both_ends() -> None:
    document = {
        "hosts": {"lan": "10.0.0.0/8"},
        "ipsets": {"ipset:x": ["add lan", "remove 10.0.0.0/9", "add 10.0.0.1"]},
        "acls": [accept("ipset:x", "tag:a:22"), accept("tag:a", "ipset:x:443")],
    }
    compiled = made(
        document, node(1, tags=("tag:a",)), node(2, tags=("tag:b",), routes=("10.200.0.0/16",))
    )
    assert sources(compiled, 1) == [("10.0.0.1", "10.128.0.0/9")]
    (rule,) = compiled.packet_filter(NodeID(2))
    assert [each.ip for each in rule.dst_ports] == ["10.128.0.0/9"]
    assert compiled.sight(NodeID(1)).shows(NodeID(2))


def test_posture_lets_only_devices_in_it() -> None:
    document = {
        "postures": {"posture:mac": ["node:os == 'macos'"], "posture:high": ["custom:level > 2"]},
        "acls": [accept("ann@example.com", "tag:a:22", srcPosture=["posture:mac", "posture:high"])],
    }
    mac, linux, web = (
        node(1, user=UserID(1), os="macOS"),
        node(2, user=UserID(1), os="linux"),
        node(3, tags=("tag:a",)),
    )
    compiled = made(document, mac, linux, web)
    assert sources(compiled, 3) == [("100.64.0.1", "fd7a:115c:a1e0::1")]
    assert not compiled.sight(NodeID(2)).shows(NodeID(3))
    raised = replace(linux, attributes=(Attribute("custom:level", 3),))
    assert "100.64.0.2" in sources(made(document, mac, raised, web), 3)[0]


@pytest.mark.parametrize(
    ("condition", "value", "holds"),
    [
        ("custom:x == 1", 1, True),
        ("custom:x == 1", 1.0, True),
        ("custom:x == 1", True, False),
        ("custom:x == true", True, True),
        ("custom:x == true", 1, False),
        ("custom:x IN [1, 'a']", "a", True),
        ("custom:x IN [0, 2]", False, False),
        ("custom:x != 1", True, True),
        ("custom:x NOT IN [1, 2]", True, True),
        ("custom:x NOT IN [1, 2]", 2, False),
        ("custom:x >= 1", True, False),
        ("custom:x >= 1", "1", False),
        ("custom:x >= '1.9'", "1.10", True),
        ("custom:x >= '1.9.0'", "1.9", True),
        ("custom:x > '1.9'", "1.9.0", False),
        ("custom:x <= '3'", "gold", False),
        ("custom:x IS SET", False, True),
        ("custom:x NOT SET", False, False),
        ("custom:X == 1", 1, False),
    ],
)
def test_given_attribute_meets_a_condition_of_its_own_type(
    condition: str, value: AttributeValue, holds: bool
) -> None:
    given = replace(node(1), attributes=(Attribute("custom:x", value),))
    assert postures.parse(condition).holds(postures.attributes_of(given)) is holds


def test_nobody_overrides_what_a_node_reports() -> None:
    lying = replace(node(1, os="linux"), attributes=(Attribute("node:os", "macos"),))
    assert postures.attributes_of(lying)["node:os"] == "linux"


def test_posture_follows_the_version_that_a_node_reports() -> None:
    document = {
        "postures": {
            "posture:new": ["node:tsVersion >= '1.60'", "node:tsReleaseTrack == 'stable'"]
        },
        "defaultSrcPosture": ["posture:new"],
        "acls": [accept("ann@example.com", "tag:a:22")],
    }
    old = node(1, user=UserID(1))
    old = replace(old, hostinfo=replace_version(old, "1.9.0"))
    new = replace(old, hostinfo=replace_version(old, "1.80.2-t123"))
    web = node(3, tags=("tag:a",))
    compiled = made(document, old, web)
    assert not sources(compiled, 3)
    assert compiled.state is not None
    nodes = {new.id: new, web.id: web}
    policy = compiled.state.rule_index.policy
    after = recompile(compiled, policy, USERS, nodes, [new.id], background=Background(DOMAINS))
    assert sources(after, 3) == [("100.64.0.1", "fd7a:115c:a1e0::1")]


def replace_version(old: Node, version: str) -> Any:
    return msgspec.structs.replace(old.hostinfo, ipn_version=version)


def test_service_is_a_destination_where_its_address_is_routed() -> None:
    known = Background(DOMAINS, services={"svc:web": (ip_address("100.100.50.1"),)})
    document = {"acls": [accept("ann@example.com", "svc:web:443")]}
    host = node(2, tags=("tag:a",), routes=("100.100.50.1/32",))
    compiled = made(document, node(1, user=UserID(1)), host, background=known)
    (rule,) = compiled.packet_filter(NodeID(2))
    assert rule.dst_ports[0].ip == "100.100.50.1"


def test_guest_is_shared_and_no_member() -> None:
    known = Background(DOMAINS, guests=frozenset({UserID(2)}))
    document = {
        "acls": [accept("autogroup:shared", "tag:a:80"), accept("autogroup:member", "tag:b:80")]
    }
    nodes = (
        node(1, user=UserID(1)),
        node(2, user=UserID(2)),
        node(3, tags=("tag:a",)),
        node(4, tags=("tag:b",)),
    )
    compiled = made(document, *nodes, background=known)
    assert sources(compiled, 3) == [("100.64.0.2", "fd7a:115c:a1e0::2")]
    assert sources(compiled, 4) == [("100.64.0.1", "fd7a:115c:a1e0::1")]


def test_users_groups_and_roles_approve_their_own_routes() -> None:
    document = {
        "groups": {"group:ops": ["bob@example.com"]},
        "autoApprovers": {
            "routes": {"10.0.0.0/8": ["ann@example.com"], "0.0.0.0/0": ["group:ops"]},
            "exitNode": ["autogroup:admin", "tag:a"],
        },
    }
    policy = read({**TAGS, **document})
    roles = Background(DOMAINS, roles={UserID(2): Role.ADMIN})
    offer = ("10.1.0.0/16", "192.168.0.0/24", "0.0.0.0/0", "::/0")

    def approved(each: Node) -> list[str]:
        return [str(route) for route in approvers.approved(policy, roles, each, USERS)]

    assert approved(node(1, user=UserID(1), routes=offer)) == ["10.1.0.0/16"]
    assert approved(node(1, user=UserID(2), routes=offer)) == list(offer)
    assert approved(node(1, tags=("tag:a",), routes=offer)) == ["0.0.0.0/0", "::/0"]


def test_recorders_and_what_happens_without_them() -> None:
    rule = {"action": "accept", "src": ["autogroup:member"], "dst": ["tag:a"], "users": ["root"]}
    document = {"ssh": [{**rule, "recorder": ["tag:rec"], "enforceRecorder": True}]}
    nodes = node(1, user=UserID(1)), node(2, tags=("tag:a",)), node(3, tags=("tag:rec",))
    compiled = made(document, *nodes)
    assert compiled.state is not None
    action = ssh_policy(compiled.state, NodeID(2)).rules[0].action
    assert action is not None
    assert [str(each) for each in action.recorders] == ["100.64.0.3:80", "[fd7a:115c:a1e0::3]:80"]
    assert action.on_recording_failure is not None
    assert action.on_recording_failure.reject_session_with_message


@pytest.mark.parametrize("kind", ["accept", "check"])
def test_no_session_without_a_recorder_that_is_not_there(kind: str) -> None:
    """A client that is told of no recorder records nothing, and asks nobody what to do then."""
    rule = {"action": kind, "src": ["autogroup:member"], "dst": ["tag:a"], "users": ["root"]}
    document = {"ssh": [{**rule, "recorder": ["tag:rec"], "enforceRecorder": True}]}
    nodes = node(1, user=UserID(1)), node(2, tags=("tag:a",))
    compiled = made(document, *nodes)
    assert compiled.state is not None
    action = ssh_policy(compiled.state, NodeID(2)).rules[0].action
    assert action is not None
    assert [str(each) for each in action.recorders] == ["127.0.0.1:0"]
    assert action.on_recording_failure is not None
    assert action.on_recording_failure.reject_session_with_message
    recorder = node(3, tags=("tag:rec",))
    more = {each.id: each for each in (*nodes, recorder)}
    policy = compiled.state.rule_index.policy
    compiled = recompile(compiled, policy, USERS, more, {recorder.id}, (), Background(DOMAINS))
    assert compiled.state is not None
    action = ssh_policy(compiled.state, NodeID(2)).rules[0].action
    assert action is not None
    assert str(action.recorders[0]) == "100.64.0.3:80"


def test_check_period_of_the_rule_that_matches() -> None:
    rule = {"action": "check", "src": ["autogroup:member"], "dst": ["tag:a"], "users": ["root"]}
    document = {"ssh": [{**rule, "checkPeriod": "1h"}, {**rule, "users": ["web"]}]}
    compiled = made(document, node(1, user=UserID(1)), node(2, tags=("tag:a",)))
    state = compiled.state
    assert state is not None
    assert check_period(state, NodeID(1), NodeID(2), "root") == timedelta(hours=1)
    assert check_period(state, NodeID(1), NodeID(2), "web") == timedelta(hours=12)
    assert check_period(state, NodeID(1), NodeID(2), "other") is None


VIA = {
    "grants": [
        {"src": ["ann@example.com"], "dst": ["10.0.0.0/16"], "ip": ["*"], "via": ["tag:a"]},
        {"src": ["bob@example.com"], "dst": ["10.0.0.0/16"], "ip": ["*"]},
    ]
}
ROUTE = IPv4Network("10.0.0.0/16")


def test_via_fails_over_inside_its_tag_and_does_not_fail_back() -> None:
    routers = [
        node(3, tags=("tag:b",), routes=("10.0.0.0/16",)),
        node(4, tags=("tag:a",), routes=("10.0.0.0/16",)),
        node(5, tags=("tag:a",), routes=("10.0.0.0/16",)),
    ]
    compiled = made(VIA, node(1, user=UserID(1)), node(2, user=UserID(2)), *routers)
    state = compiled.state
    assert state is not None

    elections: Elections | None = None

    def carriers(down: set[int]) -> tuple[list[int], list[int]]:
        nonlocal elections
        elections = elect(state, lambda each: each not in down, elections)
        table = RouteTable(state, elections)
        return sorted(table.seen(NodeID(1))), sorted(table.seen(NodeID(2)))

    assert carriers(set()) == ([4], [3])
    assert carriers({4}) == ([5], [3])
    assert carriers(set()) == ([5], [3])
    assert carriers({3, 5}) == ([4], [4])
    assert carriers({3, 4, 5}) == ([4], [4])


def test_viewers_with_the_same_routes_share_one_object() -> None:
    nodes = [node(n, user=UserID(2)) for n in (1, 2)]
    compiled = made(VIA, *nodes, node(4, tags=("tag:b",), routes=("10.0.0.0/16",)))
    assert compiled.state is not None
    table = RouteTable(compiled.state, elect(compiled.state, lambda _: True))
    assert table.seen(NodeID(1)) is table.seen(NodeID(2))
    assert table.seen(NodeID(1))[NodeID(4)].primary == (ROUTE,)


def test_attributes_merge_and_ipv4_is_hidden() -> None:
    document = {
        "nodeAttrs": [
            {"target": ["tag:a"], "attr": ["disable-ipv4"], "app": {"x.com/y": [{"n": 1}]}},
            {"target": ["*"], "attr": ["funnel"], "app": {"x.com/y": [{"n": 1}, {"n": 2}]}},
            {"target": ["100.64.0.2"], "ipPool": ["100.81.0.0/16"]},
        ],
    }
    compiled = made(document, node(1, tags=("tag:a",)), node(2, user=UserID(1)))
    state = compiled.state
    assert state is not None
    found = nodeattrs.attributes(state, NodeID(1))
    assert [bytes(value) for value in found["x.com/y"]] == [b'{"n":1}', b'{"n":2}']
    assert nodeattrs.FUNNEL_PORTS in found
    assert nodeattrs.hides_ipv4(state, NodeID(2), NodeID(1))
    assert nodeattrs.hides_ipv4(state, NodeID(1), NodeID(2))
    assert not nodeattrs.hides_ipv4(state, NodeID(2), NodeID(2))
    known = state.rule_index.policy, state.rule_index.background, state.users
    pool = ip_network("100.81.0.0/16")
    assert nodeattrs.address_pools(*known, state.nodes[NodeID(2)]) == ((pool,), ())
    assert nodeattrs.address_pools(*known, state.nodes[NodeID(1)]) == ((), (pool,))


def test_a_user_is_called_by_name_where_there_is_no_mail() -> None:
    users = {UserID(1): replace(USERS[UserID(1)], email="", name="ann")}
    policy = read({**TAGS, "acls": [accept("ann@", "tag:a:22")]})
    nodes = {each.id: each for each in (node(1, user=UserID(1)), node(2, tags=("tag:a",)))}
    compiled = compile(policy, users, nodes)
    assert sources(compiled, 2) == [("100.64.0.1", "fd7a:115c:a1e0::1")]


def test_unknown_users_in_groups_do_not_disturb_the_known() -> None:
    document = {
        "groups": {"group:g": ["nobody@example.com", "ann@example.com"]},
        "acls": [accept("group:g", "tag:a:22")],
    }
    compiled = made(document, node(1, user=UserID(1)), node(2, tags=("tag:a",)))
    assert sources(compiled, 2) == [("100.64.0.1", "fd7a:115c:a1e0::1")]


def test_via_steers_beside_a_rule_that_allows_all() -> None:
    everything = {"src": ["*"], "dst": ["*"], "ip": ["*"]}
    document = {"grants": [VIA["grants"][0], everything]}
    routers = [
        node(3, tags=("tag:b",), routes=("10.0.0.0/16", "10.9.0.0/16")),
        node(4, tags=("tag:a",), routes=("10.0.0.0/16",)),
    ]
    compiled = made(document, node(1, user=UserID(1)), node(2, user=UserID(2)), *routers)
    assert compiled.state is not None
    table = RouteTable(compiled.state, elect(compiled.state, lambda _: True))
    other = IPv4Network("10.9.0.0/16")
    assert {n: r.allowed for n, r in table.seen(NodeID(1)).items()} == {4: (ROUTE,), 3: (other,)}
    assert {n: r.allowed for n, r in table.seen(NodeID(2)).items()} == {3: (ROUTE, other)}


def test_capabilities_of_a_subnet_are_granted_at_its_router() -> None:
    document = {
        "grants": [{"src": ["ann@example.com"], "dst": ["10.0.0.0/16"], "app": {"a.b/c": [1]}}]
    }
    router = node(3, tags=("tag:b",), routes=("10.0.0.0/8",))
    compiled = made(document, node(1, user=UserID(1)), router)
    (rule,) = compiled.packet_filter(NodeID(3))
    assert rule.cap_grant[0].dsts == (ROUTE,)
    assert not compiled.packet_filter(NodeID(1))


def test_through_via_nothing_is_announced_and_no_own_device_is_reached() -> None:
    """Routers carry packets to what they route; own devices and capabilities are none of that."""
    drive = {"tailscale.com/cap/drive": [{"shares": ["*"], "access": "rw"}]}
    grants: list[dict[str, Any]] = [
        {"src": ["autogroup:member"], "dst": ["autogroup:self"], "ip": ["*"], "via": ["tag:a"]},
        {
            "src": ["autogroup:member"],
            "dst": ["tag:b"],
            "ip": ["*"],
            "app": drive,
            "via": ["tag:a"],
        },
    ]
    nodes = (
        node(1, user=UserID(1)),
        node(2, user=UserID(1)),
        node(3, tags=("tag:a",)),
        node(4, tags=("tag:b",)),
    )
    compiled = made({"grants": grants}, *nodes)
    for each in nodes:
        assert compiled.packet_filter(each.id) == ()
        assert compiled.sight(each.id).nodes == frozenset()
    direct = made({"grants": [{k: v for k, v in g.items() if k != "via"} for g in grants]}, *nodes)
    assert [rule.cap_grant[0].cap_map.keys() for rule in direct.packet_filter(NodeID(1))[1:]] == [
        {"tailscale.com/cap/drive-sharer"}
    ]
