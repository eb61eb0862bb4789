"""Random tailnets and random edits of them, for the law and for the encoder's equivalence.

Everything comes from one ``Random``, so that a seed is a case. Values are drawn from small pools
with the empty ones among them: what matters is that fields come, change and go.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import IPv4Address, IPv6Address, ip_network
from random import Random

from appliance.policy.engine.compile import EVERYONE, OPEN, Compiled, Sight
from appliance.records import (
    AuthKey,
    Network,
    Node,
    NodeID,
    Presence,
    Role,
    Settings,
    Tailnet,
    TailnetID,
    User,
    UserID,
)
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey, LockKey, MachineKey, NodeKey
from tests.policy.worlds import random_given

START = datetime(2026, 1, 1, tzinfo=UTC)
IPV4_BASE = IPv4Address("100.64.0.0")
IPV6_BASE = IPv6Address("fd7a:115c:a1e0::")
CAPVERS = (113, 116, 130, 142, 145, 148)
"""One or two of each band of ``netmap.capver``, with 1.98 to 1.102, which overlook some patches."""

ROUTES: tuple[Network, ...] = tuple(
    ip_network(text)
    for text in ("10.0.0.0/8", "192.168.7.0/24", "fd00:7::/64", "0.0.0.0/0", "::/0")
)
ENDPOINTS = tuple(
    tailcfg.AddrPort.parse(text)
    for text in ("203.0.113.7:41641", "192.168.7.9:41641", "[2001:db8::7]:41641", "10.1.2.3:7")
)
SERVICES = (
    tailcfg.Service(proto="peerapi4", port=40001),
    tailcfg.Service(proto="peerapi6", port=40002),
    tailcfg.Service(proto="peerapi-dns-proxy", port=1),
    tailcfg.Service(proto="tcp", port=22, description="sshd"),
)
DERP_MAPS = (
    tailcfg.DERPMap(),
    tailcfg.DERPMap(
        regions={900: tailcfg.DERPRegion(region_id=900, region_code="a", no_measure_no_home=True)},
        omit_default_regions=True,
    ),
    tailcfg.DERPMap(
        home_params=tailcfg.DERPHomeParams(region_score={900: 0.5}),
        regions={
            900: tailcfg.DERPRegion(
                region_id=900,
                region_code="a",
                region_name="A",
                nodes=(tailcfg.DERPNode(name="900a", region_id=900, host_name="a.example.net"),),
            ),
            901: tailcfg.DERPRegion(region_id=901, region_code="b", avoid=True),
        },
    ),
    tailcfg.DERPMap(home_params=tailcfg.DERPHomeParams()),
)
NAMESERVERS = (
    (),
    ("1.1.1.1",),
    ("9.9.9.9", "https://dns.nextdns.io/abc"),
    ("https://dns.nextdns.io/def?device_name=all&x=1", "https://dns.nextdns.io.example/abc"),
)
SPLIT_DNS: tuple[tuple[tuple[str, tuple[str, ...]], ...], ...] = (
    (),
    (("corp.example.", ("10.0.0.53",)),),
    (("corp.example.", ("https://dns.nextdns.io/abc", "10.0.0.53")), ("lab.example", ("::1",))),
)
RULES = tuple(
    tailcfg.FilterRule(
        src_ips=(source,),
        dst_ports=(tailcfg.NetPortRange(ip="*", ports=tailcfg.PortRange(first=22, last=last)),),
    )
    for source, last in (("*", 22), ("100.64.0.1", 80), ("10.0.0.0/8", 65535))
)


def empty_tailnet() -> Snapshot:
    """Make a tailnet without nodes."""
    return Snapshot(tailnet=Tailnet(TailnetID(1), "example", "example.net", START))


def make_node(number: int, rng: Random, **fields: object) -> Node:
    """Make a node with the addresses and name of its number, and what ``fields`` say."""
    plain = Node(
        id=NodeID(number),
        stable_id=f"s{number}",
        machine_key=MachineKey(rng.randbytes(32)),
        node_key=NodeKey(rng.randbytes(32)),
        name=f"node-{number}",
        hostname=f"node-{number}",
        created_at=START + timedelta(seconds=number),
        ipv4=IPV4_BASE + number,
        ipv6=IPV6_BASE + number,
    )
    return replace(plain, **fields)  # type: ignore[arg-type]  # callers name real fields


def random_tailnet(rng: Random, size: int) -> Snapshot:
    """Make a tailnet of some users and ``size`` nodes with random fields."""
    edit = Edit(empty_tailnet(), Sequences())
    for _ in range(rng.randint(1, 3)):
        add_user(rng, edit)
    for _ in range(size):
        add_node(rng, edit)
    for _ in range(rng.randint(0, size)):
        change_presence(rng, edit)
    if rng.random() < 0.5:
        change_policy(rng, edit)
    if rng.random() < 0.5:
        change_settings(rng, edit)
    return edit.finish()[0]


def random_step(rng: Random, snapshot: Snapshot, ids: Sequences) -> Snapshot:
    """Give a next version: one edit or a few at once."""
    edit = Edit(snapshot, ids)
    for _ in range(rng.choice((1, 1, 1, 2, 5))):
        change = rng.choices(CHANGES, WEIGHTS)[0]
        change(rng, edit)
    return edit.finish()[0]


def add_user(rng: Random, edit: Edit) -> None:
    """Add a user."""
    number = edit.ids.next_user()
    edit.put(User(number, f"user{number}", START, email=rng.choice(("", f"u{number}@x.org"))))


def change_user(rng: Random, edit: Edit) -> None:
    """Change how a user looks, or something that nobody sees."""
    if edit.users:
        user = rng.choice(list(edit.users.values()))
        edit.put(
            replace(
                user,
                display_name=rng.choice(("", "Ada", "Zoë")),
                email=rng.choice((user.email, "", "ada@example.org")),
                profile_pic_url=rng.choice(("", "https://example.org/ada.png")),
                issuer=rng.choice(("", "sub-1")),
                role=rng.choice((Role.MEMBER, Role.ADMIN, Role.OWNER)),
            )
        )


def drop_user(rng: Random, edit: Edit) -> None:
    """Drop a user who has no nodes."""
    owners = {node.user_id for node in edit.nodes.values()}
    free = [user for user in edit.users.values() if user.id not in owners]
    if len(edit.users) > 1 and free:
        edit.drop(rng.choice(free))


def add_node(rng: Random, edit: Edit) -> None:
    """Add a node; now and then with an id below others, as no server does."""
    number = edit.ids.next_node()
    if rng.random() < 0.1 and number > 3:
        number = NodeID(rng.randint(1, number - 1))
        if number in edit.nodes:
            return
    edit.put(_vary(rng, edit, make_node(number, rng), share=0.6))


def change_node(rng: Random, edit: Edit) -> None:
    """Change one field of a node or many."""
    if edit.nodes:
        node = rng.choice(list(edit.nodes.values()))
        edit.put(_vary(rng, edit, node, share=rng.choice((0, 0, 0.1, 0.5))))


def drop_node(rng: Random, edit: Edit) -> None:
    """Drop a node."""
    if edit.nodes:
        edit.drop(rng.choice(list(edit.nodes.values())))


def change_presence(rng: Random, edit: Edit) -> None:
    """Let a node come, go, expire, or only open another session."""
    if edit.nodes:
        node_id = rng.choice(list(edit.nodes))
        seen = (None, START, START + timedelta(minutes=rng.randint(0, 9), microseconds=7))
        edit.set_presence(
            node_id,
            Presence(
                online=rng.random() < 0.5,
                sessions=rng.randint(0, 2),
                last_seen=rng.choice(seen),
                expired=rng.random() < 0.15,
                online_since=rng.choice(seen),
            ),
        )


def change_policy(rng: Random, edit: Edit) -> None:
    """Take another compiled policy, or the same in a new object."""
    if rng.random() < 0.2:
        edit.set_compiled(rng.choice((OPEN, Compiled())))
        return
    known = [*edit.nodes, NodeID(99_999)]

    def sight() -> Sight:
        if rng.random() < 0.3:
            return EVERYONE
        return Sight(frozenset(rng.sample(known, rng.randint(0, len(known)))))

    def rules() -> tuple[tailcfg.FilterRule, ...]:
        return tuple(rng.sample(RULES, rng.randint(0, len(RULES))))

    sights = [sight() for _ in range(3)]
    edit.set_compiled(
        Compiled(
            default_sight=rng.choice((edit.compiled.default_sight, *sights)),
            sights={node_id: rng.choice(sights) for node_id in known if rng.random() < 0.5},
            default_filter=rng.choice((edit.compiled.default_filter, rules())),
            filters={node_id: rules() for node_id in known if rng.random() < 0.3},
        )
    )


def change_settings(rng: Random, edit: Edit) -> None:
    """Take other settings."""
    edit.set_settings(
        Settings(
            magic_dns=rng.random() < 0.8,
            override_local_dns=rng.random() < 0.5,
            nameservers=rng.choice(NAMESERVERS),
            split_dns=rng.choice(SPLIT_DNS),
            search_domains=rng.choice(((), ("example.org",))),
            extra_records=rng.choice(
                (
                    (),
                    (tailcfg.DNSRecord(name="nas.example.org", value="10.0.0.9"),),
                    (tailcfg.DNSRecord(name="nas.example.net.", type="AAAA", value="fd00::9"),),
                )
            ),
            derp_map=rng.choice(DERP_MAPS),
            file_sharing=rng.random() < 0.7,
            disable_logs=rng.random() < 0.7,
            key_expiry=rng.choice((None, timedelta(days=1))),
        )
    )


def rename_tailnet(rng: Random, edit: Edit) -> None:
    """Give the tailnet another MagicDNS suffix."""
    edit.put(replace(edit.tailnet, domain=rng.choice(("example.net", "tail.example.org"))))


def add_auth_key(rng: Random, edit: Edit) -> None:
    """Add an auth key, which no node is told."""
    number = edit.ids.next_auth_key()
    edit.put(AuthKey(number, f"prefix{number}", "hash", START, tags=rng.choice(((), ("tag:x",)))))


Change = Callable[[Random, Edit], None]
CHANGES: tuple[Change, ...] = (
    change_node,
    change_presence,
    add_node,
    drop_node,
    change_policy,
    change_settings,
    change_user,
    add_user,
    drop_user,
    rename_tailnet,
    add_auth_key,
)
WEIGHTS = (30, 20, 8, 6, 8, 5, 5, 3, 2, 3, 1)


def _vary(rng: Random, edit: Edit, node: Node, share: float) -> Node:
    """Give the node with about ``share`` of its fields drawn anew; 0: with just one."""
    fields: dict[str, Callable[[], object]] = {
        "node_key": lambda: NodeKey(rng.randbytes(32)),
        "machine_key": lambda: MachineKey(rng.randbytes(32)),
        "disco_key": lambda: rng.choice((None, DiscoKey(rng.randbytes(32)))),
        "name": lambda: f"name-{node.id}-{rng.randint(0, 1)}",
        "hostname": lambda: rng.choice(("box", "other")),
        "ipv4": lambda: rng.choice((None, IPV4_BASE + node.id, IPV4_BASE + 1000 + node.id)),
        "hostinfo": lambda: _hostinfo(rng),
        "net_info": lambda: rng.choice((None, tailcfg.NetInfo(preferred_derp=rng.randint(0, 9)))),
        "endpoints": lambda: tuple(rng.sample(ENDPOINTS, rng.randint(0, 3))),
        "home_derp": lambda: rng.choice((0, 900, 901)),
        "capver": lambda: rng.choice((0, 113, 148)),
        "expires_at": lambda: rng.choice((None, START + timedelta(days=rng.randint(1, 2)))),
        "ephemeral": lambda: rng.random() < 0.5,
        "approved_routes": lambda: tuple(rng.sample(ROUTES, rng.randint(0, 3))),
        "lock_key": lambda: rng.choice((None, LockKey(rng.randbytes(32)))),
        "key_signature": lambda: rng.choice((b"", rng.randbytes(8))),
        "attributes": lambda: random_given(rng),
        "owner": lambda: None,
    }
    if share:
        drawn = {name: draw() for name, draw in fields.items() if rng.random() < share}
    else:
        name = rng.choice(list(fields))
        drawn = {name: fields[name]()}
    if "owner" in drawn or (node.user_id is None and not node.tags):
        drawn.pop("owner", None)
        user: UserID | None = rng.choice((None, *edit.users))
        drawn["user_id"] = user
        drawn["tags"] = ("tag:web",) if user is None else ()
    return replace(node, **drawn)  # type: ignore[arg-type]  # the names above are fields


def _hostinfo(rng: Random) -> tailcfg.Hostinfo:
    return tailcfg.Hostinfo(
        os=rng.choice(("", "linux", "macOS")),
        hostname=rng.choice(("box", "bÖx <&>")),
        routable_ips=tuple(rng.sample(ROUTES, rng.randint(0, 4))),
        request_tags=rng.choice(((), ("tag:web",))),
        services=tuple(rng.sample(SERVICES, rng.randint(0, 3))),
        ssh_host_keys=rng.choice(((), ("ssh-ed25519 AAAA",))),
        app_connector=rng.choice((None, True, False)),
        location=rng.choice((None, tailcfg.Location(country="Chile", latitude=-33.4))),
        sharee_node=rng.random() < 0.1,
        ipn_version=rng.choice(("1.98", "1.104")),
    )
