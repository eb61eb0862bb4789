"""Snapshots from a small text: ``alice: laptop* phone; bob: desk; tag:web,tag:db: srv1``.

Owners are user names or tags; nodes follow, separated by spaces. Nodes get ids, keys and addresses
in the order of the text: the first is node 1 with 100.64.0.1. A name that comes again gets a number
(``pc pc`` are pc and pc-1), and keys follow from the name with its number. Marks behind a node's name, in any
order, each with an optional value::

    laptop*                   online, with one map session
    laptop!                   its key has expired
    laptop~                   ephemeral
    laptop(derp=2)            home DERP region
    laptop(routes=10.0.0.0/24+0.0.0.0/0)      routes offered and approved
    laptop(offers=10.0.0.0/24)                routes offered only
    laptop(cap=120)           capability version
    laptop(on=phone)          on the same machine as the node phone, named earlier

Values are joined with commas inside the brackets: ``laptop*(derp=2,cap=120)``.
"""

from __future__ import annotations

import hashlib
import json
import re
from dataclasses import replace
from datetime import datetime, timedelta
from ipaddress import ip_network
from random import Random

from appliance.policy.answers.admission import admit
from appliance.records import (
    AuthKey,
    Network,
    Node,
    NodeID,
    Presence,
    Settings,
    Tailnet,
    TailnetID,
    User,
    UserID,
)
from appliance.tailnet import addresses, keys, names, policies, routes
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey, MachineKey, NodeKey
from tests.support.clock import NOON, fixed_rng

_NODE = re.compile(r"(?P<name>[a-z0-9-]+)(?P<flags>[*!~]*)(?:\((?P<values>[^)]*)\))?")


def machine_key(seed: str) -> MachineKey:
    """Give the machine key that belongs to a name."""
    return MachineKey(_bytes("machine", seed))


def node_key(seed: str) -> NodeKey:
    """Give the node key that belongs to a name."""
    return NodeKey(_bytes("node", seed))


def disco_key(seed: str) -> DiscoKey:
    """Give the disco key that belongs to a name."""
    return DiscoKey(_bytes("disco", seed))


def empty(
    settings: Settings | None = None, *, tailnet_id: int = 1, domain: str = "tail.example"
) -> Snapshot:
    """Give a tailnet with nothing in it."""
    tailnet = Tailnet(TailnetID(tailnet_id), f"tailnet{tailnet_id}", domain, NOON)
    return Snapshot(tailnet, settings=settings or Settings())


def build(
    text: str = "",
    *,
    settings: Settings | None = None,
    ids: Sequences | None = None,
    now: datetime = NOON,
    tailnet_id: int = 1,
) -> Snapshot:
    """Make a snapshot from the text language above."""
    edit = Edit(empty(settings, tailnet_id=tailnet_id), ids or Sequences())
    extend(edit, text, now=now)
    return edit.finish()[0]


def extend(edit: Edit, text: str, *, now: datetime = NOON) -> None:
    """Put the users and nodes of a text into a draft."""
    rng = fixed_rng()
    for clause in text.split(";"):
        if not clause.strip():
            continue
        owner, _, words = clause.rpartition(": ") if ": " in clause else (clause, "", "")
        owner = owner.strip().rstrip(":")
        tags = tuple(sorted(owner.split(","))) if owner.startswith("tag:") else ()
        user = None if tags else user_named(edit, owner, now=now)
        for word in words.split():
            _add_node(edit, word, user, tags, now, rng)


def edit_of(snapshot: Snapshot, ids: Sequences | None = None) -> Edit:
    """Draft a change of a snapshot; new ids follow those in it."""
    return Edit(snapshot, ids or sequences_after(snapshot))


def sequences_after(*snapshots: Snapshot) -> Sequences:
    """Give counters that continue behind the ids that are used."""
    return Sequences(
        tailnet=max(s.tailnet.id for s in snapshots),
        user=max((i for s in snapshots for i in s.users), default=0),
        node=max((i for s in snapshots for i in s.nodes), default=0),
        auth_key=max((i for s in snapshots for i in s.auth_keys), default=0),
    )


def node_named(state: Snapshot | Edit, name: str) -> Node:
    """Give the node with a label."""
    return state.nodes[state.by_name[name]]


def user_named(edit: Edit, name: str, *, now: datetime = NOON) -> User:
    """Give the user with a name; make it if there is none."""
    for user in edit.users.values():
        if user.name == name:
            return user
    user = User(id=edit.ids.next_user(), name=name, created_at=now)
    edit.put(user)
    return user


def define_tags(edit: Edit, *names: str) -> None:
    """Put a policy in force that defines these tags and lets nothing through."""
    text = json.dumps({"tagOwners": {name: [] for name in names}})
    admitted = admit(text, edit.users, edit.nodes, policies.background(edit))
    policies.replace_policy(edit, admitted, NOON, source="database", by="test")


def key_for(
    edit: Edit,
    owner: str,
    *,
    reusable: bool = False,
    ephemeral: bool = False,
    expires_at: datetime | None = None,
    now: datetime = NOON,
    seed: int = 1,
) -> tuple[AuthKey, str]:
    """Make an auth key for ``alice``, for ``tag:web,tag:db``, or for ``alice+tag:web``."""
    name, _, tag_text = owner.partition("+") if "+" in owner else ("", "", owner)
    if not owner.startswith("tag:") and not name:
        name, tag_text = owner, ""
    user_id: UserID | None = user_named(edit, name, now=now).id if name else None
    return keys.create_auth_key(
        edit,
        user_id=user_id,
        tags=tuple(t for t in tag_text.split(",") if t),
        reusable=reusable,
        ephemeral=ephemeral,
        expires_at=expires_at,
        now=now,
        random_bytes=Random(seed).randbytes,
    )


def _add_node(
    edit: Edit, word: str, user: User | None, tags: tuple[str, ...], now: datetime, rng: Random
) -> None:
    match = _NODE.fullmatch(word)
    if match is None:
        raise ValueError(f"{word!r} is no node: see the language in tests/support/builder.py")
    name, flags = match["name"], match["flags"]
    values = dict(v.split("=", 1) for v in (match["values"] or "").split(",") if v)
    approved = _networks(values.get("routes", ""))
    offered = approved + _networks(values.get("offers", ""))
    label = names.choose(edit, name)
    machine = machine_key(label)
    if "on" in values:
        machine = node_named(edit, values["on"]).machine_key
    node_id: NodeID = edit.ids.next_node()
    node = Node(
        id=node_id,
        stable_id=str(node_id),
        machine_key=machine,
        node_key=node_key(label),
        name=label,
        hostname=name,
        created_at=now,
        user_id=None if user is None else user.id,
        tags=tags,
        disco_key=disco_key(label),
        hostinfo=tailcfg.Hostinfo(hostname=name, os="linux", routable_ips=offered),
        endpoints=(tailcfg.AddrPort.parse(f"192.0.2.{node_id % 250}:41641"),),
        home_derp=int(values.get("derp", "1")),
        capver=int(values.get("cap", "130")),
        ephemeral="~" in flags,
        approved_routes=routes.check_approved(approved),
    )
    if "!" in flags:
        node = replace(node, expires_at=now - timedelta(hours=1))
    edit.put(addresses.assign(edit, node, rng))
    online = "*" in flags
    edit.set_presence(node_id, Presence(online=online, sessions=int(online), expired="!" in flags))


def _networks(text: str) -> tuple[Network, ...]:
    return tuple(ip_network(part) for part in text.split("+") if part)


def _bytes(kind: str, seed: str) -> bytes:
    return hashlib.blake2s(f"{kind} {seed}".encode()).digest()
