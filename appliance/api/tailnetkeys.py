"""``/api/v2/tailnet/{tailnet}/keys``: auth keys and OAuth clients, as the hosted service has them.

What stock clients ask for with the secret of a client (``tskey-client-…``), and what tools manage
clients with. Not for API keys, which the hosted service does not let programs make (``apikeys``).
Source: https://tailscale.com/api, "keys"; tailscale client/tailscale/keys.go.
"""

from __future__ import annotations

from datetime import timedelta

from msgspec import UNSET, Struct, UnsetType

from appliance.api.routes import Context, Nothing, Route
from appliance.api.shapes import Moment
from appliance.errors import Invalid, NotFound
from appliance.identity.scopes import Scope, check_grant, read_scopes
from appliance.records import AuthKey, OAuthClient
from appliance.tailnet import keys, oauthclients
from appliance.tailnet.snapshot import Edit, Snapshot

DEFAULT_EXPIRY_S = 90 * 24 * 3600
"""Of an auth key; the hosted service's choice."""
MAX_EXPIRY_S = 3650 * 24 * 3600

AUTH, CLIENT = "auth", "client"


class Creating(Struct, frozen=True, kw_only=True):
    """What nodes are that come in with a key. ``preauthorized`` says that nobody has to approve."""

    reusable: bool = False
    ephemeral: bool = False
    preauthorized: bool = False
    tags: tuple[str, ...] = ()


class Devices(Struct, frozen=True, kw_only=True):
    """What a key is good for, of devices."""

    create: Creating = Creating()


class Capabilities(Struct, frozen=True, kw_only=True):
    """What a key is good for."""

    devices: Devices = Devices()


class CreateKey(Struct, frozen=True, kw_only=True, rename="camel"):
    """A key to be made: ``auth`` for nodes, or ``client`` for programs."""

    key_type: str = AUTH
    capabilities: Capabilities = Capabilities()
    expiry_seconds: int = DEFAULT_EXPIRY_S
    description: str = ""
    scopes: tuple[str, ...] = ()
    tags: tuple[str, ...] = ()


class Key(Struct, frozen=True, kw_only=True, rename="camel"):
    """A key; ``key`` is there only in the answer that made it."""

    id: str
    key_type: str
    key: str | UnsetType = UNSET
    description: str = ""
    created: Moment
    expires: Moment | UnsetType = UNSET
    expiry_seconds: int | UnsetType = UNSET
    invalid: bool = False
    capabilities: Capabilities | UnsetType = UNSET
    scopes: tuple[str, ...] | UnsetType = UNSET
    tags: tuple[str, ...] | UnsetType = UNSET
    user_id: str | UnsetType = UNSET
    last_used: Moment | UnsetType | None = UNSET
    """Ours: when a client last asked for a token or used one."""


class Keys(Struct, frozen=True, kw_only=True):
    """Keys that the caller may see."""

    keys: tuple[Key, ...]


async def create(ctx: Context, body: CreateKey) -> Key:
    """Make an auth key, or an OAuth client; the text is never shown again."""
    if body.key_type == CLIENT:
        return await _create_client(ctx, body)
    if body.key_type != AUTH:
        raise Invalid("key-type-unknown", "keyType is auth or client", concerns=body.key_type[:40])
    ctx.require(Scope.AUTH_KEYS)
    wanted = body.capabilities.devices.create
    if not 1 <= (body.expiry_seconds or DEFAULT_EXPIRY_S) <= MAX_EXPIRY_S:
        raise Invalid("expiry-invalid", f"expirySeconds is from 1 to {MAX_EXPIRY_S}")
    now = ctx.live.clock()
    ctx.check_tags(wanted.tags)
    async with ctx.edit() as edit:
        key, text = keys.create_auth_key(
            edit,
            user_id=None if wanted.tags else ctx.caller.user_id,
            tags=wanted.tags,
            reusable=wanted.reusable,
            ephemeral=wanted.ephemeral,
            expires_at=now + timedelta(seconds=body.expiry_seconds or DEFAULT_EXPIRY_S),
            now=now,
            random_bytes=ctx.door.random_bytes,
        )
    return _auth_key(ctx, key, text)


