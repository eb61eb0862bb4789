"""Signed tokens of a provider: whether it wrote them, for us, now, and for this very login.

Not for fetching keys (``remote``) nor for what the claims mean (``judgement``).
Source: OpenID Connect Core 1.0 section 3.1.3.7; Back-Channel Logout 1.0 section 2.6; RFC 8725.
"""

from __future__ import annotations

import hmac
from collections.abc import Collection, Mapping, Sequence
from datetime import datetime
from typing import Any

import msgspec
from joserfc import jws
from joserfc.errors import JoseError
from joserfc.jwk import ECKey, Key, KeySet, OKPKey, RSAKey
from joserfc.jws import JWSRegistry

from appliance.errors import Forbidden

ASYMMETRIC = (
    "RS256",
    "RS384",
    "RS512",
    "PS256",
    "PS384",
    "PS512",
    "ES256",
    "ES384",
    "ES512",
    "EdDSA",
    "Ed25519",
)
"""Never ``none`` nor an HMAC: with those whoever knows the public key, or nothing, could sign."""
DEFAULT_ALGORITHMS = ("RS256",)
"""What a provider signs with that does not say."""
MAX_TOKEN_BYTES = 64 * 1024
"""A token with a thousand groups has 40 KB."""
MAX_HEADER_BYTES = 8 * 1024
"""With a chain of certificates in it."""
MAX_KEYS = 100
"""Keys of one provider that are read; the largest known have about ten."""
LEEWAY_S = 60
"""How far two clocks may differ."""
MAX_AGE_S = 24 * 3600
"""The oldest that a token may be which was made for a login of this moment, whatever it says."""
LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"

_KINDS: dict[str, type[object]] = {"RS": RSAKey, "PS": RSAKey, "ES": ECKey, "Ed": OKPKey}


def read_keys(document: Mapping[str, Any]) -> tuple[Key, ...]:
    """Read a key set, leaving out keys that cannot be used, and those for encryption.

    Raises Forbidden if it holds none that can check a signature.
    """
    items = document.get("keys")
    found: list[Key] = []
    for item in items[:MAX_KEYS] if isinstance(items, list) else ():
        if not isinstance(item, dict) or item.get("use") == "enc" or item.get("kty") == "oct":
            continue
        try:
            found.extend(KeySet.import_key_set({"keys": [item]}).keys)
        except (JoseError, ValueError, TypeError, KeyError, AttributeError):
            continue
    if not found:
        raise Forbidden("oidc-no-keys", "the provider publishes no key that could be used")
    return tuple(found)


def algorithms_of(metadata: Mapping[str, Any]) -> tuple[str, ...]:
    """Return the algorithms that the provider says it signs ID tokens with, as far as allowed."""
    said = metadata.get("id_token_signing_alg_values_supported")
    named = [each for each in said if each in ASYMMETRIC] if isinstance(said, list) else []
    return tuple(named) or DEFAULT_ALGORITHMS


class UnknownKey(Exception):
    """The token names a key that is not among those at hand: there may be new ones."""


def read(token: str, keys: Sequence[Key], algorithms: Collection[str]) -> dict[str, Any]:
    """Return the claims of a token that one of these keys signed.

    Raises Forbidden, or UnknownKey if the token names a key that is not there.
    """
    if len(token) > MAX_TOKEN_BYTES or token.count(".") != 2 or not token.isascii():
        raise Forbidden("oidc-token-malformed", "the provider's token is none (or is encrypted)")
    registry = JWSRegistry(algorithms=list(algorithms), strict_check_header=False)
    registry.max_header_length = MAX_HEADER_BYTES
    registry.max_payload_length = MAX_TOKEN_BYTES
    try:
        header = jws.extract_compact(token.encode(), registry=registry).headers()
    except (JoseError, ValueError, TypeError, KeyError) as error:
        raise Forbidden("oidc-token-malformed", "the provider's token cannot be read") from error
    algorithm = header.get("alg")
    if algorithm not in algorithms:
        raise Forbidden(
            "oidc-algorithm-refused",
            f"the token is signed with {str(algorithm)[:20]!r}, which the provider does not announce"
            " or which is not safe",
        )
    for key in _candidates(header, keys, str(algorithm)):
        try:
            signed = jws.deserialize_compact(token.encode(), key, registry=registry)
        except (JoseError, ValueError, TypeError):
            continue
        return _claims(signed.payload)
    raise Forbidden("oidc-signature-wrong", "the token was not signed by the provider")


