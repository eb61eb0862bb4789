"""Records to rows and back: one pair of functions per kind of record.

Rows are dictionaries by column name. What stays structured (hostinfo, endpoints, tags, routes,
attributes) is JSON text, keys and addresses are their own text forms. Not for SQL (``writer``,
``store``).
"""

from __future__ import annotations

import ipaddress
from collections.abc import Mapping
from datetime import datetime
from typing import Any

import msgspec

from appliance.records import (
    ApiKey,
    ApiKeyID,
    Attribute,
    AuditEntry,
    AuthKey,
    AuthKeyID,
    Credential,
    CredentialID,
    CredentialKind,
    Network,
    Node,
    NodeID,
    OAuthClient,
    OAuthClientID,
    PolicyText,
    PolicyTextID,
    RegisterMethod,
    Role,
    Session,
    SessionID,
    SignInMethod,
    Tailnet,
    TailnetID,
    User,
    UserID,
)
from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey, LockKey, MachineKey, NodeKey
from appliance.wire.tailcfg.message import address_text

Row = dict[str, object]
Loaded = Mapping[str, Any]
"""A row as the driver gives it: the column types stand in ``schema``."""

_decode_hostinfo = tailcfg.Decoder(tailcfg.Hostinfo, tailcfg.MAX_REQUEST_BYTES, any_case=False)
_decode_net_info = tailcfg.Decoder(tailcfg.NetInfo, tailcfg.MAX_REQUEST_BYTES, any_case=False)


def tailnet_to_row(tailnet: Tailnet) -> Row:
    """Give the row of a tailnet."""
    return {
        "id": tailnet.id,
        "name": tailnet.name,
        "domain": tailnet.domain,
        "created_at": tailnet.created_at,
    }


def row_to_tailnet(row: Loaded) -> Tailnet:
    """Read a row of ``tailnets``."""
    return Tailnet(
        id=TailnetID(row["id"]),
        name=row["name"],
        domain=row["domain"],
        created_at=row["created_at"],
    )


def audit_entry_to_row(tailnet_id: TailnetID, entry: AuditEntry) -> Row:
    """Give the row of an entry of the audit log; the database numbers it."""
    return {
        "tailnet_id": tailnet_id,
        "at": entry.at,
        "door": entry.door,
        "by": _clean(entry.by),
        "act": entry.act,
        "kind": entry.kind,
        "target": entry.target,
        "name": _clean(entry.name),
        "before": _clean(entry.before),
        "after": _clean(entry.after),
        "reason": _clean(entry.reason),
    }


def row_to_audit_entry(row: Loaded) -> AuditEntry:
    """Read a row of ``audit``."""
    return AuditEntry(
        at=row["at"],
        door=row["door"],
        by=row["by"],
        act=row["act"],
        kind=row["kind"],
        target=row["target"],
        name=row["name"],
        before=row["before"],
        after=row["after"],
        reason=row["reason"],
    )


def user_to_row(tailnet_id: TailnetID, user: User) -> Row:
    """Give the row of a user."""
    return {
        "id": user.id,
        "tailnet_id": tailnet_id,
        "name": _clean(user.name),
        "created_at": user.created_at,
        "display_name": _clean(user.display_name),
        "email": _clean(user.email),
        "profile_pic_url": _clean(user.profile_pic_url),
        "provider": _clean(user.provider),
        "provider_id": _clean(user.provider_id),
        "issuer": _clean(user.issuer),
        "subject": _clean(user.subject),
        "groups": _texts(tuple(_clean(group) for group in user.groups)),
        "role": user.role.value,
    }


def row_to_user(row: Loaded) -> User:
    """Read a row of ``users``."""
    return User(
        id=UserID(row["id"]),
        name=row["name"],
        created_at=row["created_at"],
        display_name=row["display_name"],
        email=row["email"],
        profile_pic_url=row["profile_pic_url"],
        provider=row["provider"],
        issuer=row["issuer"],
        subject=row["subject"],
        groups=_read_texts(row["groups"]),
        role=Role(row["role"]),
    )


def policy_to_row(tailnet_id: TailnetID, policy: PolicyText) -> Row:
    """Give the row of a policy."""
    return {
        "id": policy.id,
        "tailnet_id": tailnet_id,
        "text": policy.text,
        "created_at": policy.created_at,
        "source": policy.source,
        "created_by": _clean(policy.created_by),
    }


def row_to_policy(row: Loaded) -> PolicyText:
    """Read a row of ``policies``."""
    return PolicyText(
        id=PolicyTextID(row["id"]),
        text=row["text"],
        created_at=row["created_at"],
        source=row["source"],
        created_by=row["created_by"],
    )


def auth_key_to_row(tailnet_id: TailnetID, key: AuthKey) -> Row:
    """Give the row of an auth key."""
    return {
        "id": key.id,
        "tailnet_id": tailnet_id,
        "prefix": key.prefix,
        "secret_hash": key.secret_hash,
        "created_at": key.created_at,
        "user_id": key.user_id,
        "tags": _texts(key.tags),
        "reusable": key.reusable,
        "ephemeral": key.ephemeral,
        "expires_at": key.expires_at,
        "used_at": key.used_at,
    }


