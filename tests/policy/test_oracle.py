"""The compiled filters let through what a slow and obvious reading of the policy lets through."""

from __future__ import annotations

from ipaddress import ip_address
from itertools import permutations
from random import Random

from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.policy.engine.compile import Compiled, compile  # noqa: A004 - its name
from appliance.policy.engine.reach import end_of, verdicts
from appliance.policy.engine.ssh import decide, ssh_policy
from appliance.records import Address, Node
from appliance.wire.tailcfg.message import address_text
from tests.policy.oracle import DEFAULT, Oracle, holds, is_same_owner
from tests.policy.worlds import World, random_document, random_ssh, random_world, read

STRANGERS = ("10.1.2.3", "10.1.9.9", "10.200.0.1", "192.168.0.7", "8.8.8.8", "fd00:1::5", "2a00::1")
PACKETS = 60
"""Per policy; each is one question to both."""


def lets(compiled: Compiled, node: Node, src: Address, dst: Address, port: int, proto: int) -> bool:
    """Read a node's rules as its packet filter does."""
    return src.version == dst.version and any(
        proto in (rule.ip_proto or DEFAULT)
        and holds(rule.src_ips, src)
        and any(
            holds((range_.ip,), dst) and range_.ports.first <= port <= range_.ports.last
            for range_ in rule.dst_ports
        )
        for rule in compiled.packet_filter(node.id)
    )


def receivers(world: World, dst: Address) -> list[Node]:
    """Give the nodes that have an address or carry packets to it."""
    return [
        node
        for node in world.nodes.values()
        if dst in node.addresses
        or any(r.version == dst.version and dst in r for r in node.approved_routes)
    ]


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 1 << 48))
def test_filters_agree_with_a_slow_reading(seed: int) -> None:
    rng = Random(seed)
    world = random_world(rng, rng.randint(1, 10))
    document = random_document(rng)
    compiled = compile(read(document), world.users, world.nodes, world.background)
    oracle = Oracle(document, world)
    known = [a for node in world.nodes.values() for a in node.addresses]
    everywhere = [*known, *map(ip_address, STRANGERS)]
    for _ in range(PACKETS):
        src, dst = rng.choice(everywhere), rng.choice(everywhere)
        port, proto = rng.choice((22, 53, 80, 150, 443, 9999)), rng.choice((1, 6, 17))
        for node in receivers(world, dst):
            expected = oracle.may(src, node, dst, port, proto)
            assert lets(compiled, node, src, dst, port, proto) is expected, (
                f"{src} to {dst}:{port} proto {proto} at {node.name}: expected {expected}"
            )


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 1 << 48))
def test_single_questions_are_answered_as_filters_do(seed: int) -> None:
    """What tests of a policy claim and explanations say is what nodes let in."""
    rng = Random(seed)
    world = random_world(rng, rng.randint(1, 8))
    compiled = compile(read(random_document(rng)), world.users, world.nodes, world.background)
    state = compiled.state
    assert state is not None
    nodes: list[tuple[Address, Node | None]] = [
        (address, node) for node in world.nodes.values() for address in node.addresses
    ]
    everywhere = [*nodes, *((ip_address(text), None) for text in STRANGERS)]
    for _ in range(PACKETS):
        (src, sender), (dst, node) = rng.choice(everywhere), rng.choice(everywhere)
        port, proto = rng.choice((22, 53, 80, 150, 443, 9999)), rng.choice((6, 17))
        ends = end_of(state, src, sender), end_of(state, dst, node)
        is_let = src.version == dst.version and any(
            verdict.miss is None for verdict in verdicts(state, *ends, port, (proto,))
        )
        doors = receivers(world, dst) if node is None else [node]
        lets_in = any(lets(compiled, each, src, dst, port, proto) for each in doors)
        # Of what is no node's, a rule may speak that no router leads to.
        assert is_let is lets_in or (node is None and is_let), f"{src} to {dst}:{port} {proto}"


@settings(deadline=None, max_examples=60)
@given(st.integers(0, 1 << 48))
def test_peers_are_those_that_a_filter_lets_in(seed: int) -> None:
    """A node that may send to another sees it, and is seen by it."""
    rng = Random(seed)
    world = random_world(rng, rng.randint(1, 8))
    compiled = compile(read(random_document(rng)), world.users, world.nodes, world.background)
    for a in world.nodes.values():
        rules = compiled.packet_filter(a.id)
        for b in world.nodes.values():
            if a is b:
                continue
            behind = [r.network_address for r in b.approved_routes if r.prefixlen]
            lets_in = any(
                holds(rule.src_ips, address)
                for rule in rules
                for address in (*b.addresses, *behind)
            )
            if lets_in:
                assert compiled.sight(a.id).shows(b.id)
                assert compiled.sight(b.id).shows(a.id)


@settings(deadline=None, max_examples=150)
@given(st.integers(0, 1 << 48))
def test_logins_agree_with_a_slow_reading(seed: int) -> None:
    """Besides, a rule with ``localpart:`` opens a source's own devices to its owner (recorded)."""
    rng = Random(seed)
    world = random_world(rng, rng.randint(2, 8))
    document = random_document(rng) | {"ssh": [random_ssh(rng) for _ in range(rng.randint(1, 4))]}
    state = compile(read(document), world.users, world.nodes, world.background).state
    assert state is not None
    oracle = Oracle(document, world)
    has_local_parts = "localpart:" in str(document["ssh"])
    for src, dst in permutations(world.nodes.values(), 2):
        texts = {address_text(address) for address in src.addresses}
        for local_user in ("root", "web", "ann", "bob", "zed"):
            action = decide(ssh_policy(state, dst.id).rules, texts, local_user)
            told = "" if action is None else "check" if action.hold_and_delegate else "accept"
            is_pinned = has_local_parts and is_same_owner(src, dst)
            expected = oracle.log_in(src, dst, local_user)
            assert told == expected or is_pinned, f"{src.name} -> {dst.name} as {local_user}"
