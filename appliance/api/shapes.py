"""The objects of the API as Structs, and how records become them.

Exactly Headscale's member names and forms: ids are decimal strings, unset times null, lists never
null, every member present. Source: headscale API version 1, 0.27 to 0.30;
what it does not have is shaped as in the hosted service's API.
"""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Annotated

from msgspec import UNSET, Meta, Struct, UnsetType

from appliance import records
from appliance.policy.text.postures import attributes_of
from appliance.tailnet.keys import TEXT_PREFIX
from appliance.tailnet.snapshot import Snapshot
from appliance.wire.keys import DiscoKey

Moment = Annotated[datetime, Meta(tz=True)]
"""A time as the OpenAPI document describes it: RFC 3339, with its zone."""

UNSET_TIME = datetime(1, 1, 1, tzinfo=UTC)
"""What Go's clients read as "no time" where the member must not be null."""

FORCED_TAGS = "0.27"
"""The last release of Headscale that tells apart who gave a tag."""

_METHODS = {
    records.RegisterMethod.AUTH_KEY: "REGISTER_METHOD_AUTH_KEY",
    records.RegisterMethod.CLI: "REGISTER_METHOD_CLI",
    records.RegisterMethod.OIDC: "REGISTER_METHOD_OIDC",
    records.RegisterMethod.SIGN_IN: "REGISTER_METHOD_CLI",  # programs know no other
}


class User(Struct, frozen=True, kw_only=True, rename="camel"):
    """A user."""

    id: str
    name: str
    created_at: Moment
    display_name: str = ""
    email: str = ""
    provider_id: str = ""
    provider: str = ""
    profile_pic_url: str = ""
    role: str | UnsetType = UNSET
    """Ours: only there for users who are more than members, so that others are Headscale's."""


class PreAuthKey(Struct, frozen=True, kw_only=True, rename="camel"):
    """A pre-auth key; ``key`` is whole only in the answer that made it."""

    user: User | None
    id: str
    key: str
    reusable: bool
    ephemeral: bool
    used: bool
    expiration: Moment | None
    created_at: Moment
    acl_tags: tuple[str, ...]


class Node(Struct, frozen=True, kw_only=True, rename="camel"):
    """A node. ``name`` is what the machine calls itself, ``given_name`` its MagicDNS label."""

    id: str
    machine_key: str
    node_key: str
    disco_key: str
    ip_addresses: tuple[str, ...]
    name: str
    user: User | None
    last_seen: Moment | None
    expiry: Moment | None
    pre_auth_key: PreAuthKey | None
    created_at: Moment
    register_method: str
    given_name: str
    online: bool
    approved_routes: tuple[str, ...]
    available_routes: tuple[str, ...]
    subnet_routes: tuple[str, ...]
    tags: tuple[str, ...]
    forced_tags: tuple[str, ...] | UnsetType = UNSET
    """These three are ``tags`` as clients up to 0.27 know them, where the site wants such answers."""
    valid_tags: tuple[str, ...] | UnsetType = UNSET
    invalid_tags: tuple[str, ...] | UnsetType = UNSET
    ephemeral: bool | UnsetType = UNSET
    """Ours: true where the client asked for it itself, and not its key."""


class UserAnswer(Struct, frozen=True, kw_only=True):
    """One user."""

    user: User


class Users(Struct, frozen=True, kw_only=True):
    """Users, by id."""

    users: tuple[User, ...]


class PreAuthKeyAnswer(Struct, frozen=True, kw_only=True, rename="camel"):
    """One pre-auth key."""

    pre_auth_key: PreAuthKey


class PreAuthKeys(Struct, frozen=True, kw_only=True, rename="camel"):
    """Pre-auth keys, by id."""

    pre_auth_keys: tuple[PreAuthKey, ...]


class NodeAnswer(Struct, frozen=True, kw_only=True):
    """One node."""

    node: Node


class Nodes(Struct, frozen=True, kw_only=True):
    """Nodes, by id."""

    nodes: tuple[Node, ...]


