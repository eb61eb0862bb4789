"""How much CPU it takes to make map responses: full maps and deltas, shared and not.

Run: ``python -m tests.bench.maps [--json FILE] [--nodes 100,1000,...]``. CPU time of this process,
median of several runs. Making bytes only: no sessions, no Noise, no sockets (``make bench`` has
those). A node's JSON is about 800 bytes, as from a client behind NAT with four endpoints.
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from random import Random

from appliance.netmap import Encoder
from appliance.policy.engine.compile import Compiled, Sight
from appliance.records import Node, NodeID, Presence, Settings, User, UserID
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey
from tests.netmap.tailnets import START, empty_tailnet, make_node

CAPVER = 142
REPEATS = 5
VIEWERS = 100
MIN_S = 0.1
"""A measurement runs at least this long."""


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--nodes", default="100,1000,5000,10000")
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    sizes = [int(size) for size in options.nodes.split(",")]
    results = {size: measure(size) for size in sizes}
    names = list(results[sizes[0]])
    print(f"{'CPU in microseconds, unless said':58}" + "".join(f"{size:>10}" for size in sizes))
    for name in names:
        print(f"{name:58}" + "".join(f"{results[size][name]:>10.1f}" for size in sizes))
    if options.json:
        options.json.write_text(json.dumps(results, indent=1) + "\n")


def measure(size: int) -> dict[str, float]:
    """Measure everything for a tailnet of this many nodes."""
    rng = Random(7)
    base = tailnet(rng, size)
    viewers = [NodeID(number) for number in rng.sample(range(1, size + 1), min(size, VIEWERS))]
    return {
        **measure_full(rng, base, viewers),
        **measure_deltas(rng, base, viewers),
    }


def measure_full(rng: Random, base: Snapshot, viewers: Sequence[NodeID]) -> dict[str, float]:
    """Measure full maps."""
    encoder = Encoder()
    first = cpu_once(lambda: encoder.full(base, NodeID(1), CAPVER, zstd=True))
    turn = cycle(viewers)
    shared = cpu(lambda: encoder.full(base, turn(), CAPVER, zstd=True))
    plain = cpu(lambda: encoder.full(base, turn(), CAPVER, zstd=False))
    size_bytes = sum(map(len, encoder.full(base, NodeID(1), CAPVER, zstd=True)))

    versions = storm(rng, base)
    encoder.full(versions[0][1], NodeID(1), CAPVER, zstd=True)
    in_storm = cpu_once(
        lambda: [encoder.full(new, viewer, CAPVER, zstd=True) for viewer, new in versions]
    ) / len(versions)

    own_sets = distinct(rng, base, viewers)
    alone = Encoder()
    alone.full(own_sets, viewers[0], CAPVER, zstd=True)
    own = cpu(lambda: alone.full(own_sets, turn(), CAPVER, zstd=True))
    return {
        "full map, the first of all": first,
        "full map, all see the same": shared,
        "full map, all see the same, without zstd": plain,
        "full map, each of a new version (reconnect storm)": in_storm,
        "full map, every viewer sees a different set": own,
        "  size of a full map (kB)": size_bytes / 1000,
        "  kept by the encoder (MB)": encoder.held_bytes / 1e6,
    }


def measure_deltas(rng: Random, base: Snapshot, viewers: Sequence[NodeID]) -> dict[str, float]:
    """Measure deltas."""
    one, fifty = endpoints_change(rng, base, 1), endpoints_change(rng, base, 50)
    online = presence_change(base, 50)
    others = [NodeID(len(base.nodes) - i % 40) for i in range(len(viewers))]
    encoder = Encoder()
    encoder.full(base, NodeID(1), CAPVER, zstd=True)

    def first(new: Snapshot) -> float:
        return cpu(lambda: Encoder().delta(base, new, others[0], CAPVER, zstd=True))

    def after(new: Snapshot, chosen: Sequence[NodeID]) -> float:
        turn = cycle(chosen)
        return cpu(lambda: encoder.delta(base, new, turn(), CAPVER, zstd=True))

    whole = hostinfo_change(base, 50)
    policy, own_sets = distinct(rng, base, viewers), distinct(rng, base, viewers)
    recompiled = with_policy(base)
    turn = cycle(viewers)
    return {
        "delta, 1 patch, the first": first(one),
        "delta, 50 patches, the first": first(fifty),
        "delta, 50 come online, the first": first(online),
        "delta, 50 whole peers, the first": first(whole),
        "delta, shared, each further viewer": after(fifty, others),
        "delta, 50 patches, for one of those who changed": after(fifty, [NodeID(1), NodeID(2)]),
        "delta, 50 whole peers, for one of those who changed": after(whole, [NodeID(1), NodeID(2)]),
        "delta, new policy, all see the same": cpu(
            lambda: encoder.delta(base, recompiled, turn(), CAPVER, zstd=True)
        ),
        "delta, new policy, every viewer sees a different set": cpu(
            lambda: encoder.delta(policy, own_sets, turn(), CAPVER, zstd=True)
        ),
    }


def tailnet(rng: Random, size: int) -> Snapshot:
    """Make a tailnet as one finds it: 40 users, some tags, four endpoints, two of three online."""
    edit = Edit(empty_tailnet(), Sequences())
    edit.set_settings(Settings(nameservers=("1.1.1.1",), derp_map=derp_map()))
    for number in range(1, 41):
        edit.put(User(UserID(number), f"user{number}", START, email=f"user{number}@example.com"))
    for number in range(1, size + 1):
        edit.put(busy_node(rng, number))
        edit.set_presence(
            NodeID(number), Presence(online=number % 3 > 0, sessions=1, last_seen=START)
        )
    return edit.finish()[0]


def busy_node(rng: Random, number: int) -> Node:
    """Make a node as a client in an office has it."""
    owned = number % 3 > 0
    return make_node(
        number,
        rng,
        user_id=UserID(number % 40 + 1) if owned else None,
        tags=() if owned else ("tag:web",),
        disco_key=DiscoKey(rng.randbytes(32)),
        endpoints=endpoints(rng),
        home_derp=rng.randint(1, 27),
        capver=CAPVER,
        expires_at=START + timedelta(days=180),
        hostinfo=tailcfg.Hostinfo(
            ipn_version="1.102.4-t0123456789",
            os="linux",
            hostname=f"node-{number}",
            services=(
                tailcfg.Service(proto="peerapi4", port=rng.randint(1024, 65535)),
                tailcfg.Service(proto="peerapi6", port=rng.randint(1024, 65535)),
            ),
        ),
        net_info=tailcfg.NetInfo(preferred_derp=1),
    )


def endpoints(rng: Random) -> tuple[tailcfg.AddrPort, ...]:
    """Make four endpoints."""
    octets = [rng.randrange(1, 254) for _ in range(6)]
    return tuple(
        tailcfg.AddrPort.parse(text)
        for text in (
            f"{octets[0]}.{octets[1]}.{octets[2]}.{octets[3]}:41641",
            f"192.168.{octets[4]}.{octets[5]}:41641",
            f"[2001:db8:{octets[0]:x}::{octets[1]:x}]:41641",
            "172.17.0.1:41641",
        )
    )


def derp_map() -> tailcfg.DERPMap:
    """Make a DERP map of 27 regions with three relays each."""
    return tailcfg.DERPMap(
        regions={
            region: tailcfg.DERPRegion(
                region_id=region,
                region_code=f"r{region}",
                region_name=f"Region {region}",
                nodes=tuple(
                    tailcfg.DERPNode(
                        name=f"{region}{letter}",
                        region_id=region,
                        host_name=f"derp{region}{letter}.example.com",
                        ipv4=f"203.0.113.{region}",
                        ipv6=f"2001:db8::{region:x}",
                        can_port80=True,
                    )
                    for letter in "abc"
                ),
            )
            for region in range(1, 28)
        }
    )


def endpoints_change(rng: Random, base: Snapshot, count: int) -> Snapshot:
    """Give the first nodes other endpoints."""
    edit = Edit(base, Sequences())
    for node in list(base.nodes.values())[:count]:
        edit.put(replace(node, endpoints=endpoints(rng)))
    return edit.finish()[0]


def hostinfo_change(base: Snapshot, count: int) -> Snapshot:
    """Change something of the first nodes that a patch cannot say."""
    edit = Edit(base, Sequences())
    for node in list(base.nodes.values())[:count]:
        edit.put(replace(node, name=f"new-{node.id}"))
    return edit.finish()[0]


def presence_change(base: Snapshot, count: int) -> Snapshot:
    """Turn the presence of the first nodes round."""
    edit = Edit(base, Sequences())
    for node_id in list(base.nodes)[:count]:
        edit.set_presence(node_id, replace(base.presence_of(node_id), online=node_id % 3 == 0))
    return edit.finish()[0]


def storm(rng: Random, base: Snapshot) -> list[tuple[NodeID, Snapshot]]:
    """Let nodes come online one after the other; give each with the version that it made."""
    versions = []
    edit = Edit(base, Sequences())
    for node_id in base.nodes:
        edit.set_presence(node_id, Presence(last_seen=START))
    snapshot = edit.finish()[0]
    for node_id in rng.sample(list(base.nodes), min(len(base.nodes), 300)):
        edit = Edit(snapshot, Sequences())
        edit.set_presence(node_id, Presence(online=True, sessions=1, last_seen=START))
        snapshot = edit.finish()[0]
        versions.append((node_id, snapshot))
    return versions


def distinct(rng: Random, base: Snapshot, viewers: Sequence[NodeID]) -> Snapshot:
    """Let each of these viewers see its own nine in ten of the others."""
    ids = list(base.nodes)
    edit = Edit(base, Sequences())
    edit.set_compiled(
        Compiled(
            sights={
                viewer: Sight(frozenset(rng.sample(ids, len(ids) * 9 // 10))) for viewer in viewers
            }
        )
    )
    return edit.finish()[0]


def with_policy(base: Snapshot) -> Snapshot:
    """Give the same with a compiled policy of its own that says the same."""
    edit = Edit(base, Sequences())
    edit.set_compiled(Compiled(default_sight=base.compiled.default_sight))
    return edit.finish()[0]


def cycle(viewers: Sequence[NodeID]) -> Callable[[], NodeID]:
    """Give one viewer after the other."""
    position = -1

    def following() -> NodeID:
        nonlocal position
        position = (position + 1) % len(viewers)
        return viewers[position]

    return following


def cpu_once(run: Callable[[], object]) -> float:
    """Give the CPU time of one run in microseconds."""
    started = time.process_time_ns()
    run()
    return (time.process_time_ns() - started) / 1e3


def cpu(run: Callable[[], object]) -> float:
    """Give the median CPU time of a run in microseconds."""
    once = max(cpu_once(run), 0.2)
    times = max(1, int(MIN_S * 1e6 / once))
    taken = []
    for _ in range(REPEATS):
        started = time.process_time_ns()
        for _ in range(times):
            run()
        taken.append((time.process_time_ns() - started) / 1e3 / times)
    return statistics.median(taken)


if __name__ == "__main__":
    main()
