"""Random tailnets and policies, and random changes of them, for tests that compare two answers."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_network
from random import Random
from typing import Any

from appliance.policy.text.document import decode
from appliance.policy.text.language import Background, Policy
from appliance.records import Attribute, Node, NodeID, Role, User, UserID
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey, NodeKey

NOW = datetime(2026, 1, 1, tzinfo=UTC)
TAGS = ("tag:a", "tag:b", "tag:c", "tag:r")
GROUPS = ("group:x", "group:y", "group:z")
LOGINS = ("ann@example.com", "bob@example.com", "cid@example.org", "dee@example.com")
ROUTES = ("10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "192.168.0.0/24", "fd00:1::/64")
EXITS = ("0.0.0.0/0", "::/0")
HOSTS = {"h1": "10.1.2.3", "h2": "10.1.0.0/16", "h3": "100.64.0.3", "h4": "192.168.0.0/16"}
POSTURES = {
    "posture:mac": ("node:os == 'macos'",),
    "posture:high": ("custom:level >= 1",),
    "posture:one": ("custom:level == 1", "ip:country != 'FR'"),
    "posture:new": ("custom:level NOT SET", "ip:country IN ['DE', 'FR']"),
}
PORTS = ("*", "22", "80,443", "100-200")
Document = dict[str, Any]


@dataclass
class World:
    """A tailnet that changes."""

    users: dict[UserID, User] = field(default_factory=dict)
    nodes: dict[NodeID, Node] = field(default_factory=dict)
    roles: dict[UserID, Role] = field(default_factory=dict)
    next_id: int = 1

    @property
    def background(self) -> Background:
        """What the policy depends on besides records."""
        return Background(domains=frozenset({"example.com"}), roles=dict(self.roles))


def node(
    number: int,
    *,
    user: UserID | None = None,
    tags: tuple[str, ...] = (),
    routes: tuple[str, ...] = (),
    os: str = "linux",
    address: int | None = None,
) -> Node:
    """Give a node; its routes are offered and approved."""
    seed = number.to_bytes(32, "big")
    networks = tuple(ip_network(text) for text in routes)
    at = number if address is None else address
    return Node(
        id=NodeID(number),
        stable_id=f"n{number}",
        machine_key=MachineKey(seed),
        node_key=NodeKey(seed),
        name=f"n{number}",
        hostname=f"n{number}",
        created_at=NOW,
        user_id=None if tags else user,
        tags=tags,
        ipv4=IPv4Address("100.64.0.0") + at,
        ipv6=IPv6Address("fd7a:115c:a1e0::") + at,
        hostinfo=tailcfg.Hostinfo(routable_ips=networks, os=os),
        approved_routes=networks,
    )


def user(number: int, login: str) -> User:
    """Give a user."""
    return User(UserID(number), login.partition("@")[0], NOW, email=login)


def random_node(rng: Random, number: int, world: World) -> Node:
    """Give a node as people have them: most are plain, some route."""
    tags = tuple(sorted(rng.sample(TAGS, rng.randint(1, 2)))) if rng.random() < 0.4 else ()
    routes: tuple[str, ...] = ()
    if rng.random() < 0.35:
        routes = tuple(rng.sample(ROUTES, rng.randint(1, 2)))
    if rng.random() < 0.15:
        routes += EXITS
    owner = rng.choice(sorted(world.users)) if world.users and rng.random() < 0.95 else None
    os = rng.choice(("linux", "macOS", "windows"))
    made = node(number, user=owner, tags=tags, routes=routes, os=os)
    return replace(made, attributes=random_given(rng))


def random_given(rng: Random) -> tuple[Attribute, ...]:
    """Give the attributes of a node; values that Python takes for equal are among them."""
    given = []
    if rng.random() < 0.5:
        given.append(Attribute("custom:level", rng.choice((0, 1, True, 2.5, 3, "3"))))
    if rng.random() < 0.3:
        at = NOW + timedelta(hours=rng.randint(1, 2)) if rng.random() < 0.5 else None
        given.append(Attribute("ip:country", rng.choice(("DE", "FR")), at))
    return tuple(given)


def random_world(rng: Random, size: int) -> World:
    """Give a tailnet of so many nodes."""
    world = World({UserID(n): user(n, login) for n, login in enumerate(LOGINS[:3], 1)})
    world.roles = {UserID(1): Role.OWNER, UserID(2): Role.ADMIN}
    for _ in range(size):
        add_node(rng, world)
    return world


def add_node(rng: Random, world: World) -> NodeID:
    """Let a node join."""
    made = random_node(rng, world.next_id, world)
    world.nodes = {**world.nodes, made.id: made}
    world.next_id += 1
    return made.id


def change(rng: Random, world: World) -> tuple[set[NodeID], set[UserID]]:
    """Change something; give what a caller of ``recompile`` would name."""
    kind = rng.randrange(9)
    if kind == 0 or not world.nodes:
        return {add_node(rng, world)}, set()
    node_id = rng.choice(sorted(world.nodes))
    old = world.nodes[node_id]
    match kind:
        case 1:
            world.nodes = {i: n for i, n in world.nodes.items() if i != node_id}
            return {node_id}, set()
        case 2 | 3:
            made = random_node(rng, node_id, world)
            world.nodes = {**world.nodes, node_id: made}
        case 4:
            address = IPv4Address("100.64.0.0") + rng.randrange(300, 60000)
            world.nodes = {**world.nodes, node_id: replace(old, ipv4=address)}
        case 5 | 6:
            world.nodes = {**world.nodes, node_id: replace(old, attributes=random_given(rng))}
        case 7:
            user_id = rng.choice(sorted(world.users))
            login = rng.choice(LOGINS)
            world.users = {**world.users, user_id: user(user_id, login)}
            return set(), {user_id}
        case _:
            others = {add_node(rng, world) for _ in range(rng.choice((1, 2, 40)))}
            return others, set()
    return {node_id}, set()


def random_document(rng: Random) -> Document:
    """Write a policy that is valid whatever the dice say."""
    document: Document = {
        "groups": {name: rng.sample(LOGINS, rng.randint(0, 3)) for name in GROUPS},
        "tagOwners": {tag: ["autogroup:admin"] for tag in TAGS},
        "hosts": dict(HOSTS),  # whoever gets the document may damage it
        "ipsets": {"ipset:s": ["add 10.1.0.0/16", "remove 10.1.2.0/24", "add h3"]},
        "postures": {name: list(conditions) for name, conditions in POSTURES.items()},
    }
    if rng.random() < 0.8:
        document["acls"] = [random_acl(rng) for _ in range(rng.randint(0, 5))]
    if rng.random() < 0.6:
        document["grants"] = [random_grant(rng) for _ in range(rng.randint(0, 4))]
    if rng.random() < 0.4:
        document["ssh"] = [random_ssh(rng) for _ in range(rng.randint(0, 3))]
    if rng.random() < 0.3:
        document["nodeAttrs"] = [
            {"target": [rng.choice((*TAGS, *GROUPS, "*", "h3"))], "attr": ["funnel"]}
        ]
    return document


def random_source(rng: Random) -> list[str]:
    """Give the sources of a rule."""
    words = (*TAGS, *GROUPS, *LOGINS, *HOSTS, "*", "autogroup:member", "autogroup:tagged")
    words += ("autogroup:admin", "user:*@example.com", "ipset:s", "autogroup:danger-all")
    return rng.sample(words, rng.randint(1, 3))


def random_destination(rng: Random) -> list[str]:
    """Give the destinations of a rule, without ``autogroup:self``."""
    words = (*TAGS, *GROUPS, *LOGINS, *HOSTS, "*", "autogroup:member", "autogroup:tagged")
    words += ("autogroup:internet", "ipset:s", "10.1.0.0/16", "100.64.0.2")
    return rng.sample(words, rng.randint(1, 3))


def random_acl(rng: Random) -> Document:
    """Give an ACL."""
    acl: Document = {"action": "accept"}
    if rng.random() < 0.2:
        words = (*GROUPS, *LOGINS, "autogroup:member", "*")
        acl["src"] = rng.sample(words, 2)
        acl["dst"] = ["autogroup:self:22"]
    else:
        acl["src"] = random_source(rng)
        acl["dst"] = [f"{word}:{rng.choice(PORTS)}" for word in random_destination(rng)]
    if rng.random() < 0.3:
        acl["proto"] = rng.choice(("tcp", "udp"))
    if rng.random() < 0.2:
        acl["srcPosture"] = rng.sample(sorted(POSTURES), rng.randint(1, 2))
    return acl


def random_grant(rng: Random) -> Document:
    """Give a grant: packets, capabilities, or through named routers."""
    grant: Document = {"src": random_source(rng), "dst": random_destination(rng)}
    kind = rng.randrange(4)
    if kind == 0:
        grant["dst"] = [word for word in grant["dst"] if word != "autogroup:internet"] or ["tag:a"]
        grant["app"] = {rng.choice(("tailscale.com/cap/drive", "example.com/cap/x")): [{"v": 1}]}
    if kind == 1:
        grant["dst"] = rng.sample((*HOSTS, "autogroup:internet"), 1)
        grant["via"] = rng.sample(TAGS, rng.randint(1, 2))
    if kind != 0 or rng.random() < 0.5:
        grant["ip"] = rng.sample(("*", "22", "tcp:443", "udp:53", "80-90"), rng.randint(1, 2))
    return grant


def random_ssh(rng: Random) -> Document:
    """Give an SSH rule."""
    logins = ("root", "autogroup:nonroot", "localpart:*@example.com", "web", "ann")
    rule: Document = {"action": "accept", "users": rng.sample(logins, rng.randint(1, 2))}
    if rng.random() < 0.5:
        rule["action"] = "check"
        if rng.random() < 0.5:
            rule["checkPeriod"] = rng.choice(("1h", "20m", "always"))
    if rng.random() < 0.2:
        rule["srcPosture"] = ["posture:mac"]
    if rng.random() < 0.2:
        rule["recorder"] = [rng.choice(TAGS)]
        rule["enforceRecorder"] = rng.random() < 0.5
    people = (*GROUPS, *LOGINS, "autogroup:member", "autogroup:admin", "user:*@example.com")
    if rng.random() < 0.4:
        dst = ["autogroup:self"] if rng.random() < 0.7 else ["autogroup:self", rng.choice(TAGS)]
        return {**rule, "src": rng.sample(people, 2), "dst": dst}
    if rng.random() < 0.2:
        return {**rule, "src": rng.sample(people, 2), "dst": ["autogroup:member"]}
    words = (*people, *TAGS, "autogroup:tagged")
    dst = [rng.choice((*TAGS, "autogroup:tagged"))]
    return {**rule, "src": rng.sample(words, 2), "dst": dst}


def read(document: Mapping[str, Any]) -> Policy:
    """Decode a document."""
    return decode(json.dumps(document), domains=frozenset({"example.com"}))