async def _create_client(ctx: Context, body: CreateKey) -> Key:
    ctx.require(Scope.OAUTH_KEYS)
    scopes = read_scopes(body.scopes)
    check_grant(ctx.caller, scopes)
    ctx.check_tags(body.tags, may_be_none=True)
    async with ctx.edit() as edit:
        client, text = oauthclients.create(
            edit,
            scopes=sorted(scopes),
            tags=body.tags,
            user_id=ctx.caller.user_id,
            created_by=str(ctx.principal),
            description=body.description,
            now=ctx.live.clock(),
            random_bytes=ctx.door.random_bytes,
        )
    return _client(ctx, client, text)


async def show(ctx: Context, _: Nothing) -> Keys:
    """List auth keys and OAuth clients, of those kinds that the caller may see."""
    snapshot, found = ctx.live.snapshot, []
    if ctx.caller.may(Scope.AUTH_KEYS_READ):
        ordered = sorted(snapshot.auth_keys.values(), key=lambda key: key.id)
        found += [_auth_key(ctx, key) for key in ordered]
    if ctx.caller.may(Scope.OAUTH_KEYS_READ):
        clients = sorted(snapshot.oauth_clients.values(), key=lambda client: client.id)
        found += [_client(ctx, client) for client in clients]
    return Keys(keys=tuple(found))


async def get(ctx: Context, _: Nothing) -> Key:
    """Show an auth key or an OAuth client."""
    found = _named(ctx.live.snapshot, ctx.path["key_id"])
    if isinstance(found, AuthKey):
        ctx.require(Scope.AUTH_KEYS_READ)
        return _auth_key(ctx, found)
    ctx.require(Scope.OAUTH_KEYS_READ)
    return _client(ctx, found)


async def delete(ctx: Context, _: Nothing) -> Nothing:
    """Remove an auth key, or an OAuth client with all its tokens; nodes stay."""
    async with ctx.edit() as edit:
        found = _named(edit, ctx.path["key_id"])
        if isinstance(found, AuthKey):
            ctx.require(Scope.AUTH_KEYS)
            keys.delete(edit, found.id)
        else:
            ctx.require(Scope.OAUTH_KEYS)
            oauthclients.delete(edit, found.prefix)
    return Nothing()


def _named(state: Snapshot | Edit, key_id: str) -> AuthKey | OAuthClient:
    """Find a key by its public id. Raises NotFound."""
    auth_key_id = state.by_key_prefix.get(key_id)
    if auth_key_id is not None:
        return state.auth_keys[auth_key_id]
    if key_id in state.by_client_id:
        return oauthclients.get(state, key_id)
    raise NotFound("key-unknown", f"there is no key with the id {key_id[:40]!r}")


def _auth_key(ctx: Context, key: AuthKey, text: str = "") -> Key:
    creating = Creating(
        reusable=key.reusable, ephemeral=key.ephemeral, preauthorized=True, tags=key.tags
    )
    lifetime = None if key.expires_at is None else key.expires_at - key.created_at
    return Key(
        id=key.prefix,
        key_type=AUTH,
        key=text or UNSET,
        created=key.created_at,
        expires=key.expires_at or UNSET,
        expiry_seconds=UNSET if lifetime is None else int(lifetime.total_seconds()),
        invalid=keys.is_expired(key, ctx.live.clock()) or keys.is_used_up(key),
        capabilities=Capabilities(devices=Devices(create=creating)),
        user_id=UNSET if key.user_id is None else str(key.user_id),
    )


def _client(ctx: Context, client: OAuthClient, text: str = "") -> Key:
    return Key(
        id=client.prefix,
        key_type=CLIENT,
        key=text or UNSET,
        description=client.description,
        created=client.created_at,
        scopes=client.scopes,
        tags=client.tags,
        user_id=UNSET if client.user_id is None else str(client.user_id),
        last_used=ctx.door.key_uses.last(ctx.live.id, client),
    )


_ALL = "/api/v2/tailnet/{tailnet}/keys"
_ONE = f"{_ALL}/{{key_id}}"
_READ, _CHANGE = Scope.AUTH_KEYS_READ, Scope.AUTH_KEYS
ROUTES = (
    Route("GET", _ALL, _READ, Nothing, Keys, show, or_scope=Scope.OAUTH_KEYS_READ),
    Route("POST", _ALL, _CHANGE, CreateKey, Key, create, "key.create", or_scope=Scope.OAUTH_KEYS),
    Route("GET", _ONE, _READ, Nothing, Key, get, or_scope=Scope.OAUTH_KEYS_READ),
    Route(
        "DELETE", _ONE, _CHANGE, Nothing, Nothing, delete, "key.delete", or_scope=Scope.OAUTH_KEYS
    ),
)
