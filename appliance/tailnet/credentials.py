"""What API keys and OAuth clients have in common: a public prefix, and a secret that is kept as a hash.

The hash is a plain SHA-256, because 256 random bits need no slow one. Not for auth keys (``keys``) and
not for who may do what (``identity``).
"""

from __future__ import annotations

import hashlib
import hmac
from collections.abc import Callable, Container

PREFIX_BYTES = 6
SECRET_BYTES = 32
MAX_TEXT_CHARS = 256
"""Nothing that anybody presents as a credential is longer; our own are under 100."""
MAX_DESCRIPTION_CHARS = 200

_NOTHING = "0" * 64
"""Compared where there is nothing to compare, so that an unknown prefix takes as long."""


def new(random_bytes: Callable[[int], bytes], taken: Container[str]) -> tuple[str, str]:
    """Return a new prefix, unlike those that are taken, and a new secret, both as hex digits."""
    prefix = random_bytes(PREFIX_BYTES).hex()
    while prefix in taken:
        prefix = random_bytes(PREFIX_BYTES).hex()
    return prefix, random_bytes(SECRET_BYTES).hex()


def hash_of(secret: str) -> str:
    """Return what is kept of a secret."""
    return hashlib.sha256(secret.encode(errors="replace")).hexdigest()


def matches(secret_hash: str | None, secret: str) -> bool:
    """Return whether this is the secret, in constant time; None is nobody's."""
    is_equal = hmac.compare_digest(hash_of(secret), secret_hash or _NOTHING)
    return is_equal and secret_hash is not None


def plain(text: str) -> str:
    """Leave out of a description what could steer a terminal, and bound the rest."""
    return "".join(c for c in text[:MAX_DESCRIPTION_CHARS] if c.isprintable()).strip()
