"""Auth keys: made, found by their text, expired and deleted.

Not for what a key entitles to (``enrolment``) and not for API keys (``identity``). Sits on
``snapshot``. Text: ``hskey-auth-``, 12 hex digits that are public, a dash, 64 hex digits that are
secret. Only a hash of the secret is kept; it is a plain SHA-256, because 256 random bits need no
slow hash. Source: headscale, whose keys look the same (its hashes are of another kind).
"""

from __future__ import annotations

import hashlib
import hmac
import re
from collections.abc import Callable, Sequence
from dataclasses import replace
from datetime import datetime, timedelta

from appliance.errors import Invalid, NotFound
from appliance.records import AuthKey, AuthKeyID, UserID
from appliance.tailnet import names, users
from appliance.tailnet.snapshot import Edit, Snapshot

TEXT_PREFIX = "hskey-auth-"
PREFIX_BYTES = 6
SECRET_BYTES = 32

DEFAULT_LIFETIME = timedelta(hours=1)
"""What the doors fill in when nobody says how long a key shall live; Headscale's choice too."""
MAX_KEY_TAGS = 64
"""Tags of one key; they end up in every netmap that shows its nodes."""

_TEXT = re.compile(r"hskey-auth-([0-9a-f]{12})-([0-9a-f]{64})", re.ASCII)


def create_auth_key(
    edit: Edit,
    *,
    user_id: UserID | None = None,
    tags: Sequence[str] = (),
    reusable: bool = False,
    ephemeral: bool = False,
    expires_at: datetime | None = None,
    now: datetime,
    random_bytes: Callable[[int], bytes],
) -> tuple[AuthKey, str]:
    """Add a key; give the record and the whole text, which nobody can find out again.

    ``expires_at`` None means never; a time that is over makes a key that lets nobody in, as
    Headscale's does. Raises NotFound for an unknown user, Invalid.
    """
    if user_id is None and not tags:
        raise Invalid("auth-key-without-owner", "an auth key needs a user, or tags, or both")
    if len(tags) > MAX_KEY_TAGS:
        raise Invalid("auth-key-tags", f"an auth key carries at most {MAX_KEY_TAGS} tags")
    if user_id is not None:
        users.get(edit, user_id)
    prefix = random_bytes(PREFIX_BYTES).hex()
    while prefix in edit.by_key_prefix:
        prefix = random_bytes(PREFIX_BYTES).hex()
    secret = random_bytes(SECRET_BYTES).hex()
    key = AuthKey(
        id=edit.ids.next_auth_key(),
        prefix=prefix,
        secret_hash=_hash(secret),
        created_at=now,
        user_id=user_id,
        tags=names.check_tags(tags),
        reusable=reusable,
        ephemeral=ephemeral,
        expires_at=expires_at,
    )
    edit.put(key)
    return key, f"{TEXT_PREFIX}{prefix}-{secret}"


def parse_auth_key(text: str) -> tuple[str, str]:
    """Take a key's text apart into public prefix and secret; both empty if it is no key of ours.

    What is appended for the tailnet lock (``--TL`` and the rest) is left out.
    """
    match = _TEXT.fullmatch(text.partition("--TL")[0].strip())
    return ("", "") if match is None else (match[1], match[2])


def verify(key: AuthKey, secret: str) -> bool:
    """Return whether this is the key's secret, in constant time."""
    return hmac.compare_digest(_hash(secret), key.secret_hash)


def find(state: Snapshot | Edit, text: str) -> AuthKey | None:
    """Find the key that a text proves; expired and used ones too. None if there is none."""
    prefix, secret = parse_auth_key(text)
    key_id = state.by_key_prefix.get(prefix)
    if key_id is None:
        return None
    key = state.auth_keys[key_id]
    return key if verify(key, secret) else None


def get(state: Snapshot | Edit, key_id: AuthKeyID) -> AuthKey:
    """Return a key. Raises NotFound."""
    key = state.auth_keys.get(key_id)
    if key is None:
        raise NotFound("auth-key-unknown", f"there is no auth key with the id {key_id}")
    return key


def expire(edit: Edit, key_id: AuthKeyID, now: datetime) -> AuthKey:
    """Let a key run out now; one that has run out already stays as it is. Raises NotFound."""
    key = get(edit, key_id)
    if not is_expired(key, now):
        key = replace(key, expires_at=now)
        edit.put(key)
    return key


def delete(edit: Edit, key_id: AuthKeyID) -> AuthKey:
    """Remove a key; nodes that came with it stay. Raises NotFound."""
    key = get(edit, key_id)
    edit.drop(key)
    return key


def is_expired(key: AuthKey, now: datetime) -> bool:
    """Return whether the key has run out or was revoked."""
    return key.expires_at is not None and key.expires_at <= now


def is_used_up(key: AuthKey) -> bool:
    """Return whether the key could be used once and was."""
    return key.used_at is not None and not key.reusable


def _hash(secret: str) -> str:
    return hashlib.sha256(secret.encode()).hexdigest()
