"""What a client of each band is told, as readable files to look at and to compare with.

The files are of our own making: ``HEADWATER_REGENERATE=1 pytest tests/netmap/test_golden.py``
writes them anew; look at the difference before you keep it.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from ipaddress import ip_network
from pathlib import Path

import pytest

from appliance import netmap
from appliance.netmap.capver import Band
from appliance.policy.engine.compile import Compiled, Sight
from appliance.records import Node, NodeID, Presence, Role, Settings, User, UserID
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey, MachineKey, NodeKey
from tests.netmap.tailnets import IPV4_BASE, IPV6_BASE, SERVICES, empty_tailnet

FOLDER = Path(__file__).parent.parent / "vectors" / "netmap"
NEWEST = 148
LAPTOP, PHONE, WEB, OLD, NEW = map(NodeID, range(1, 6))
ALICE, BOB, CAROL = map(UserID, range(1, 4))
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ONLINE = Presence(online=True, sessions=1, online_since=NOW - timedelta(hours=1))


@pytest.mark.parametrize("of", list(Band), ids=lambda of: f"from-{of:03}")
def test_full_map(of: Band) -> None:
    compare(f"full-from-{of:03}.json", plain(netmap.full(home(), LAPTOP, of, NOW)))


def test_story_of_deltas() -> None:
    told = [
        {"what": what, "messages": [plain(m) for m in netmap.delta(old, new, LAPTOP, NEWEST)]}
        for what, old, new in story()
    ]
    compare("deltas-newest.json", told)


def story() -> Iterator[tuple[str, Snapshot, Snapshot]]:
    """Give what happens, one thing after the other."""
    snapshot = home()
    for what, act in STORY:
        edit = Edit(snapshot, Sequences())
        act(edit)
        old, snapshot = snapshot, edit.finish()[0]
        yield what, old, snapshot


def put(node_id: NodeID, **fields: object) -> Callable[[Edit], None]:
    return lambda edit: edit.put(replace(edit.nodes[node_id], **fields))  # type: ignore[arg-type]  # real names


def presence(node_id: NodeID, presence: Presence) -> Callable[[Edit], None]:
    return lambda edit: edit.set_presence(node_id, presence)


def settings(**fields: object) -> Callable[[Edit], None]:
    return lambda edit: edit.set_settings(replace(edit.settings, **fields))  # type: ignore[arg-type]  # real names


def join(edit: Edit) -> None:
    edit.put(User(CAROL, "carol", NOW))
    edit.put(node(NEW, "tablet", CAROL))


def see(*nodes: NodeID) -> Callable[[Edit], None]:
    return lambda edit: edit.set_compiled(Compiled(default_sight=Sight(frozenset(nodes))))


STORY: list[tuple[str, Callable[[Edit], None]]] = [
    ("the phone comes online", presence(PHONE, ONLINE)),
    ("its endpoints change", put(PHONE, endpoints=(tailcfg.AddrPort.parse("192.0.2.9:7"),))),
    ("its endpoints are unknown", put(PHONE, endpoints=())),
    ("it opens a second session", presence(PHONE, replace(ONLINE, sessions=2))),
    ("it goes offline", presence(PHONE, Presence(last_seen=NOW))),
    ("its home relay is unknown: it is removed, and told again", put(PHONE, home_derp=0)),
    ("its key rotates", put(PHONE, node_key=NodeKey(b"K" * 32), expires_at=NOW)),
    ("its key never expires", put(PHONE, expires_at=None)),
    ("its key expires", presence(PHONE, Presence(last_seen=NOW, expired=True))),
    ("web serves no routes any more", put(WEB, approved_routes=())),
    ("bob takes the tagged node", put(WEB, tags=(), user_id=BOB)),
    ("bob shows his face", lambda edit: edit.put(replace(edit.users[BOB], display_name="Bob B."))),
    ("carol joins with a tablet", join),
    ("the laptop, which looks on, is renamed", put(LAPTOP, name="desk")),
    ("the laptop roams", put(LAPTOP, endpoints=())),
    ("the old node is deleted", lambda edit: edit.drop(edit.nodes[OLD])),
    (
        "alice hands her tailnet over, and is an administrator of it",
        lambda edit: edit.put(replace(edit.users[ALICE], role=Role.ADMIN)),
    ),
    (
        "alice is a member",
        lambda edit: edit.put(replace(edit.users[ALICE], role=Role.MEMBER)),
    ),
    ("file sharing ends", settings(file_sharing=False)),
    ("MagicDNS ends", settings(magic_dns=False)),
    ("all relays go", settings(derp_map=tailcfg.DERPMap())),
    ("the policy hides all but the phone", see(PHONE)),
    ("the policy hides the last peer", see()),
    (
        "the policy lets nothing in",
        lambda edit: edit.set_compiled(
            Compiled(default_sight=edit.compiled.default_sight, default_filter=())
        ),
    ),
    ("an unrelated user comes", lambda edit: edit.put(User(UserID(9), "dave", NOW))),
]


def home() -> Snapshot:
    """Make a small tailnet that has a bit of everything."""
    edit = Edit(empty_tailnet(), Sequences())
    alice = User(ALICE, "alice", NOW, email="alice@example.org", display_name="Zoë <Alice>")
    edit.put(replace(alice, role=Role.OWNER))
    edit.put(User(BOB, "bob", NOW, profile_pic_url="https://example.org/bob.png"))
    edit.put(replace(node(LAPTOP, "laptop", ALICE), expires_at=NOW + timedelta(days=180)))
    edit.put(node(PHONE, "phone", ALICE))
    routes = tuple(map(ip_network, ("0.0.0.0/0", "10.0.0.0/8", "::/0")))
    web = replace(node(WEB, "web", None), tags=("tag:web",), approved_routes=routes)
    edit.put(replace(web, hostinfo=tailcfg.Hostinfo(os="linux", routable_ips=routes)))
    edit.put(replace(node(OLD, "old", BOB), disco_key=None, endpoints=(), home_derp=0, capver=113))
    edit.set_presence(LAPTOP, ONLINE)
    edit.set_presence(PHONE, Presence(last_seen=NOW))
    edit.set_presence(WEB, ONLINE)
    edit.set_presence(OLD, Presence(last_seen=NOW, expired=True))
    edit.set_settings(
        Settings(
            nameservers=("9.9.9.9",),
            split_dns=(("corp.example.", ("10.0.0.53",)),),
            search_domains=("example.org",),
            extra_records=(tailcfg.DNSRecord(name="nas.example.org", value="10.0.0.9"),),
            derp_map=tailcfg.DERPMap(
                regions={
                    900: tailcfg.DERPRegion(
                        region_id=900,
                        region_code="home",
                        region_name="Home",
                        nodes=(
                            tailcfg.DERPNode(
                                name="900a", region_id=900, host_name="relay.example.net"
                            ),
                        ),
                    ),
                    901: tailcfg.DERPRegion(
                        region_id=901, region_code="spare", no_measure_no_home=True
                    ),
                },
                omit_default_regions=True,
            ),
        )
    )
    return edit.finish()[0]


def node(node_id: NodeID, name: str, owner: UserID | None) -> Node:
    return Node(
        id=node_id,
        stable_id=f"n{node_id}",
        machine_key=MachineKey(bytes([16 + node_id]) * 32),
        node_key=NodeKey(bytes([32 + node_id]) * 32),
        disco_key=DiscoKey(bytes([48 + node_id]) * 32),
        name=name,
        hostname=name,
        created_at=NOW - timedelta(days=node_id),
        user_id=owner,
        ipv4=IPV4_BASE + node_id,
        ipv6=IPV6_BASE + node_id,
        endpoints=(tailcfg.AddrPort.parse(f"192.0.2.{node_id}:41641"),),
        home_derp=900,
        capver=142,
        hostinfo=tailcfg.Hostinfo(
            os="linux", hostname=name, ipn_version="1.102.4", services=SERVICES
        ),
    )


def plain(message: tailcfg.MapResponse) -> object:
    """Give a message as its reader's JSON library sees it."""
    value: object = json.loads(tailcfg.encode(message))
    return value


def compare(name: str, value: object) -> None:
    """Compare with the file of this name, or write it."""
    text = json.dumps(value, indent=1, ensure_ascii=False) + "\n"
    path = FOLDER / name
    if os.environ.get("HEADWATER_REGENERATE"):
        path.parent.mkdir(exist_ok=True)
        path.write_text(text, encoding="utf-8")
    assert text == path.read_text(encoding="utf-8")
