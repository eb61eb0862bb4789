"""What ``recompile`` makes is what ``compile`` makes, and it keeps what did not change."""

from __future__ import annotations

from dataclasses import replace
from ipaddress import IPv4Address, IPv6Address
from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from appliance.policy.engine import nodeattrs
from appliance.policy.engine.compile import Compiled, compile, recompile  # noqa: A004 - its name
from appliance.policy.engine.routes import RouteTable, elect
from appliance.policy.engine.ssh import ssh_policy
from appliance.records import Attribute, NodeID, UserID
from appliance.wire import tailcfg
from tests.policy.worlds import (
    World,
    add_node,
    change,
    node,
    random_document,
    random_world,
    read,
    user,
)


def told(compiled: Compiled) -> dict[NodeID, tuple[object, ...]]:
    """Give all that a compiled policy says, in a form that can be compared."""
    state = compiled.state
    assert state is not None
    table = RouteTable(state, elect(state, lambda _: True))
    everything: dict[NodeID, tuple[object, ...]] = {}
    for node_id in state.nodes:
        seen = compiled.sight(node_id).nodes
        everything[node_id] = (
            (set(state.nodes) if seen is None else set(seen)) - {node_id},
            tailcfg.encode(
                tailcfg.MapResponse(packet_filters={"base": compiled.packet_filter(node_id)})
            ),
            tailcfg.encode(ssh_policy(state, node_id)),
            nodeattrs.attributes(state, node_id),
            dict(table.seen(node_id)),
        )
    return everything


@settings(deadline=None, max_examples=120)
@given(st.integers(0, 1 << 48))
def test_incremental_result_equals_one_from_scratch(seed: int) -> None:
    rng = Random(seed)
    world = random_world(rng, rng.randint(0, 12))
    policy = read(random_document(rng))
    compiled = compile(policy, world.users, world.nodes, world.background)
    for _ in range(rng.randint(1, 8)):
        if rng.random() < 0.5:
            told(compiled)
        nodes, users = change(rng, world)
        for _ in range(rng.choice((0, 0, 3))):
            more_nodes, more_users = change(rng, world)
            nodes, users = nodes | more_nodes, users | more_users
        compiled = recompile(
            compiled, policy, world.users, world.nodes, nodes, users, world.background
        )
        fresh = compile(policy, world.users, world.nodes, world.background)
        assert told(compiled) == told(fresh)


@settings(
    deadline=None, max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture]
)
@given(seed=st.integers(0, 1 << 48))
def test_columns_are_the_same_whether_turned_or_flipped(
    monkeypatch: pytest.MonkeyPatch, seed: int
) -> None:
    rng = Random(seed)
    world = random_world(rng, rng.randint(0, 50))
    policy = read(random_document(rng))
    states = []
    before = dict(world.nodes)
    nodes = set().union(*(change(rng, world)[0] for _ in range(rng.randint(0, 5))))
    for many in (1 << 60, -(1 << 60)):
        monkeypatch.setattr("appliance.policy.engine.state.MANY_FLIPS", many)
        first = compile(policy, world.users, before, world.background)
        after = recompile(
            first, policy, world.users, world.nodes, nodes, (), world.background
        ).state
        assert after is not None
        states.append((after.src_nodes, after.dst_nodes, after.listed_nodes))
    assert states[0] == states[1]


