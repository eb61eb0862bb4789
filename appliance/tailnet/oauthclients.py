"""OAuth clients: programs that get short-lived tokens for a secret; made, found, deleted.

Not for tokens nor for what a scope allows (``identity``). Sits on ``snapshot``. The secret's text:
``tskey-client-``, 12 hex digits that are public and the client's id, a dash, 64 hex digits that are
secret. Stock clients look for that beginning before they ask the API for an auth key; Headscale's own,
``hskey-client-``, is read too. Source: tailscale feature/oauthkey; headscale 0.30.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime

from appliance.errors import Invalid, NotFound, TooMany
from appliance.records import OAuthClient, OAuthClientID, UserID
from appliance.tailnet import credentials, keys, names, users
from appliance.tailnet.snapshot import Edit, Snapshot

TEXT_PREFIX = "tskey-client-"
MAX_CLIENTS = 500
"""Of one tailnet: each is a program."""
NEED_TAGS = frozenset({"devices:core", "auth_keys"})
"""Scopes that make a client let nodes in, which must be bound to tags. Source: the hosted service."""

_TEXT = re.compile(r"(?:ts|hs)key-client-([0-9a-f]{12})-([0-9a-f]{64})", re.ASCII)


def create(
    edit: Edit,
    *,
    scopes: Sequence[str],
    tags: Sequence[str] = (),
    user_id: UserID | None = None,
    created_by: str = "",
    description: str = "",
    now: datetime,
    random_bytes: Callable[[int], bytes],
) -> tuple[OAuthClient, str]:
    """Add a client; return the record and the text of its secret, which nobody can find out again.

    Raises Invalid, NotFound for an unknown user, TooMany.
    """
    if not scopes:
        raise Invalid("oauth-client-without-scopes", "an OAuth client needs scopes")
    if len(tags) > keys.MAX_KEY_TAGS:
        raise Invalid("oauth-client-tags", f"a client has at most {keys.MAX_KEY_TAGS} tags")
    if NEED_TAGS & set(scopes) and not tags:
        raise Invalid(
            "oauth-client-without-tags",
            f"a client with the scope {' or '.join(sorted(NEED_TAGS & set(scopes)))} needs tags, which"
            " the nodes get that it lets in",
        )
    if user_id is not None:
        users.get(edit, user_id)
    if len(edit.oauth_clients) >= MAX_CLIENTS:
        raise TooMany(
            "oauth-clients-full", f"a tailnet has at most {MAX_CLIENTS} OAuth clients: delete some"
        )
    prefix, secret = credentials.new(random_bytes, edit.by_client_id)
    client = OAuthClient(
        id=OAuthClientID(edit.ids.next("oauth_clients")),
        prefix=prefix,
        secret_hash=credentials.hash_of(secret),
        created_at=now,
        scopes=tuple(sorted(set(scopes))),
        tags=names.check_tags(tags),
        user_id=user_id,
        created_by=created_by,
        description=credentials.plain(description),
    )
    edit.put(client)
    return client, f"{TEXT_PREFIX}{prefix}-{secret}"


def find(state: Snapshot | Edit, text: str) -> OAuthClient | None:
    """Find the client whose secret a text is. None if there is none."""
    match = _TEXT.fullmatch(text[: credentials.MAX_TEXT_CHARS].strip())
    prefix, secret = ("", "") if match is None else (match[1], match[2])
    client_id = state.by_client_id.get(prefix)
    client = None if client_id is None else state.oauth_clients[client_id]
    is_it = credentials.matches(None if client is None else client.secret_hash, secret)
    return client if is_it else None


def get(state: Snapshot | Edit, client_id: str) -> OAuthClient:
    """Return the client with a public id, as lists show it. Raises NotFound."""
    found = state.by_client_id.get(client_id)
    if found is None:
        shown = client_id[:24]
        raise NotFound(
            "oauth-client-unknown",
            f"there is no OAuth client with the id {shown!r}",
            concerns=shown,
        )
    return state.oauth_clients[found]


def delete(edit: Edit, client_id: str) -> OAuthClient:
    """Remove a client, and with it all of its tokens. Raises NotFound."""
    client = get(edit, client_id)
    edit.drop(client)
    return client


def note_uses(edit: Edit, uses: Iterable[tuple[OAuthClientID, datetime]]) -> None:
    """Take note of when clients were last used; of clients that are gone, nothing."""
    for client_id, at in uses:
        client = edit.oauth_clients.get(client_id)
        if client is not None and (client.last_used_at is None or client.last_used_at < at):
            edit.put(replace(client, last_used_at=at))
