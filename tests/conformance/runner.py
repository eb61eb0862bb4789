"""One recorded question to our policy engine, and its answer in the form that is compared.

Knows the form of cases and nothing of their content: no case ids, no exceptions.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Any

import msgspec

from appliance.policy import approvers, compile, nodeattrs, selftest  # noqa: A004 - its name
from appliance.policy.document import decode
from appliance.policy.flows import COMPANIONS
from appliance.policy.language import Background
from appliance.policy.mistakes import PolicyError
from appliance.policy.routes import Elections, RouteTable, elect
from appliance.policy.ssh import ssh_policy
from appliance.policy.state import State
from appliance.records import Node, NodeID, Role, User, UserID
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey, NodeKey

NOW = datetime(2026, 1, 1, tzinfo=UTC)
DOMAINS = frozenset({"example.com"})
"""The one domain that the recorded tailnet owns."""
BASELINE = ("https://tailscale.com/cap/file-sharing", "https://tailscale.com/cap/ssh")

Case = dict[str, Any]


def read(path: Path) -> Iterator[Case]:
    """Walk over the cases of a file."""
    data = path.read_bytes()
    text = (gzip.decompress(data) if path.suffix == ".gz" else data).decode()
    for line in text.split("\n"):
        if line.strip():
            yield json.loads(line)


def dump(result: Case) -> str:
    """Write a result as one line."""
    return json.dumps(result, separators=(",", ":"), ensure_ascii=False)


def answer(case: Case) -> Case:
    """Answer one case."""
    users = {UserID(user["id"]): _user(user) for user in case["users"]}
    roles = {UserID(user["id"]): Role(user["role"]) for user in case["users"]}
    background = Background(domains=DOMAINS, roles=roles)
    by_name = {user.name: user.id for user in users.values()}
    names = sorted(case["nodes"], key=lambda name: case["nodes"][name].get("order", 1 << 20))
    ids = {name: NodeID(number) for number, name in enumerate(names, 1)}
    nodes = {ids[name]: _node(ids[name], name, case["nodes"][name], by_name) for name in names}
    try:
        policy = decode(case["policy"], domains=DOMAINS)
    except PolicyError as error:
        return {"id": case["id"], "rejected": True, "message": error.sentence}
    failures = selftest.run(policy, users, nodes, background)
    if failures:
        return {"id": case["id"], "rejected": True, "message": selftest.describe(failures)}
    compiled = compile.compile(policy, users, nodes, background)
    state = compiled.state
    assert state is not None
    elections = elect(state, lambda _: True)
    table = RouteTable(state, elections)
    auto_update = bool(case["settings"].get("devices_auto_updates_on", False))
    return {
        "id": case["id"],
        "rejected": False,
        "message": "",
        "approved": {
            name: [
                str(route)
                for route in approvers.approved(policy, background, nodes[ids[name]], users)
            ]
            for name in names
        },
        "nodes": {
            name: {
                "rules": _rules(compiled.packet_filter(ids[name])),
                "ssh": _built(ssh_policy(state, ids[name]).rules),
                "peers": _peers(compiled, table, ids[name]),
                "self": _self(state, elections, ids[name]),
                "caps": {
                    **dict.fromkeys(BASELINE),
                    "default-auto-update": [auto_update],
                    **_values(nodeattrs.attributes(state, ids[name])),
                },
            }
            for name in names
        },
    }


def _user(user: Case) -> User:
    return User(UserID(user["id"]), user["name"], NOW, email=user["login"])


def _node(node_id: NodeID, name: str, node: Case, users: dict[str, UserID]) -> Node:
    seed = node_id.to_bytes(32, "big")
    return Node(
        id=node_id,
        stable_id=name,
        machine_key=MachineKey(seed),
        node_key=NodeKey(seed),
        name=name,
        hostname=name,
        created_at=NOW,
        user_id=users[node["user"]] if node.get("user") else None,
        tags=tuple(node.get("tags", ())),
        ipv4=IPv4Address(node["ipv4"]),
        ipv6=IPv6Address(node["ipv6"]),
        hostinfo=tailcfg.Hostinfo(
            routable_ips=tuple(ip_network(text) for text in node.get("routable_ips", ()))
        ),
        approved_routes=tuple(ip_network(text) for text in node.get("approved_routes", ())),
    )


def _built(messages: tuple[msgspec.Struct, ...]) -> Any:
    return json.loads(msgspec.json.encode(messages, enc_hook=str))


def _rules(rules: tuple[tailcfg.FilterRule, ...]) -> Any:
    """Write rules as they are recorded: null, where we send [], for what the server itself adds.

    No client tells the two apart, and our messages hold no null (decision 0003).
    """
    built = _built(rules)
    for rule in built:
        for grant in rule.get("CapGrant", ()):
            for name in COMPANIONS.values():
                if grant["CapMap"].get(name) == []:
                    grant["CapMap"][name] = None
    return built


def _peers(compiled: compile.Compiled, table: RouteTable, viewer: NodeID) -> Case:
    state = compiled.state
    assert state is not None
    sight, routes = compiled.sight(viewer), table.seen(viewer)
    shown: Case = {}
    for node_id, node in state.nodes.items():
        if node_id == viewer or not sight.shows(node_id):
            continue
        entry: Case = {}
        if node_id in routes:
            entry["routes"] = [str(route) for route in routes[node_id].allowed]
            entry["primary"] = [str(route) for route in routes[node_id].primary]
        caps = _values(nodeattrs.peer_attributes(state, node_id))
        if caps:
            entry["caps"] = caps
        if nodeattrs.hides_ipv4(state, viewer, node_id):
            entry["addrs"] = [f"{node.ipv6}/128"]
        shown[node.name] = entry
    return shown


def _self(state: State, elections: Elections, node_id: NodeID) -> Case:
    routes = state.routes(node_id)
    entry: Case = {
        "routes": [str(route) for route in (*routes.subnets, *routes.exits)],
        "primary": [str(r) for r in routes.subnets if elections.primary(r) == node_id],
    }
    if nodeattrs.hides_ipv4(state, node_id, node_id):
        entry["addrs"] = [f"{state.nodes[node_id].ipv6}/128"]
    return entry


def _values(attributes: nodeattrs.Attributes) -> Case:
    return {
        name: [json.loads(bytes(value)) for value in values] or None
        for name, values in attributes.items()
    }