def test_devices_of_a_prefix_come_and_go_with_posture_and_address() -> None:
    """Of a prefix, a rule with a posture lets in the addresses of devices that are in it."""
    policy = read(
        {
            "tagOwners": {"tag:a": [], "tag:b": []},
            "postures": {"posture:mac": ["node:os == 'macos'"]},
            "acls": [
                {
                    "action": "accept",
                    "src": ["100.64.0.0/24", "fd7a:115c:a1e0::2"],
                    "dst": ["tag:a:22"],
                    "srcPosture": ["posture:mac"],
                }
            ],
        }
    )
    world = small_world()
    mac, linux = tailcfg.Hostinfo(os="macOS"), tailcfg.Hostinfo(os="linux")
    first, second = world.nodes[NodeID(1)], world.nodes[NodeID(2)]
    compiled = compile(policy, world.users, dict(world.nodes))
    assert compiled.packet_filter(NodeID(4)) == ()
    for changed, wanted in (
        (replace(first, hostinfo=mac), {str(first.ipv4)}),
        (replace(second, hostinfo=mac), {str(first.ipv4), str(second.ipv4), str(second.ipv6)}),
        # Another address in the prefix, then one beside it.
        (
            replace(first, hostinfo=mac, ipv4=IPv4Address("100.64.0.200")),
            {"100.64.0.200", str(second.ipv4), str(second.ipv6)},
        ),
        (
            replace(first, hostinfo=mac, ipv4=IPv4Address("100.64.1.1")),
            {str(second.ipv4), str(second.ipv6)},
        ),
        (
            replace(second, hostinfo=mac, ipv6=IPv6Address("fd7a:115c:a1e0::99")),
            {str(second.ipv4)},
        ),
        (replace(second, hostinfo=linux), set()),
    ):
        world.nodes[changed.id] = changed
        compiled = recompile(compiled, policy, world.users, dict(world.nodes), [changed.id])
        rules = compiled.packet_filter(NodeID(4))
        assert {text for rule in rules for text in rule.src_ips} == wanted
        assert told(compiled) == told(compile(policy, world.users, world.nodes))


def small_world() -> World:
    world = World({UserID(1): user(1, "ann@example.com"), UserID(2): user(2, "bob@example.com")})
    for number, (owner, tags) in enumerate(
        ((1, ()), (1, ()), (2, ()), (None, ("tag:a",)), (None, ("tag:b",))), 1
    ):
        made = node(number, user=UserID(owner) if owner else None, tags=tuple(tags))
        world.nodes[made.id] = made
        world.next_id = number + 1
    return world


POLICY = read(
    {
        "tagOwners": {"tag:a": [], "tag:b": []},
        "acls": [
            {"action": "accept", "src": ["ann@example.com"], "dst": ["tag:a:22"]},
            {"action": "accept", "src": ["bob@example.com"], "dst": ["tag:b:22"]},
        ],
    }
)


def test_a_join_leaves_those_alone_that_it_does_not_touch() -> None:
    world = small_world()
    before = compile(POLICY, world.users, world.nodes)
    told(before)
    new = node(6, tags=("tag:b",))
    after = recompile(before, POLICY, world.users, {**world.nodes, new.id: new}, [new.id])
    for number in (1, 2, 4):
        assert after.sight(NodeID(number)) is before.sight(NodeID(number))
        assert after.packet_filter(NodeID(number)) is before.packet_filter(NodeID(number))
    assert after.sight(NodeID(3)).nodes == frozenset({NodeID(5), NodeID(6)})
    assert not before.sight(NodeID(3)).shows(NodeID(6))


def test_a_change_that_no_rule_looks_at_changes_no_object() -> None:
    world = small_world()
    before = compile(POLICY, world.users, world.nodes)
    told(before)
    nodes = dict(world.nodes)
    nodes[NodeID(1)] = replace(nodes[NodeID(1)], hostname="other", home_derp=7)
    renamed = {**world.users, UserID(1): replace(world.users[UserID(1)], display_name="Ann")}
    assert recompile(before, POLICY, renamed, nodes, [NodeID(1)], [UserID(1)]) is before


def test_an_attribute_matters_to_postures_only() -> None:
    world = small_world()
    given = replace(world.nodes[NodeID(1)], attributes=(Attribute("custom:level", 4),))
    nodes = {**world.nodes, given.id: given}
    before = compile(POLICY, world.users, world.nodes)
    assert recompile(before, POLICY, world.users, nodes, [given.id]) is before
    rule = {"action": "accept", "src": ["ann@example.com"], "dst": ["tag:a:22"]}
    policy = read(
        {
            "tagOwners": {"tag:a": [], "tag:b": []},
            "postures": {"posture:high": ["custom:level > 3"]},
            "acls": [{**rule, "srcPosture": ["posture:high"]}],
        }
    )
    shut = compile(policy, world.users, world.nodes)
    told(shut)
    opened = recompile(shut, policy, world.users, nodes, [given.id])
    assert opened.sight(NodeID(1)).shows(NodeID(4))
    assert not opened.sight(NodeID(2)).shows(NodeID(4))
    assert opened.state is not None
    assert shut.state is not None
    assert opened.state.rule_index is shut.state.rule_index, "from scratch"
    again = recompile(opened, policy, world.users, world.nodes, [given.id])
    assert told(again) == told(shut)


