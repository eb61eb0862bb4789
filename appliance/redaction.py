"""Texts for people without the secrets that they hold: passwords in URLs, values of secret keys.

Used wherever a value of a site file, or of a file that is converted, is shown again: refusals,
remarks, the log. Not for keeping secrets out of the settings (``config`` refuses them). Pure.
"""

from __future__ import annotations

import re
from urllib.parse import unquote_plus

HIDDEN = "***"

_SECRET_WORD = re.compile(
    r"pass(?!file)|pwd|secret|token|api_?key|priv(?:ate)?_?key$|scram_(?:client|server)_key",
    re.IGNORECASE,
)
"""libpq's: password, sslpassword, oauth_client_secret, scram_client_key, scram_server_key."""
_PARAMETER = re.compile(r"([?&;\s]|^)([^=?&;\s]{1,200})=('[^']*'?|[^&;\s]*)")


def is_secret(name: str) -> bool:
    """Tell whether a key, or a parameter of a URL, holds a secret itself."""
    return _SECRET_WORD.search(unquote_plus(name)) is not None


def redact(text: str) -> str:
    """Return a text with passwords of URLs and connection strings replaced."""
    text = _without_userinfo(text)
    if "=" in text:
        text = _PARAMETER.sub(_without_value, text)
    if "PRIVATE KEY" in text:
        return "(a private key)"
    return text


def redact_all(value: object) -> object:
    """Return plain values with every text redacted."""
    if isinstance(value, str):
        return redact(value)
    if isinstance(value, dict):
        return {key: redact_all(each) for key, each in value.items()}
    if isinstance(value, list):
        return [redact_all(each) for each in value]
    return value


def _without_userinfo(text: str) -> str:
    """Hide what stands between the first colon and the last ``@``.

    As far as the last one: a password with ``@``, ``/`` or ``#`` in it, not escaped, is what people
    write, and every parser reads that another way.
    """
    scheme, found, rest = text.partition("://")
    if not found:
        scheme, rest = "", text
    before, at, behind = rest.rpartition("@")
    user, colon, _ = before.partition(":")
    if not at or not colon:
        return text
    return f"{scheme}{found}{user}:{HIDDEN}@{behind}"


def _without_value(match: re.Match[str]) -> str:
    before, name, value = match.groups()
    return f"{before}{name}={HIDDEN if value and is_secret(name) else value}"
