"""``/api/v1/preauthkey``: see ``routes`` and ``shapes``."""

from __future__ import annotations

from msgspec import Struct

from appliance.api import shapes
from appliance.api.routes import Context, Nothing, Route, number, optional_number, parse_moment
from appliance.errors import Forbidden, Invalid, NotFound
from appliance.identity.scopes import Scope
from appliance.records import AuthKey, AuthKeyID, UserID
from appliance.tailnet import keys, users
from appliance.tailnet.snapshot import Edit


class CreatePreAuthKey(Struct, frozen=True, kw_only=True, rename="camel"):
    """A key to be made. ``user`` is an id; 0 and "" mean none."""

    user: str | int = ""
    reusable: bool = False
    ephemeral: bool = False
    expiration: str = ""
    acl_tags: tuple[str, ...] = ()


class ListPreAuthKeys(Struct, frozen=True, kw_only=True):
    """Which keys: those of the user with this id, or all. (Clients up to 0.27 name a user.)"""

    user: str | int = ""


class NamePreAuthKey(Struct, frozen=True, kw_only=True):
    """Which key: by id; or, as clients up to 0.27 name it, by its text and its user's id."""

    id: str | int = ""
    key: str = ""
    user: str | int = ""


async def create(ctx: Context, body: CreatePreAuthKey) -> shapes.PreAuthKeyAnswer:
    """Make a key; without an expiration it gets the default lifetime of one hour.

    (Headscale makes such a key expired from birth; its own command line always sends a time.)
    """
    now = ctx.live.clock()
    owner = optional_number(body.user, "user")
    ctx.check_tags(body.acl_tags)
    if owner is not None and ctx.caller.tags is not None:
        raise Forbidden("auth-key-of-user", "an OAuth client makes auth keys for its tags only")
    expires_at = parse_moment(body.expiration, "expiration") or now + keys.DEFAULT_LIFETIME
    async with ctx.edit() as edit:
        key, text = keys.create_auth_key(
            edit,
            user_id=None if owner is None else UserID(owner),
            tags=body.acl_tags,
            reusable=body.reusable,
            ephemeral=body.ephemeral,
            expires_at=expires_at,
            now=now,
            random_bytes=ctx.door.random_bytes,
        )
    shown = shapes.pre_auth_key(ctx.live.snapshot, key, text=text)
    return shapes.PreAuthKeyAnswer(pre_auth_key=shown)


async def show(ctx: Context, body: ListPreAuthKeys) -> shapes.PreAuthKeys:
    """List keys: all, or those of one user."""
    snapshot = ctx.live.snapshot
    found = sorted(snapshot.auth_keys.values(), key=lambda key: key.id)
    owner = optional_number(body.user, "user")
    if owner is not None:
        user = users.get(snapshot, UserID(owner))
        found = [key for key in found if key.user_id == user.id]
    shown = tuple(shapes.pre_auth_key(snapshot, key) for key in found)
    return shapes.PreAuthKeys(pre_auth_keys=shown)


async def expire(ctx: Context, body: NamePreAuthKey) -> Nothing:
    """Let a key run out now."""
    async with ctx.edit() as edit:
        keys.expire(edit, _named(edit, body).id, ctx.live.clock())
    return Nothing()


async def delete(ctx: Context, body: NamePreAuthKey) -> Nothing:
    """Remove a key."""
    async with ctx.edit() as edit:
        keys.delete(edit, _named(edit, body).id)
    return Nothing()


def _named(edit: Edit, body: NamePreAuthKey) -> AuthKey:
    """Find the key that a request names. Raises Invalid, NotFound."""
    if body.key:
        key = _with_text(edit, body.key)
        if body.id and AuthKeyID(number(str(body.id), "key")) != key.id:
            raise Invalid("member-contradiction", "id and key name two different keys: give one")
    else:
        key = keys.get(edit, AuthKeyID(number(str(body.id), "key")))
    owner = optional_number(body.user, "user")
    if owner is not None and key.user_id != owner:
        raise NotFound("auth-key-unknown", f"the user {owner} has no such auth key")
    return key


def _with_text(edit: Edit, text: str) -> AuthKey:
    """Find a key by its text: the whole of it, or as lists show it."""
    key_id = edit.by_key_prefix.get(text.removeprefix(keys.TEXT_PREFIX).removesuffix("-***"))
    key = keys.find(edit, text) if key_id is None else edit.auth_keys[key_id]
    if key is None:
        raise NotFound("auth-key-unknown", "there is no auth key with this text")
    return key


_PATH = "/api/v1/preauthkey"
ROUTES = (
    Route(
        "POST",
        _PATH,
        Scope.AUTH_KEYS,
        CreatePreAuthKey,
        shapes.PreAuthKeyAnswer,
        create,
        "preauthkey.create",
    ),
    Route("GET", _PATH, Scope.AUTH_KEYS_READ, ListPreAuthKeys, shapes.PreAuthKeys, show),
    Route(
        "POST",
        f"{_PATH}/expire",
        Scope.AUTH_KEYS,
        NamePreAuthKey,
        Nothing,
        expire,
        "preauthkey.expire",
    ),
    Route("DELETE", _PATH, Scope.AUTH_KEYS, NamePreAuthKey, Nothing, delete, "preauthkey.delete"),
)
