"""What policies cost: compile, one node joins, one changes tags, one rule changes.

Run as ``python -m tests.bench policy`` or alone. The tailnet: one node in five is tagged, 50
groups, 300 rules, ``autogroup:self`` among them. "All told" also makes every node's filter and
visibility class, which a server only does for nodes that ask.
"""

from __future__ import annotations

import gc
import random
import sys
import time
import tracemalloc
from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_network
from statistics import median

import msgspec

from appliance.netmap.encoded import Encoder
from appliance.policy.engine.compile import Compiled, compile, recompile  # noqa: A004 - its name
from appliance.policy.engine.routes import RouteTable, elect
from appliance.policy.engine.ssh import ssh_policy
from appliance.policy.text.document import decode
from appliance.records import Node, NodeID, Tailnet, TailnetID, User, UserID
from appliance.tailnet import policies
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey, NodeKey
from tests.bench.table import Figure, show

CAPVER = 148
SIZES = (100, 1000, 5000)
GROUPS = 50
RULES = 300
TAGS = 30
NOW = datetime(2026, 1, 1, tzinfo=UTC)
SCRATCH_S = {1000: 0.5, 5000: 4.0}
JOIN_MS = {1000: 5.0, 5000: 15.0}
MEMORY_MB = {5000: 150.0}


def run(repeats: int) -> list[Figure]:
    """Measure everything."""
    return [figure for size in SIZES for figure in _measure(size, repeats)]