def row_to_auth_key(row: Loaded) -> AuthKey:
    """Read a row of ``auth_keys``."""
    return AuthKey(
        id=AuthKeyID(row["id"]),
        prefix=row["prefix"],
        secret_hash=row["secret_hash"],
        created_at=row["created_at"],
        user_id=_user_id(row),
        tags=_read_texts(row["tags"]),
        reusable=row["reusable"],
        ephemeral=row["ephemeral"],
        expires_at=row["expires_at"],
        used_at=row["used_at"],
    )


def api_key_to_row(tailnet_id: TailnetID, key: ApiKey) -> Row:
    """Give the row of an API key."""
    return {
        "id": key.id,
        "tailnet_id": tailnet_id,
        "prefix": key.prefix,
        "secret_hash": key.secret_hash,
        "created_at": key.created_at,
        "scopes": _texts(key.scopes),
        "user_id": key.user_id,
        "expires_at": key.expires_at,
        "last_used_at": key.last_used_at,
        "created_by": _clean(key.created_by),
        "description": _clean(key.description),
    }


def row_to_api_key(row: Loaded) -> ApiKey:
    """Read a row of ``api_keys``."""
    return ApiKey(
        id=ApiKeyID(row["id"]),
        prefix=row["prefix"],
        secret_hash=row["secret_hash"],
        created_at=row["created_at"],
        scopes=_read_texts(row["scopes"]),
        user_id=_user_id(row),
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
        created_by=row["created_by"],
        description=row["description"],
    )


def oauth_client_to_row(tailnet_id: TailnetID, client: OAuthClient) -> Row:
    """Give the row of an OAuth client."""
    return {
        "id": client.id,
        "tailnet_id": tailnet_id,
        "prefix": client.prefix,
        "secret_hash": client.secret_hash,
        "created_at": client.created_at,
        "scopes": _texts(client.scopes),
        "tags": _texts(client.tags),
        "user_id": client.user_id,
        "last_used_at": client.last_used_at,
        "created_by": _clean(client.created_by),
        "description": _clean(client.description),
    }


def row_to_oauth_client(row: Loaded) -> OAuthClient:
    """Read a row of ``oauth_clients``."""
    return OAuthClient(
        id=OAuthClientID(row["id"]),
        prefix=row["prefix"],
        secret_hash=row["secret_hash"],
        created_at=row["created_at"],
        scopes=_read_texts(row["scopes"]),
        tags=_read_texts(row["tags"]),
        user_id=_user_id(row),
        last_used_at=row["last_used_at"],
        created_by=row["created_by"],
        description=row["description"],
    )


def session_to_row(tailnet_id: TailnetID, session: Session) -> Row:
    """Give the row of a session."""
    return {
        "id": session.id,
        "tailnet_id": tailnet_id,
        "user_id": session.user_id,
        "secret_hash": session.secret_hash,
        "method": session.method.value,
        "created_at": session.created_at,
        "expires_at": session.expires_at,
        "last_used_at": session.last_used_at,
        "login_expires_at": session.login_expires_at,
        "agent": _clean(session.agent),
        "source": _clean(session.source),
    }


def row_to_session(row: Loaded) -> Session:
    """Read a row of ``sessions``."""
    return Session(
        id=SessionID(row["id"]),
        user_id=UserID(row["user_id"]),
        secret_hash=row["secret_hash"],
        method=SignInMethod(row["method"]),
        created_at=row["created_at"],
        expires_at=row["expires_at"],
        last_used_at=row["last_used_at"],
        login_expires_at=row["login_expires_at"],
        agent=row["agent"],
        source=row["source"],
    )


def credential_to_row(tailnet_id: TailnetID, credential: Credential) -> Row:
    """Give the row of a credential."""
    return {
        "id": credential.id,
        "tailnet_id": tailnet_id,
        "user_id": credential.user_id,
        "kind": credential.kind.value,
        "lookup": credential.lookup,
        "created_at": credential.created_at,
        "name": _clean(credential.name),
        "public_id": credential.public_id,
        "public_key": credential.public_key,
        "sign_count": credential.sign_count,
        "expires_at": credential.expires_at,
        "used_at": credential.used_at,
    }


def row_to_credential(row: Loaded) -> Credential:
    """Read a row of ``credentials``."""
    return Credential(
        id=CredentialID(row["id"]),
        user_id=UserID(row["user_id"]),
        kind=CredentialKind(row["kind"]),
        lookup=row["lookup"],
        created_at=row["created_at"],
        name=row["name"],
        public_id=bytes(row["public_id"]),
        public_key=bytes(row["public_key"]),
        sign_count=row["sign_count"],
        expires_at=row["expires_at"],
        used_at=row["used_at"],
    )


