"""One recorded question to our policy engine, and its answer in the form that is compared.

Knows the form of cases and nothing of their content: no case ids, no exceptions.
"""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Mapping
from dataclasses import replace
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_network
from pathlib import Path
from typing import Any

import msgspec

from appliance import netmap
from appliance.policy.answers import selftest
from appliance.policy.engine import approvers, nodeattrs
from appliance.policy.engine.compile import OPEN
from appliance.policy.engine.flows import COMPANIONS
from appliance.policy.engine.ssh import ssh_policy
from appliance.policy.text.document import decode
from appliance.policy.text.language import Background, Policy
from appliance.policy.text.mistakes import PolicyError
from appliance.records import (
    Node,
    NodeID,
    Presence,
    Role,
    Tailnet,
    TailnetID,
    User,
    UserID,
)
from appliance.tailnet import policies
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
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
    snapshot = _settled(users, nodes, policy, background)
    compiled = snapshot.compiled
    state = compiled.state
    assert state is not None
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
                "peers": _peers(snapshot, ids[name]),
                "self": _seen(netmap.view(snapshot, ids[name]).node, snapshot.nodes[ids[name]]),
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


def _settled(
    users: dict[UserID, User], nodes: dict[NodeID, Node], policy: Policy, background: Background
) -> Snapshot:
    """Give the tailnet under the policy, everybody online, as the server publishes it."""
    edit = Edit(Snapshot(Tailnet(TailnetID(1), "recorded", "example.com", NOW)), Sequences())
    for user in users.values():
        edit.put(replace(user, role=background.roles[user.id]))
    for node in nodes.values():
        edit.put(node)
        edit.set_presence(node.id, Presence(online=True, sessions=1))
    edit.set_settings(replace(edit.settings, email_domains=background.domains))
    edit.set_policy(policy, OPEN)
    drafted = edit.finish()[0]
    return policies.settle(drafted, drafted)


def _peers(snapshot: Snapshot, viewer: NodeID) -> Case:
    """Give what the node's own netmap says of its peers."""
    shown: Case = {}
    for node_id, peer in netmap.view(snapshot, viewer).peers.items():
        node = snapshot.nodes[node_id]
        entry = _seen(peer, node)
        if not entry["routes"]:
            del entry["routes"], entry["primary"]
        if peer.cap_map:
            entry["caps"] = _values(peer.cap_map)
        shown[node.name] = entry
    return shown


def _seen(told: tailcfg.Node, node: Node) -> Case:
    """Give the routes that a netmap says of a node, and its addresses if one is kept back."""
    entry: Case = {
        "routes": [str(r) for r in told.allowed_ips or () if r not in told.addresses],
        "primary": [str(route) for route in told.primary_routes],
    }
    if len(told.addresses) != len(node.addresses):
        entry["addrs"] = [str(address) for address in told.addresses]
    return entry


def _values(attributes: Mapping[str, tuple[msgspec.Raw, ...]]) -> Case:
    return {
        name: [json.loads(bytes(value)) for value in values] or None
        for name, values in attributes.items()
    }
