"""A tailnet as a JSON text with just what policies look at, for checks without a server.

Holds names, addresses, tags, routes, roles and posture facts; no keys and no secrets. Not a backup.
Sits on ``language`` and ``records``.
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network

import msgspec

from appliance.errors import Invalid
from appliance.policy.text.language import Background
from appliance.records import Attribute, Node, NodeID, Role, User, UserID
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey, NodeKey

VERSION = 1
MAX_BYTES = 64 << 20
"""A tailnet of 5,000 nodes has 2 MB."""
_NEVER = datetime(1, 1, 1, tzinfo=UTC)


class DumpedUser(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A user."""

    id: int
    name: str
    email: str = ""
    role: Role = Role.MEMBER
    guest: bool = False
    provider: str = ""
    groups: tuple[str, ...] = ()


class DumpedNode(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """A node; ``offered`` and ``approved`` are routes, ``attributes`` those that it was given."""

    id: int
    name: str
    user: int | None = None
    tags: tuple[str, ...] = ()
    addresses: tuple[str, ...] = ()
    offered: tuple[str, ...] = ()
    approved: tuple[str, ...] = ()
    os: str = ""
    os_version: str = ""
    version: str = ""
    auto_update: bool = False
    state_encrypted: bool | None = None
    attributes: dict[str, str | int | float | bool] = {}


class Dump(msgspec.Struct, frozen=True, forbid_unknown_fields=True, omit_defaults=True):
    """The whole text."""

    version: int
    users: tuple[DumpedUser, ...] = ()
    nodes: tuple[DumpedNode, ...] = ()
    domains: tuple[str, ...] = ()
    providers: tuple[str, ...] = ()
    services: dict[str, tuple[str, ...]] = {}


def encode(
    users: Mapping[UserID, User], nodes: Mapping[NodeID, Node], background: Background
) -> bytes:
    """Write the text."""
    dump = Dump(
        version=VERSION,
        users=tuple(
            DumpedUser(
                id=user.id,
                name=user.name,
                email=user.email,
                role=background.roles.get(user.id, Role.MEMBER),
                guest=user.id in background.guests,
                provider=user.provider,
                groups=user.groups,
            )
            for user in users.values()
        ),
        nodes=tuple(_dumped(node) for node in nodes.values()),
        domains=tuple(sorted(background.domains)),
        providers=tuple(sorted(background.providers)),
        services={
            name: tuple(str(address) for address in addresses)
            for name, addresses in background.services.items()
        },
    )
    return msgspec.json.format(msgspec.json.encode(dump), indent=1) + b"\n"


def _dumped(node: Node) -> DumpedNode:
    hostinfo = node.hostinfo
    return DumpedNode(
        id=node.id,
        name=node.name,
        user=node.user_id,
        tags=node.tags,
        addresses=tuple(str(address) for address in node.addresses),
        offered=tuple(str(route) for route in hostinfo.routable_ips),
        approved=tuple(str(route) for route in node.approved_routes),
        os=hostinfo.os,
        os_version=hostinfo.os_version,
        version=hostinfo.ipn_version,
        auto_update=hostinfo.allows_update,
        state_encrypted=hostinfo.state_encrypted,
        attributes={each.name: each.value for each in node.attributes},
    )


def decode(data: bytes) -> tuple[dict[UserID, User], dict[NodeID, Node], Background]:
    """Read the text. Raises Invalid."""
    if len(data) > MAX_BYTES:
        raise Invalid("dump-unreadable", f"the dump is longer than {MAX_BYTES} bytes")
    try:
        dump = msgspec.json.decode(data, type=Dump)
        if dump.version != VERSION:
            sentence = f"the dump is of version {dump.version}, this program reads {VERSION}"
            raise Invalid("dump-unreadable", sentence)
        nodes = {NodeID(each.id): _node(each) for each in dump.nodes}
        services = {
            name: tuple(ip_address(text) for text in texts) for name, texts in dump.services.items()
        }
    except (msgspec.MsgspecError, ValueError, OverflowError) as error:
        raise Invalid("dump-unreadable", f"this is no dump of a tailnet: {error}") from error
    users = {
        UserID(each.id): User(
            UserID(each.id),
            each.name,
            _NEVER,
            email=each.email,
            provider=each.provider,
            groups=each.groups,
        )
        for each in dump.users
    }
    background = Background(
        domains=frozenset(dump.domains),
        providers=frozenset(dump.providers),
        roles={UserID(each.id): each.role for each in dump.users if each.role is not Role.MEMBER},
        guests=frozenset(UserID(each.id) for each in dump.users if each.guest),
        services=services,
    )
    return users, nodes, background


def _node(each: DumpedNode) -> Node:
    addresses = [ip_address(text) for text in each.addresses]
    # Keys are no part of a dump, and no policy looks at them.
    seed = each.id.to_bytes(32, "big", signed=True)
    return Node(
        id=NodeID(each.id),
        stable_id=f"n{each.id}",
        machine_key=MachineKey(seed),
        node_key=NodeKey(seed),
        name=each.name,
        hostname=each.name,
        created_at=_NEVER,
        user_id=None if each.user is None else UserID(each.user),
        tags=each.tags,
        ipv4=next((a for a in addresses if isinstance(a, IPv4Address)), None),
        ipv6=next((a for a in addresses if isinstance(a, IPv6Address)), None),
        hostinfo=tailcfg.Hostinfo(
            os=each.os,
            os_version=each.os_version,
            ipn_version=each.version,
            allows_update=each.auto_update,
            state_encrypted=each.state_encrypted,
            routable_ips=tuple(ip_network(text) for text in each.offered),
        ),
        approved_routes=tuple(ip_network(text) for text in each.approved),
        attributes=tuple(Attribute(*item) for item in sorted(each.attributes.items())),
    )
