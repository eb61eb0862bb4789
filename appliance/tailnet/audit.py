"""What an edit did, as entries of the audit log: one per record that differs in what people care about.

What a node reports of itself all day (endpoints, host details, its relay) is no entry; nor is the use
of a key, which the node's registration names. Secrets are in no record; the hash of a key is left out.

Pure. Not for keeping entries (``store``) nor for the lines in the log (``live.told``).
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from datetime import datetime
from operator import attrgetter
from typing import Any

import msgspec

from appliance.records import (
    ApiKey,
    Attribute,
    AuditEntry,
    AuthKey,
    Credential,
    Node,
    OAuthClient,
    PolicyText,
    Record,
    Session,
    Tailnet,
    User,
    UserID,
)
from appliance.tailnet.snapshot import Edit, Snapshot
from appliance.wire.tailcfg.message import address_text

MAX_VALUE_CHARS = 500
"""A value whose JSON is longer is cut: a node may have thousands of routes."""
SHORT_BYTES = 2000
"""What is not longer than this is not looked at value by value."""
EXPIRED = "node.expired"
"""The act of time: a node key has run out."""
MOVED = "node.move-route"
"""The act of fail-over: another router serves the route."""

Said = dict[str, Any]
_SYSTEM = ("system", "headwater")
_encode = msgspec.json.Encoder().encode


def entries(
    edit: Edit, *, at: datetime, door: str, by: str, act: str, reason: str = ""
) -> tuple[AuditEntry, ...]:
    """Give the entries of a finished draft."""
    found = []
    for before, after in edit.changes():
        record = after or before
        if record is None or not _differ(before, after):
            continue
        was, now = _texts(edit, before, after)
        did, why = edit.reason_of(record) or (act, reason)
        told = TOLD[type(record)]
        name = told.name(record)
        found.append(AuditEntry(at, door, by, did, told.noun, record.id, name, was, now, why))
    for node in edit.expired_nodes():
        ended = "" if node.expires_at is None else f"its key ran out at {_time(node.expires_at)}"
        found.append(AuditEntry(at, door, by, EXPIRED, "node", node.id, node.name, reason=ended))
    return tuple(found)


def moved_routes(old: Snapshot, new: Snapshot, *, at: datetime) -> tuple[AuditEntry, ...]:
    """Give an entry for every route that another router serves by now: nobody asked for it."""
    if old.routes is None or new.routes is None or old.routes.elections is new.routes.elections:
        return ()
    before = old.routes.elections.chosen
    found = []
    for group, node_id in new.routes.elections.chosen.items():
        last = before.get(group)
        if last is None or last == node_id:
            continue
        was, node = new.nodes.get(last) or old.nodes.get(last), new.nodes[node_id]
        gone = was is None or last not in new.nodes
        why = "is gone" if gone else "is offline" if not new.presence_of(last).online else "left it"
        name = str(last) if was is None else was.name
        was_told, told = (
            _json({"route": str(group[0]), "router": each}) for each in (name, node.name)
        )
        door, by = _SYSTEM
        why = f"{name} {why}"
        found.append(
            AuditEntry(at, door, by, MOVED, "node", node_id, node.name, was_told, told, why)
        )
    return tuple(found)


def _differ(before: Record | None, after: Record | None) -> bool:
    if before is None or after is None:
        return True
    facts = TOLD[type(after)].facts
    return facts(before) != facts(after)


def _texts(edit: Edit, before: Record | None, after: Record | None) -> tuple[str, str]:
    """Give what differs as two JSON objects."""
    was = None if before is None else TOLD[type(before)].said(edit, before)
    now = None if after is None else TOLD[type(after)].said(edit, after)
    if was is not None and now is not None:
        differing = [key for key in now if was.get(key) != now[key]]
        was, now = ({key: said[key] for key in differing} for said in (was, now))
    return _json(was), _json(now)


def _json(said: Said | None) -> str:
    if said is None:
        return ""
    data = _encode(said)
    if len(data) > SHORT_BYTES:
        data = _encode({key: _cut(value) for key, value in said.items()})
    return data.decode()


def _cut(value: object) -> object:
    text = _encode(value).decode()
    return value if len(text) <= MAX_VALUE_CHARS else f"{text[:MAX_VALUE_CHARS]}…"


def _node(edit: Edit, node: Node) -> Said:
    return {
        "name": node.name,
        "hostname": node.hostname,
        "user": _user(edit, node.user_id),
        "tags": node.tags,
        "addresses": list(map(address_text, node.addresses)),
        "nodeKey": node.node_key.short,
        "machineKey": node.machine_key.short,
        "expiresAt": _time(node.expires_at),
        "ephemeral": node.ephemeral,
        "approvedRoutes": list(map(str, node.approved_routes)),
        "attributes": list(map(_attribute, node.attributes)),
        "authKey": node.auth_key_id,
        "method": node.register_method,
    }


def _auth_key(edit: Edit, key: AuthKey) -> Said:
    return {
        "prefix": key.prefix,
        "user": _user(edit, key.user_id),
        "tags": key.tags,
        "reusable": key.reusable,
        "ephemeral": key.ephemeral,
        "expiresAt": _time(key.expires_at),
    }


def _api_key(edit: Edit, key: ApiKey) -> Said:
    return {
        "prefix": key.prefix,
        "user": _user(edit, key.user_id),
        "scopes": key.scopes,
        "expiresAt": _time(key.expires_at),
        "description": key.description,
    }


def _client(edit: Edit, client: OAuthClient) -> Said:
    return {
        "id": client.prefix,
        "user": _user(edit, client.user_id),
        "scopes": client.scopes,
        "tags": client.tags,
        "description": client.description,
    }


def _person(_edit: Edit, user: User) -> Said:
    return {
        "name": user.name,
        "displayName": user.display_name,
        "email": user.email,
        "provider": user.provider,
        "role": user.role,
    }


def _session(edit: Edit, session: Session) -> Said:
    return {
        "user": _user(edit, session.user_id),
        "method": session.method,
        "expiresAt": _time(session.expires_at),
        "source": session.source,
        "agent": session.agent,
    }


def _credential(edit: Edit, credential: Credential) -> Said:
    return {
        "user": _user(edit, credential.user_id),
        "kind": credential.kind,
        "name": credential.name,
        "expiresAt": _time(credential.expires_at),
    }


def _policy(_edit: Edit, policy: PolicyText) -> Said:
    data = policy.text.encode(errors="replace")
    return {
        "source": policy.source,
        "bytes": len(data),
        "sha256": hashlib.sha256(data).hexdigest(),
    }


def _attribute(attribute: Attribute) -> Said:
    return {
        "name": attribute.name,
        "value": attribute.value,
        "expiresAt": _time(attribute.expires_at),
    }


def _user(edit: Edit, user_id: UserID | None) -> str:
    if user_id is None:
        return ""
    user = edit.users.get(user_id) or edit.base.users.get(user_id)
    return str(user_id) if user is None else user.name


def _time(moment: datetime | None) -> str:
    return "" if moment is None else moment.isoformat().replace("+00:00", "Z")


@dataclass(frozen=True, slots=True)
class Told:
    """How one kind of record is told: its noun, its name, and its facts as they are said.

    ``facts`` gives what is compared, before anything is said: a storm of check-ins must cost
    nothing. A change of anything else is no entry.
    """

    noun: str
    name: Callable[[Any], str]
    facts: Callable[[Any], object]
    said: Callable[[Edit, Any], Said]


TOLD: dict[type, Told] = {
    Node: Told(
        "node",
        attrgetter("name"),
        attrgetter(
            "name", "hostname", "user_id", "tags", "ipv4", "ipv6", "node_key", "machine_key",
            "expires_at", "ephemeral", "approved_routes", "attributes", "auth_key_id",
            "register_method",
        ),
        _node,
    ),
    User: Told(
        "user",
        attrgetter("name"),
        attrgetter("name", "display_name", "email", "provider", "role"),
        _person,
    ),
    AuthKey: Told(
        "preauthkey",
        attrgetter("prefix"),
        attrgetter("prefix", "user_id", "tags", "reusable", "ephemeral", "expires_at"),
        _auth_key,
    ),
    ApiKey: Told(
        "apikey",
        attrgetter("prefix"),
        attrgetter("prefix", "user_id", "scopes", "expires_at", "description"),
        _api_key,
    ),
    OAuthClient: Told(
        "oauthclient",
        attrgetter("prefix"),
        attrgetter("prefix", "secret_hash", "user_id", "scopes", "tags", "description"),
        _client,
    ),
    Tailnet: Told(
        "tailnet",
        attrgetter("name"),
        attrgetter("name", "domain"),
        lambda _, it: {"name": it.name, "domain": it.domain},
    ),
    Session: Told(
        "session",
        attrgetter("method"),
        attrgetter("user_id", "method", "expires_at"),
        _session,
    ),
    Credential: Told(
        "credential",
        attrgetter("kind"),
        attrgetter("user_id", "kind", "name", "expires_at"),
        _credential,
    ),
    PolicyText: Told("policy", attrgetter("source"), attrgetter("id"), _policy),
}  # fmt: skip
"""One row for each kind of record."""

_MESSAGES = {
    "node.register": "node registered",
    "node.expired": "node expired",
    "node.remove": "ephemeral node removed",
    "node.rename": "node renamed",
    "node.tag": "node tagged",
    "node.move": "node given to another user",
    "node.expire": "expiry of a node set",
    "node.delete": "node deleted",
    "node.approve-routes": "routes of a node approved",
    "node.backfill": "addresses of a node completed",
    "node.set-attribute": "attribute set",
    "node.set-attributes": "attributes set",
    "node.remove-attribute": "attribute removed",
    "node.check-in": "node reported a change",
    "node.log-out": "node logged out",
    "node.move-route": "route moved to another node",
    "user.create": "user created",
    "user.rename": "user renamed",
    "user.set-role": "role of a user set",
    "user.destroy": "user deleted",
    "preauthkey.create": "auth key created",
    "preauthkey.expire": "auth key expired",
    "preauthkey.delete": "auth key deleted",
    "apikey.create": "API key created",
    "apikey.rotate": "API key rotated",
    "apikey.expire": "API key expired",
    "apikey.delete": "API key deleted",
    "oauthclient.create": "OAuth client created",
    "oauthclient.delete": "OAuth client deleted",
    "policy.set": "policy set",
    "user.invite": "user invited",
    "session.start": "signed in",
    "session.end": "signed out",
    "credential.create": "credential created",
    "credential.use": "credential used",
    "credential.remove": "credential removed",
    "settings.apply": "settings applied",
}
"""What the log says of an act upon its own kind of record."""
_NOUNS = {"preauthkey": "auth key", "apikey": "API key", "oauthclient": "OAuth client"}


def message(entry: AuditEntry) -> str:
    """Say in some words what happened, always the same for the same kind of change."""
    if entry.act.partition(".")[0] == entry.kind and entry.act in _MESSAGES:
        return _MESSAGES[entry.act]
    verb = "made" if not entry.before else "removed" if not entry.after else "changed"
    return f"{_NOUNS.get(entry.kind, entry.kind)} {verb}"


def differences(entry: AuditEntry) -> Iterator[tuple[str, object, object]]:
    """List what a change changed: the name of it, what it was, what it is."""
    if not entry.before or not entry.after:
        return
    was, now = (_decode(text.encode()) for text in (entry.before, entry.after))
    for key, value in now.items():
        yield key, was.get(key), value


_decode: Callable[[bytes], Said] = msgspec.json.Decoder(Said).decode