def _candidates(header: Mapping[str, Any], keys: Sequence[Key], algorithm: str) -> list[Key]:
    kind = _KINDS[algorithm[:2]]
    fitting = [key for key in keys if isinstance(key, kind) and key.alg in (None, algorithm)]
    name = header.get("kid")
    if name is None:
        return fitting
    named = [key for key in fitting if key.kid == name]
    if not named:
        raise UnknownKey(str(name)[:80])
    return named


def _claims(payload: bytes) -> dict[str, Any]:
    try:
        claims = msgspec.json.decode(payload)
    except msgspec.DecodeError as error:
        raise Forbidden("oidc-token-malformed", "the provider's token is not JSON") from error
    if not isinstance(claims, dict):
        raise Forbidden("oidc-token-malformed", "the provider's token holds no claims")
    return claims


def check_id_token(
    claims: Mapping[str, Any], *, issuer: str, client_id: str, nonce: str | None, now: datetime
) -> None:
    """Check that an ID token is for us, for this login, and for now. Raises Forbidden.

    ``nonce`` None is for tokens of a refresh, which may carry none.
    """
    _check_addressed(claims, issuer, client_id, now)
    if not _is_number(claims.get("exp")):
        raise Forbidden("oidc-token-expired", "the token does not say when it ends")
    said = claims.get("nonce")
    if nonce is not None and not (
        isinstance(said, str) and hmac.compare_digest(said.encode(), nonce.encode())
    ):
        raise Forbidden("oidc-nonce-wrong", "the token was made for another login: sign in again")


def check_logout_token(
    claims: Mapping[str, Any], *, issuer: str, client_id: str, now: datetime
) -> None:
    """Check a logout token: it names an account or a session, the event, and never a nonce."""
    _check_addressed(claims, issuer, client_id, now)
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(LOGOUT_EVENT), dict):
        raise Forbidden("oidc-logout-wrong", "this is not a logout token")
    if "nonce" in claims or not (claims.get("sub") or claims.get("sid")):
        raise Forbidden("oidc-logout-wrong", "this is not a logout token")


def _check_addressed(claims: Mapping[str, Any], issuer: str, client_id: str, now: datetime) -> None:
    if claims.get("iss") != issuer:
        raise Forbidden("oidc-issuer-wrong", "the token is of another provider")
    audience = claims.get("aud")
    audiences = audience if isinstance(audience, list) else [audience]
    if client_id not in audiences:
        raise Forbidden("oidc-audience-wrong", "the token was made for another program")
    party = claims.get("azp")
    if party is not None and party != client_id:
        raise Forbidden("oidc-audience-wrong", "the token was made for another program")
    if len(audiences) > 1 and party is None:
        raise Forbidden(
            "oidc-audience-wrong", "the token does not say which program it was made for"
        )
    moment = now.timestamp()
    for claim in ("exp", "nbf", "iat"):
        if claim in claims and not _is_number(claims[claim]):
            raise Forbidden("oidc-token-malformed", f"the token's {claim} is not a time")
    if "exp" in claims and claims["exp"] <= moment - LEEWAY_S:
        raise Forbidden(
            "oidc-token-expired", "the token has expired (are the clocks of both servers right?)"
        )
    if claims.get("nbf", 0) > moment + LEEWAY_S or claims.get("iat", moment) > moment + LEEWAY_S:
        raise Forbidden(
            "oidc-token-early", "the token is of the future: are the clocks of both servers right?"
        )
    if claims.get("iat", moment) < moment - MAX_AGE_S:
        raise Forbidden("oidc-token-expired", "the token is too old: sign in again")


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)