def node_to_row(tailnet_id: TailnetID, node: Node) -> Row:
    """Give the row of a node."""
    return {
        "id": node.id,
        "tailnet_id": tailnet_id,
        "stable_id": node.stable_id,
        "machine_key": str(node.machine_key),
        "node_key": str(node.node_key),
        "name": _clean(node.name),
        "hostname": _clean(node.hostname),
        "created_at": node.created_at,
        "user_id": node.user_id,
        "tags": _texts(node.tags),
        "disco_key": _text_or_none(node.disco_key),
        "ipv4": None if node.ipv4 is None else address_text(node.ipv4),
        "ipv6": None if node.ipv6 is None else address_text(node.ipv6),
        "hostinfo": _json(node.hostinfo),
        "net_info": None if node.net_info is None else _json(node.net_info),
        "endpoints": _texts(node.endpoints),
        "home_derp": node.home_derp,
        "capver": node.capver,
        "expires_at": node.expires_at,
        "ephemeral": node.ephemeral,
        "auth_key_id": node.auth_key_id,
        "register_method": node.register_method.value,
        "name_pinned": node.name_pinned,
        "approved_routes": _texts(node.approved_routes),
        "lock_key": _text_or_none(node.lock_key),
        "key_signature": node.key_signature,
        "attributes": _attributes(node.attributes),
    }


def row_to_node(row: Loaded) -> Node:
    """Read a row of ``nodes``."""
    auth_key_id = row["auth_key_id"]
    disco_key, lock_key = row["disco_key"], row["lock_key"]
    ipv4, ipv6, net_info = row["ipv4"], row["ipv6"], row["net_info"]
    return Node(
        id=NodeID(row["id"]),
        stable_id=row["stable_id"],
        machine_key=MachineKey.parse(row["machine_key"]),
        node_key=NodeKey.parse(row["node_key"]),
        name=row["name"],
        hostname=row["hostname"],
        created_at=row["created_at"],
        user_id=_user_id(row),
        tags=_read_texts(row["tags"]),
        disco_key=None if disco_key is None else DiscoKey.parse(disco_key),
        ipv4=None if ipv4 is None else ipaddress.IPv4Address(ipv4),
        ipv6=None if ipv6 is None else ipaddress.IPv6Address(ipv6),
        hostinfo=_decode_hostinfo(row["hostinfo"].encode()),
        net_info=None if net_info is None else _decode_net_info(net_info.encode()),
        endpoints=tuple(tailcfg.AddrPort.parse(text) for text in _read_texts(row["endpoints"])),
        home_derp=row["home_derp"],
        capver=row["capver"],
        expires_at=row["expires_at"],
        ephemeral=row["ephemeral"],
        auth_key_id=None if auth_key_id is None else AuthKeyID(auth_key_id),
        register_method=RegisterMethod(row["register_method"]),
        name_pinned=row["name_pinned"],
        approved_routes=tuple(_network(text) for text in _read_texts(row["approved_routes"])),
        lock_key=None if lock_key is None else LockKey.parse(lock_key),
        key_signature=bytes(row["key_signature"]),
        attributes=_read_attributes(row["attributes"]),
    )


def last_seen_to_row(node_id: NodeID, at: datetime) -> Row:
    """Give the row that says when a node was last connected."""
    return {"id": node_id, "at": at}


def _user_id(row: Loaded) -> UserID | None:
    user_id = row["user_id"]
    return None if user_id is None else UserID(user_id)


def _text_or_none(value: object) -> str | None:
    return None if value is None else str(value)


def _texts(values: tuple[object, ...]) -> str:
    if not values:
        return "[]"
    return msgspec.json.encode([str(value) for value in values]).decode()


_TEXTS = msgspec.json.Decoder(tuple[str, ...])


def _read_texts(text: str) -> tuple[str, ...]:
    return () if text == "[]" else _TEXTS.decode(text)


class _Attribute(msgspec.Struct, frozen=True, omit_defaults=True):
    """How an attribute stands in the JSON text: the value keeps its type."""

    name: str
    value: str | int | float | bool
    expires_at: datetime | None = None


def _attributes(attributes: tuple[Attribute, ...]) -> str:
    if not attributes:
        return "[]"
    stored = [_Attribute(each.name, each.value, each.expires_at) for each in attributes]
    return msgspec.json.encode(stored).decode()


_ATTRIBUTES = msgspec.json.Decoder(tuple[_Attribute, ...])


def _read_attributes(text: str) -> tuple[Attribute, ...]:
    if text == "[]":
        return ()
    return tuple(
        Attribute(each.name, each.value, each.expires_at) for each in _ATTRIBUTES.decode(text)
    )


def _json(message: tailcfg.Hostinfo | tailcfg.NetInfo) -> str:
    return tailcfg.encode(message).decode()


def _network(text: str) -> Network:
    return ipaddress.ip_network(text)


def _clean(text: str) -> str:
    """Replace what a database cannot keep as text (NUL, half of a surrogate pair).

    A name comes from a stranger, and a refused row would fail everybody's edits of that commit.
    """
    if "\0" not in text and text.isascii():
        return text
    return text.replace("\0", "\ufffd").encode("utf-8", "replace").decode()