class Attributes(Struct, frozen=True, kw_only=True):
    """What is known of a node, by name, and until when. Source: the hosted service's API."""

    attributes: dict[str, records.AttributeValue]
    expiries: dict[str, Moment]


TAGGED = User(id=str(records.TAGGED_USER_ID), name="tagged-devices", created_at=UNSET_TIME)
"""The pseudo user that owns tagged nodes in lists."""


def user(record: records.User) -> User:
    """Show a user."""
    name = record.name or record.email or record.provider_id or str(record.id)
    return User(
        id=str(record.id),
        name=name,
        created_at=record.created_at,
        display_name=record.display_name,
        email=record.email,
        provider_id=record.provider_id,
        provider=record.provider,
        profile_pic_url=record.profile_pic_url,
        role=UNSET if record.role is records.Role.MEMBER else record.role.value,
    )


def pre_auth_key(
    snapshot: Snapshot, record: records.AuthKey, *, text: str = "", in_node: bool = False
) -> PreAuthKey:
    """Show a key: masked, or with its whole text right after it was made."""
    owner = None if record.user_id is None else snapshot.users.get(record.user_id)
    return PreAuthKey(
        user=None if owner is None else user(owner),
        id=str(record.id),
        key=text or f"{TEXT_PREFIX}{record.prefix}-***",
        reusable=record.reusable,
        ephemeral=record.ephemeral,
        used=record.used_at is not None,
        expiration=record.expires_at or (None if in_node else UNSET_TIME),
        created_at=record.created_at,
        acl_tags=record.tags,
    )


def node(snapshot: Snapshot, record: records.Node, *, in_list: bool, release: str = "") -> Node:
    """Show a node; a tagged one has a pseudo user in lists and none on its own."""
    is_old = release == FORCED_TAGS
    presence = snapshot.presence_of(record.id)
    key = None if record.auth_key_id is None else snapshot.auth_keys.get(record.auth_key_id)
    available = record.hostinfo.routable_ips or ()
    approved = record.approved_routes
    return Node(
        id=str(record.id),
        machine_key=str(record.machine_key),
        node_key=str(record.node_key),
        disco_key=str(record.disco_key or DiscoKey.zero()),
        ip_addresses=tuple(str(address) for address in record.addresses),
        name=record.hostname,
        user=_owner(snapshot, record, in_list=in_list),
        last_seen=presence.last_seen or record.created_at,
        expiry=record.expires_at,
        pre_auth_key=None if key is None else pre_auth_key(snapshot, key, in_node=True),
        created_at=record.created_at,
        register_method=_METHODS[record.register_method],
        given_name=record.name,
        online=presence.online,
        approved_routes=tuple(str(route) for route in approved),
        available_routes=tuple(str(route) for route in available),
        subnet_routes=serving(snapshot, record),
        tags=record.tags,
        forced_tags=record.tags if is_old else UNSET,
        valid_tags=() if is_old else UNSET,
        invalid_tags=() if is_old else UNSET,
        ephemeral=(record.ephemeral and not (key is not None and key.ephemeral)) or UNSET,
    )


def attributes(record: records.Node) -> Attributes:
    """Show all that postures can ask of a node."""
    return Attributes(
        attributes=dict(sorted(attributes_of(record).items())),
        expiries={e.name: e.expires_at for e in record.attributes if e.expires_at is not None},
    )


def serving(snapshot: Snapshot, record: records.Node) -> tuple[str, ...]:
    """Give the routes that nodes send to this one: those it was chosen for, and the exit routes."""
    if snapshot.routes is None:
        return ()
    own = snapshot.routes.own(record.id)
    return tuple(str(r) for r in own.allowed if r in own.primary or not r.prefixlen)


def _owner(snapshot: Snapshot, record: records.Node, *, in_list: bool) -> User | None:
    if record.is_tagged or record.user_id is None:
        return TAGGED if in_list else None
    owner = snapshot.users.get(record.user_id)
    return None if owner is None else user(owner)
