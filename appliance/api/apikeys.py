"""``/api/v1/apikey``: keys for programs; see ``routes`` and ``shapes``.

Not for what a key may do (``identity``). A key's text is shown once, by the answer that made it.
"""

from __future__ import annotations

from datetime import datetime, timedelta

from msgspec import UNSET, Struct, UnsetType

from appliance.api.routes import Context, Nothing, Route, number, optional_number, parse_moment
from appliance.api.shapes import Moment
from appliance.durations import parse as parse_duration
from appliance.errors import Forbidden, Invalid, NotFound
from appliance.identity.principals import PrincipalKind
from appliance.identity.roles import check_programs, check_rank, scopes_of
from appliance.identity.scopes import OWN, Scope, check_grant, known, read_scopes
from appliance.records import ApiKey, ApiKeyID, UserID
from appliance.tailnet import apikeys, users
from appliance.tailnet.snapshot import Edit


class ShownKey(Struct, frozen=True, kw_only=True, rename="camel"):
    """An API key, without its secret.

    The members behind ``lastSeen`` are ours, and only there for keys that Headscale's are not like.
    """

    id: str
    prefix: str
    expiration: Moment | None
    created_at: Moment
    last_seen: Moment | None
    scopes: tuple[str, ...] | UnsetType = UNSET
    """What it may do at most; missing: everything, or all that its user may."""
    user: str | UnsetType = UNSET
    """The id of the user whose key it is."""
    created_by: str | UnsetType = UNSET
    description: str | UnsetType = UNSET


class CreateApiKey(Struct, frozen=True, kw_only=True):
    """A key to be made.

    Without ``scopes`` it may do what its user may, or what the one who asks may; without ``user`` it
    belongs to the one who asks, or to nobody.
    """

    expiration: str = ""
    scopes: tuple[str, ...] = ()
    user: str | int = ""
    description: str = ""


class ApiKeyMade(Struct, frozen=True, kw_only=True, rename="camel"):
    """The whole text of a new key, which is never shown again."""

    api_key: str


class ApiKeys(Struct, frozen=True, kw_only=True, rename="camel"):
    """API keys, by id."""

    api_keys: tuple[ShownKey, ...]


class NameApiKey(Struct, frozen=True, kw_only=True):
    """Which key: by id or by prefix, in any form that lists and answers have."""

    id: str | int = ""
    prefix: str = ""


class DeleteApiKey(Struct, frozen=True, kw_only=True):
    """Which key, where the path does not name it: ``/api/v1/apikey/?id=7``."""

    id: str | int = ""


class RotateApiKey(NameApiKey, frozen=True, kw_only=True):
    """Which key gets a successor, when that runs out, and how long the old one works on ("1h")."""

    expiration: str = ""
    grace: str = ""


async def create(ctx: Context, body: CreateApiKey) -> ApiKeyMade:
    """Make a key; without an expiration it lives for 90 days."""
    caller, now = ctx.caller, ctx.live.clock()
    scopes = read_scopes(body.scopes)
    check_grant(caller, scopes)
    _check_maker(ctx)
    named = optional_number(body.user, "user")
    user_id = caller.user_id if named is None else UserID(named)
    async with ctx.edit() as edit:
        if user_id is None:
            scopes = scopes or caller.scopes
        elif user_id != caller.user_id:
            _check_other(ctx, edit, user_id, is_whole=not scopes)
        elif not caller.has_own:
            scopes = scopes or caller.scopes
        _, text = apikeys.create(
            edit,
            scopes=sorted(scopes),
            user_id=user_id,
            expires_at=_expiration(body.expiration, now),
            created_by=str(caller.principal),
            description=body.description,
            now=now,
            random_bytes=ctx.door.random_bytes,
        )
    return ApiKeyMade(api_key=text)


async def show(ctx: Context, _: Nothing) -> ApiKeys:
    """List keys: all, or one's own."""
    snapshot = ctx.live.snapshot
    found = sorted(snapshot.api_keys.values(), key=lambda key: key.id)
    if ctx.only is not None:
        found = [key for key in found if key.user_id == ctx.only]
    return ApiKeys(api_keys=tuple(_shown(ctx, key) for key in found))


async def expire(ctx: Context, body: NameApiKey) -> Nothing:
    """Let a key run out now."""
    async with ctx.edit() as edit:
        apikeys.expire(edit, _named(ctx, edit, body.id, body.prefix).id, ctx.live.clock())
    return Nothing()


async def rotate(ctx: Context, body: RotateApiKey) -> ApiKeyMade:
    """Give a key a successor that may do the same; the old one works on for an hour."""
    now = ctx.live.clock()
    _check_maker(ctx)
    async with ctx.edit() as edit:
        key = _named(ctx, edit, body.id, body.prefix)
        _check_successor(ctx, edit, key)
        _, text = apikeys.rotate(
            edit,
            key.id,
            expires_at=parse_moment(body.expiration, "expiration"),
            grace=_grace(body.grace),
            created_by=str(ctx.principal),
            now=now,
            random_bytes=ctx.door.random_bytes,
        )
    return ApiKeyMade(api_key=text)


