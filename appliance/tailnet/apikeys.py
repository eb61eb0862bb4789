"""API keys: made, found by their text, rotated, expired and deleted.

Not for what a scope allows, nor for who may hand out which (``identity``). Sits on ``snapshot``. Text:
``hskey-api-``, 12 hex digits that are public, a dash, 64 hex digits that are secret. The form of
earlier years, ``prefix.secret``, is read too. Source: headscale, whose keys look the same.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from appliance.errors import Invalid, NotFound, TooMany
from appliance.records import ApiKey, ApiKeyID, UserID
from appliance.tailnet import credentials, users
from appliance.tailnet.snapshot import Edit, Snapshot

TEXT_PREFIX = "hskey-api-"
DEFAULT_LIFETIME = timedelta(days=90)
"""What the doors fill in when nobody says how long a key shall live; Headscale's choice too."""
MAX_API_KEYS = 1000
"""Of one tailnet, expired ones included: each is a few hundred bytes in memory."""
MAX_KEYS_OF_A_USER = 50
"""So that no user takes all of them."""
DEFAULT_GRACE = timedelta(hours=1)
"""How long a key works on after its successor was made, unless somebody says otherwise."""
MAX_GRACE = timedelta(days=7)

_TEXT = re.compile(r"hskey-api-([0-9a-f]{12})-([0-9a-f]{64})", re.ASCII)
_OLD_TEXT = re.compile(r"([0-9A-Za-z_-]{7,12})\.([0-9A-Za-z_-]{16,128})", re.ASCII)


def create(
    edit: Edit,
    *,
    scopes: Sequence[str] = (),
    user_id: UserID | None = None,
    expires_at: datetime | None = None,
    created_by: str = "",
    description: str = "",
    now: datetime,
    random_bytes: Callable[[int], bytes],
) -> tuple[ApiKey, str]:
    """Add a key; return the record and the whole text, which nobody can find out again.

    ``expires_at`` None means never. Raises NotFound for an unknown user, Invalid, TooMany.
    """
    if user_id is None and not scopes:
        raise Invalid("api-key-without-scopes", "an API key that is nobody's needs scopes")
    if user_id is not None:
        users.get(edit, user_id)
        if sum(key.user_id == user_id for key in edit.api_keys.values()) >= MAX_KEYS_OF_A_USER:
            raise TooMany(
                "api-keys-of-user-full",
                f"a user has at most {MAX_KEYS_OF_A_USER} API keys: delete some first",
            )
    if len(edit.api_keys) >= MAX_API_KEYS:
        raise TooMany(
            "api-keys-full",
            f"a tailnet has at most {MAX_API_KEYS} API keys: delete some first "
            "(headwater apikeys list, headwater apikeys delete)",
        )
    prefix, secret = credentials.new(random_bytes, edit.by_api_key_prefix)
    key = ApiKey(
        id=ApiKeyID(edit.ids.next("api_keys")),
        prefix=prefix,
        secret_hash=credentials.hash_of(secret),
        created_at=now,
        scopes=tuple(sorted(set(scopes))),
        user_id=user_id,
        expires_at=expires_at,
        created_by=created_by,
        description=credentials.plain(description),
    )
    edit.put(key)
    return key, f"{TEXT_PREFIX}{prefix}-{secret}"


def parse(text: str) -> tuple[str, str]:
    """Take a key's text apart into public prefix and secret; both empty if it is no API key."""
    text = text[: credentials.MAX_TEXT_CHARS].strip()
    match = _TEXT.fullmatch(text) or _OLD_TEXT.fullmatch(text)
    return ("", "") if match is None else (match[1], match[2])


def find(state: Snapshot | Edit, text: str) -> ApiKey | None:
    """Find the key that a text proves; expired ones too. None if there is none."""
    prefix, secret = parse(text)
    key_id = state.by_api_key_prefix.get(prefix)
    key = None if key_id is None else state.api_keys[key_id]
    is_it = credentials.matches(None if key is None else key.secret_hash, secret)
    return key if is_it else None


def shown(key: ApiKey) -> str:
    """Return the form of a key that lists show."""
    return f"{TEXT_PREFIX}{key.prefix}-***"


def get(state: Snapshot | Edit, key_id: ApiKeyID) -> ApiKey:
    """Return a key. Raises NotFound."""
    key = state.api_keys.get(key_id)
    if key is None:
        raise NotFound("api-key-unknown", f"there is no API key with the id {key_id}")
    return key


def get_by_prefix(state: Snapshot | Edit, text: str) -> ApiKey:
    """Return the key with a prefix: bare, as lists show it, or the whole text. Raises NotFound."""
    text = text[: credentials.MAX_TEXT_CHARS].strip()
    prefix = parse(text)[0] or text.removesuffix("***").removesuffix("-")
    key_id = state.by_api_key_prefix.get(prefix.removeprefix(TEXT_PREFIX))
    if key_id is None:
        shown = prefix[:24]
        raise NotFound(
            "api-key-unknown", f"there is no API key with the prefix {shown!r}", concerns=shown
        )
    return state.api_keys[key_id]


def rotate(
    edit: Edit,
    key_id: ApiKeyID,
    *,
    expires_at: datetime | None = None,
    grace: timedelta = DEFAULT_GRACE,
    created_by: str = "",
    now: datetime,
    random_bytes: Callable[[int], bytes],
) -> tuple[ApiKey, str]:
    """Add a key that may do the same as this one, which works on for ``grace`` and then no more.

    Without ``expires_at`` the new key lives as long as the old one was meant to. Raises NotFound,
    Invalid for a key that has expired, TooMany.
    """
    old = get(edit, key_id)
    if is_expired(old, now):
        raise Invalid("api-key-expired", "an API key that has expired cannot be rotated: make one")
    if not timedelta(0) <= grace <= MAX_GRACE:
        raise Invalid("grace-invalid", f"the grace is from 0s to {MAX_GRACE.days}d")
    if expires_at is None and old.expires_at is not None:
        expires_at = now + max(old.expires_at - old.created_at, timedelta(hours=1))
    edit.put(replace(old, expires_at=min(now + grace, old.expires_at or now + grace)))
    return create(
        edit,
        scopes=old.scopes,
        user_id=old.user_id,
        expires_at=expires_at,
        created_by=created_by,
        description=old.description,
        now=now,
        random_bytes=random_bytes,
    )


def expire(edit: Edit, key_id: ApiKeyID, now: datetime) -> ApiKey:
    """Let a key run out now; one that has run out already stays as it is. Raises NotFound."""
    key = get(edit, key_id)
    if not is_expired(key, now):
        key = replace(key, expires_at=now)
        edit.put(key)
    return key


def delete(edit: Edit, key_id: ApiKeyID) -> ApiKey:
    """Remove a key. Raises NotFound."""
    key = get(edit, key_id)
    edit.drop(key)
    return key


def is_expired(key: ApiKey, now: datetime) -> bool:
    """Return whether the key has run out or was revoked."""
    return key.expires_at is not None and key.expires_at <= now


def note_uses(edit: Edit, uses: Iterable[tuple[ApiKeyID, datetime]]) -> None:
    """Take note of when keys were last used; of keys that are gone, nothing."""
    for key_id, at in uses:
        key = edit.api_keys.get(key_id)
        if key is not None and (key.last_used_at is None or key.last_used_at < at):
            edit.put(replace(key, last_used_at=at))