def policy_text(users: int, rng: random.Random) -> str:
    """Write a policy with 50 groups and 300 rules for a tailnet with so many users."""
    groups = {
        f"group:g{n}": [
            f"u{each}@example.com" for each in rng.sample(range(users), max(1, users // 20))
        ]
        for n in range(GROUPS)
    }
    hosts = {f"h{n}": f"10.{n}.0.0/16" for n in range(20)}
    words = [*groups, *(f"tag:t{n}" for n in range(TAGS)), "autogroup:member", "autogroup:tagged"]
    acls: list[dict[str, object]] = [
        {"action": "accept", "src": ["autogroup:member"], "dst": ["autogroup:self:*"]}
    ]
    while len(acls) < RULES:
        kind = rng.randrange(10)
        dst = (
            rng.choice(list(hosts))
            if kind < 2
            else f"u{rng.randrange(users)}@example.com"
            if kind == 2
            else f"tag:t{rng.randrange(TAGS)}"
        )
        src = ["*"] if kind == 3 else rng.sample(words, rng.randint(1, 3))
        port = rng.choice(("22", "443", "80,443", "8000-8100"))
        acls.append({"action": "accept", "src": src, "dst": [f"{dst}:{port}"]})
    owners = {f"tag:t{n}": ["autogroup:admin"] for n in range(TAGS)}
    ssh = [
        {"action": "accept", "src": ["autogroup:member"], "dst": [f"tag:t{n}"], "users": ["root"]}
        for n in range(TAGS)
    ]
    document = {"ssh": ssh, "groups": groups, "hosts": hosts, "tagOwners": owners, "acls": acls}
    return msgspec.json.encode(document).decode()


def tailnet(size: int, rng: random.Random) -> tuple[dict[UserID, User], dict[NodeID, Node]]:
    """Give users and nodes; one node in fifty is a router."""
    people = max(1, size // 4)
    users = {
        UserID(n + 1): User(UserID(n + 1), f"u{n}", NOW, email=f"u{n}@example.com")
        for n in range(people)
    }
    return users, {NodeID(n): node(n, people, rng) for n in range(1, size + 1)}


def node(number: int, people: int, rng: random.Random) -> Node:
    """Give one node."""
    seed = number.to_bytes(32, "big")
    tags = tuple(sorted({f"tag:t{rng.randrange(TAGS)}" for _ in range(rng.randint(1, 2))}))
    is_tagged = number % 5 == 0
    routes = (ip_network(f"10.{number % 20}.{number % 250}.0/24"),) if number % 50 == 0 else ()
    return Node(
        id=NodeID(number),
        stable_id=f"n{number}",
        machine_key=MachineKey(seed),
        node_key=NodeKey(seed),
        name=f"n{number}",
        hostname=f"n{number}",
        created_at=NOW,
        user_id=None if is_tagged else UserID(rng.randrange(people) + 1),
        tags=tags if is_tagged else (),
        ipv4=IPv4Address("100.64.0.0") + number,
        ipv6=IPv6Address("fd7a:115c:a1e0::") + number,
        hostinfo=tailcfg.Hostinfo(routable_ips=routes),
        approved_routes=routes,
    )


def tell_all(compiled: Compiled) -> None:
    """Make every node's filter and visibility class."""
    state = compiled.state
    assert state is not None
    for node_id in state.nodes:
        compiled.sight(node_id)
        compiled.packet_filter(node_id)


def _measure(size: int, repeats: int) -> list[Figure]:
    rng = random.Random(size)
    users, nodes = tailnet(size, rng)
    text = policy_text(len(users), rng)
    policy = decode(text)
    last = NodeID(size + 1)
    joined = {**nodes, last: node(size + 1, len(users), rng)}
    tagged = NodeID(5)
    retagged = {**nodes, tagged: replace(nodes[tagged], tags=("tag:t1", "tag:t7"))}
    changed = decode(text.replace(':22"', ':23"', 1))
    compiled = compile(policy, users, nodes)
    tell_all(compiled)

    def timed(work: Callable[[], object], scale: float = 1000.0) -> tuple[float, ...]:
        gc.collect()
        gc.freeze()
        values = []
        for _ in range(repeats):
            started = time.process_time()
            work()
            values.append(scale * (time.process_time() - started))
        return tuple(values)

    def figure(
        name: str, unit: str, values: tuple[float, ...], target: float | None = None
    ) -> Figure:
        return Figure("policy", f"{name}, {size:,} nodes", unit, values, target)

    def whole() -> None:
        tell_all(compile(policy, users, nodes))

    found = [
        figure("read the text", "ms", timed(lambda: decode(text))),
        figure(
            "compile from scratch",
            "s",
            timed(lambda: compile(policy, users, nodes), 1.0),
            SCRATCH_S.get(size),
        ),
        figure("compile from scratch, all told", "s", timed(whole, 1.0), SCRATCH_S.get(size)),
        figure(
            "one node joins",
            "ms",
            timed(lambda: recompile(compiled, policy, users, joined, [last])),
            JOIN_MS.get(size),
        ),
        figure(
            "one node changes tags",
            "ms",
            timed(lambda: recompile(compiled, policy, users, retagged, [tagged])),
            JOIN_MS.get(size),
        ),
        figure(
            "one rule changes", "ms", timed(lambda: recompile(compiled, changed, users, nodes, ()))
        ),
        figure(
            "a node that joined is told",
            "ms",
            timed(lambda: recompile(compiled, policy, users, joined, [last]).packet_filter(last)),
        ),
    ]
    state = compiled.state
    assert state is not None
    elections = elect(state, lambda _: True)

    def routed() -> None:
        elect(state, lambda _: True, elections)
        RouteTable(state, elections).seen(NodeID(1))

    found.append(figure("routes for one viewer, from scratch", "ms", timed(routed)))
    found.append(figure("SSH rules of one node", "ms", timed(lambda: ssh_policy(state, tagged))))
    found += [figure(name, "ms", values) for name, values in _told(text, users, nodes, repeats)]
    tracemalloc.start()
    held = compile(policy, users, nodes)
    compiled_mb = tracemalloc.get_traced_memory()[0] / 1e6
    tell_all(held)
    told_mb = tracemalloc.get_traced_memory()[0] / 1e6
    tracemalloc.stop()
    return [
        *found,
        figure("memory of compiled state", "MB", (compiled_mb,), MEMORY_MB.get(size)),
        figure("memory with every filter", "MB", (told_mb,), MEMORY_MB.get(size)),
    ]


def _told(
    text: str, users: dict[UserID, User], nodes: dict[NodeID, Node], repeats: int
) -> list[tuple[str, tuple[float, ...]]]:
    """Measure what a change costs to the last byte: settled, then told to every node."""
    ids = Sequences(user=len(users), node=len(nodes))
    edit = Edit(Snapshot(Tailnet(TailnetID(1), "bench", "tail.example.net", NOW)), ids)
    for user in users.values():
        edit.put(user)
    for each in nodes.values():
        edit.put(each)
    policy = decode(text)
    edit.set_policy(policy, compile(policy, users, nodes))
    snapshot = edit.finish()[0]
    snapshot = policies.settle(snapshot, snapshot)
    encoder, rng = Encoder(), random.Random(2)
    for viewer in snapshot.nodes:
        encoder.full(snapshot, viewer, CAPVER, zstd=True)
    times: dict[str, list[float]] = {"a join, told to all": [], "a new home relay, told to all": []}
    for turn in range(repeats):
        newest = ids.next_node()
        for name, record in (
            ("a join, told to all", node(newest, len(users), rng)),
            ("a new home relay, told to all", replace(nodes[NodeID(7)], home_derp=turn + 1)),
        ):
            edit = Edit(snapshot, ids)
            edit.put(record)
            drafted = edit.finish()[0]
            started = time.process_time()
            settled = policies.settle(snapshot, drafted)
            for viewer in snapshot.nodes:
                encoder.delta(snapshot, settled, viewer, CAPVER, zstd=True)
            times[name].append(1000 * (time.process_time() - started))
            snapshot = settled
    return [(name, tuple(values)) for name, values in times.items()]


def main() -> None:
    """Measure and print."""
    figures = run(5)
    print(show(figures))
    if "--medians" in sys.argv:
        print({each.name: median(each.values) for each in figures})


if __name__ == "__main__":
    main()