async def delete(ctx: Context, body: DeleteApiKey) -> Nothing:
    """Remove a key."""
    prefix = ctx.path["prefix"]
    if prefix in ("-", "0") and body.id:
        prefix = ""  # a path must have something there
    async with ctx.edit() as edit:
        apikeys.delete(edit, _named(ctx, edit, body.id, prefix).id)
    return Nothing()


def _named(ctx: Context, edit: Edit, key_id: str | int, prefix: str) -> ApiKey:
    """Find the key that a request names, if the caller may know of it. Raises Invalid, NotFound."""
    wanted = optional_number(key_id, "key")
    if (wanted is None) == (not prefix):
        raise Invalid("api-key-not-named", "say which API key: by id or by prefix, one of the two")
    if wanted is None:
        key = apikeys.get_by_prefix(edit, prefix)
    else:
        key = apikeys.get(edit, ApiKeyID(number(str(wanted), "key")))
    if ctx.only is not None and key.user_id != ctx.only:
        raise NotFound("api-key-unknown", "there is no such API key of yours")
    return key


def _check_maker(ctx: Context) -> None:
    """Refuse keys to OAuth clients: a key knows no tags, and would be free of those that bind them."""
    caller = ctx.caller
    if caller.principal.kind is PrincipalKind.OAUTH_CLIENT and not caller.may(Scope.ALL):
        raise Forbidden("api-key-by-client", "an OAuth client makes no API keys: make it a client")


def _check_other(ctx: Context, edit: Edit, user_id: UserID, *, is_whole: bool) -> None:
    """Refuse a key for another user by somebody who may not hand out what that user may.

    ``is_whole``: what is the user's is the key's, too.
    """
    if ctx.only is not None:
        raise Forbidden("api-key-of-other", "you may make API keys for yourself only")
    users.get(edit, user_id)
    check_rank(ctx.caller, edit, user_id)
    if is_whole:
        check_grant(ctx.caller, OWN)


def _check_successor(ctx: Context, edit: Edit, key: ApiKey) -> None:
    """Refuse a successor, whose text is told, of a key that the caller could not have made."""
    if ctx.only is not None:
        return
    check_grant(ctx.caller, _reach(edit, key))
    if key.user_id is None:
        check_programs(ctx.caller, edit, known(key.scopes))
    elif key.user_id != ctx.caller.user_id:
        _check_other(ctx, edit, key.user_id, is_whole=not key.scopes)


def _reach(edit: Edit, key: ApiKey) -> frozenset[Scope]:
    """Return all that a key may do at most."""
    if key.scopes or key.user_id is None:
        return known(key.scopes)
    return scopes_of(users.get(edit, key.user_id).role)


def _expiration(text: str, now: datetime) -> datetime:
    return parse_moment(text, "expiration") or now + apikeys.DEFAULT_LIFETIME


def _grace(text: str) -> timedelta:
    try:
        return parse_duration(text) if text else apikeys.DEFAULT_GRACE
    except ValueError as error:
        raise Invalid("grace-invalid", f"grace {text[:40]!r}: {error}") from error


def _shown(ctx: Context, key: ApiKey) -> ShownKey:
    live = ctx.live
    is_whole = key.scopes == (Scope.ALL.value,) or (key.user_id is not None and not key.scopes)
    return ShownKey(
        id=str(key.id),
        prefix=apikeys.shown(key),
        expiration=key.expires_at,
        created_at=key.created_at,
        last_seen=ctx.door.key_uses.last(live.id, key),
        scopes=UNSET if is_whole else key.scopes,
        user=UNSET if key.user_id is None else str(key.user_id),
        created_by=UNSET if key.created_by in ("", "local:socket") else key.created_by,
        description=key.description or UNSET,
    )


_ALL = "/api/v1/apikey"
_READ, _CHANGE = Scope.API_KEYS_READ, Scope.API_KEYS
ROUTES = (
    Route("GET", _ALL, _READ, Nothing, ApiKeys, show, own=True),
    Route("POST", _ALL, _CHANGE, CreateApiKey, ApiKeyMade, create, "apikey.create", own=True),
    Route(
        "POST", f"{_ALL}/expire", _CHANGE, NameApiKey, Nothing, expire, "apikey.expire", own=True
    ),
    Route(
        "POST",
        f"{_ALL}/rotate",
        _CHANGE,
        RotateApiKey,
        ApiKeyMade,
        rotate,
        "apikey.rotate",
        own=True,
    ),
    Route(
        "DELETE",
        f"{_ALL}/{{prefix}}",
        _CHANGE,
        DeleteApiKey,
        Nothing,
        delete,
        "apikey.delete",
        own=True,
    ),
)