def test_nothing_changed_is_the_same_object() -> None:
    world = small_world()
    compiled = compile(POLICY, world.users, world.nodes)
    assert recompile(compiled, POLICY, world.users, world.nodes, []) is compiled
    assert recompile(compiled, POLICY, world.users, world.nodes, [NodeID(99)]) is compiled


def test_the_old_state_stays_as_it_was() -> None:
    """Map sessions hold old snapshots: what they say may not change under them."""
    rng = Random(7)
    world = random_world(rng, 10)
    policy = read(random_document(rng))
    first = compile(policy, world.users, world.nodes, world.background)
    before = told(compile(policy, world.users, world.nodes, world.background))
    compiled = first
    for _ in range(20):
        nodes, users = change(rng, world)
        compiled = recompile(
            compiled, policy, world.users, world.nodes, nodes, users, world.background
        )
        told(compiled)
    assert told(first) == before


def test_everyone_is_one_class_that_a_join_does_not_replace() -> None:
    world = small_world()
    policy = read({})
    before = compile(policy, world.users, world.nodes)
    joined = add_node(Random(1), world)
    after = recompile(before, policy, world.users, world.nodes, [joined])
    assert {id(after.sight(node_id)) for node_id in world.nodes} == {id(before.sight(NodeID(1)))}
    assert after.sight(joined).nodes is None


def test_nodes_with_the_same_ssh_rules_share_one_object() -> None:
    rule = {"action": "accept", "src": ["ann@example.com"], "dst": ["tag:a"], "users": ["root"]}
    policy = read({"tagOwners": {"tag:a": [], "tag:b": []}, "ssh": [rule]})
    world = small_world()
    other = node(6, tags=("tag:a",))
    nodes = {**world.nodes, other.id: other}
    before = compile(policy, world.users, nodes)
    assert before.state is not None
    shared = ssh_policy(before.state, NodeID(4))
    assert shared.rules
    assert ssh_policy(before.state, other.id) is shared
    stranger = node(7, tags=("tag:b",))
    after = recompile(before, policy, world.users, {**nodes, stranger.id: stranger}, [stranger.id])
    assert after is not before
    assert after.state is not None
    assert ssh_policy(after.state, other.id) is shared


def test_recorders_are_told_in_the_order_of_their_nodes() -> None:
    """A node that takes the place of one that went is not tried before older ones."""
    rule = {"action": "accept", "src": ["bob@example.com"], "dst": ["tag:a"], "users": ["root"]}
    tags: dict[str, list[str]] = {"tag:a": [], "tag:b": [], "tag:rec": []}
    policy = read({"tagOwners": tags, "ssh": [{**rule, "recorder": ["tag:rec"]}]})
    world = small_world()
    nodes = {**world.nodes, NodeID(6): node(6, tags=("tag:rec",))}
    before = compile(policy, world.users, nodes)
    fewer = {key: each for key, each in nodes.items() if key != NodeID(1)}
    between = recompile(before, policy, world.users, fewer, [NodeID(1)])
    more = {**fewer, NodeID(7): node(7, tags=("tag:rec",))}
    after = recompile(between, policy, world.users, more, [NodeID(7)])
    assert told(after) == told(compile(policy, world.users, more))
    assert after.state is not None
    action = ssh_policy(after.state, NodeID(4)).rules[0].action
    assert action is not None
    assert [str(each) for each in action.recorders][::2] == ["100.64.0.6:80", "100.64.0.7:80"]
