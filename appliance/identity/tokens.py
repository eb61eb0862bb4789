"""What a program shows to prove who it is, and what it may do then: API keys and tokens of OAuth clients.

A token is not stored. It says until when and for what it is good, and carries a seal that only this
server can make; it dies with its client, with the client's secret, or after an hour. Not for HTTP
(``api.gate``) and not for the records (``tailnet.apikeys``, ``tailnet.oauthclients``).

Token: ``hskey-oauthtok-``, the client's id (12 hex digits), ``.``, the claims as JSON in base64url
without padding, ``.``, 32 bytes of keyed BLAKE2b over id, hash of the client's secret, and claims.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import hmac
import re
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

from appliance.identity.principals import Principal, PrincipalKind
from appliance.identity.roles import scopes_of
from appliance.identity.scopes import Caller, Scope, common, known
from appliance.records import ApiKey, OAuthClient, UserID
from appliance.tailnet import apikeys
from appliance.tailnet.snapshot import Snapshot

TOKEN_PREFIX = "hskey-oauthtok-"  # noqa: S105  what everybody sees
TOKEN_LIFETIME = timedelta(hours=1)
"""As the hosted service's; programs ask again in good time."""
MAX_TOKEN_CHARS = 8192
"""All scopes and 64 tags of the longest kind fit; a request's head takes no more anyway."""

_TOKEN = re.compile(
    r"hskey-oauthtok-([0-9a-f]{12})\.([0-9A-Za-z_-]+)\.([0-9A-Za-z_-]{43})", re.ASCII
)


class _Claims(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a token says: the second after which it is void, scopes, and tags that it may give."""

    e: int
    s: tuple[str, ...]
    t: tuple[str, ...]


_DECODER = msgspec.json.Decoder(_Claims)


class Seal:
    """The secret with which tokens are sealed: 32 bytes, for nothing else."""

    PURPOSE = b"hw-oauth-seal"

    __slots__ = ("_key",)

    def __init__(self, key: bytes) -> None:
        self._key = key

    def of(self, client: OAuthClient, claims: str) -> str:
        """Return the seal of some claims of a client."""
        message = f"{client.prefix}.{client.secret_hash}.{claims}".encode()
        return _text(hashlib.blake2b(message, key=self._key, digest_size=32).digest())


@dataclass(frozen=True, slots=True)
class Proof:
    """Who asks, and the record that says so. ``is_expired``: it was right once, and is no longer."""

    caller: Caller
    record: ApiKey | OAuthClient
    is_expired: bool = False


def prove(
    snapshots: Iterable[Snapshot], text: str, now: datetime, seal: Seal | None = None
) -> Proof | None:
    """Find out who shows this text; None if it proves nothing."""
    if text.startswith(TOKEN_PREFIX):
        return None if seal is None else _prove_token(snapshots, text, now, seal)
    for snapshot in snapshots:
        key = apikeys.find(snapshot, text)
        if key is not None:
            return Proof(caller_of_key(snapshot, key), key, apikeys.is_expired(key, now))
    return None


def caller_of_key(snapshot: Snapshot, key: ApiKey) -> Caller:
    """Return what a key may do now: never more than its user, whose role may have changed."""
    principal = Principal(PrincipalKind.API_KEY, key.prefix)
    return _caller(snapshot, principal, key.scopes, key.user_id)


def caller_of_client(
    snapshot: Snapshot, client: OAuthClient, scopes: Iterable[str], tags: Iterable[str]
) -> Caller:
    """Return what a token for these scopes and tags may do: never more than its client."""
    principal = Principal(PrincipalKind.OAUTH_CLIENT, client.prefix)
    whole = _caller(snapshot, principal, client.scopes, client.user_id)
    mine = common(whole.scopes, known(scopes))
    return Caller(
        principal,
        mine,
        whole.user_id,
        has_own=False,
        tailnet=whole.tailnet,
        tags=None if Scope.ALL in mine else frozenset(client.tags) & frozenset(tags),
    )


def _caller(
    snapshot: Snapshot, principal: Principal, scopes: Iterable[str], user_id: UserID | None
) -> Caller:
    wanted, tailnet = tuple(scopes), snapshot.tailnet.id
    if user_id is None:
        return Caller(principal, known(wanted), tailnet=tailnet)
    may = scopes_of(snapshot.users[user_id].role)
    if wanted:
        may = common(may, known(wanted))
    return Caller(principal, may, user_id, has_own=not wanted, tailnet=tailnet)


def issue(
    client: OAuthClient, scopes: Iterable[str], tags: Iterable[str], now: datetime, seal: Seal
) -> str:
    """Return the text of a new token."""
    until = int((now + TOKEN_LIFETIME).timestamp())
    claims = _text(msgspec.json.encode(_Claims(until, tuple(scopes), tuple(tags))))
    return f"{TOKEN_PREFIX}{client.prefix}.{claims}.{seal.of(client, claims)}"


def _prove_token(
    snapshots: Iterable[Snapshot], text: str, now: datetime, seal: Seal
) -> Proof | None:
    match = None if len(text) > MAX_TOKEN_CHARS else _TOKEN.fullmatch(text)
    if match is None:
        return None
    prefix, claims, sealed = match.groups()
    for snapshot in snapshots:
        client_id = snapshot.by_client_id.get(prefix)
        if client_id is None:
            continue
        client = snapshot.oauth_clients[client_id]
        if not hmac.compare_digest(seal.of(client, claims), sealed):
            continue
        told = _DECODER.decode(_data(claims))
        until = datetime.fromtimestamp(told.e, UTC)
        caller = caller_of_client(snapshot, client, told.s, told.t)
        return Proof(caller, client, is_expired=until <= now)
    return None


def _text(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _data(text: str) -> bytes:
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))


def of_basic(text: str) -> tuple[str, str]:
    """Read what follows ``Basic``: user name and password. Raises ValueError."""
    try:
        plain = base64.b64decode(text, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError) as error:
        raise ValueError("not base64") from error
    name, colon, password = plain.partition(":")
    if not colon:
        raise ValueError("no colon")
    return name, password
