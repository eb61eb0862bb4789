"""``/api/v1/preauthkey``: see ``door`` and ``shapes``."""

from __future__ import annotations

from aiohttp import web
from msgspec import Struct

from appliance.api import shapes
from appliance.api.door import answer, body_of, door_of, live_of, number, parse_moment
from appliance.identity.principals import LOCAL
from appliance.records import AuthKeyID, UserID
from appliance.tailnet import keys


class CreatePreAuthKey(Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of a creation. ``user`` is an id; 0 and "" mean none."""

    user: str | int = ""
    reusable: bool = False
    ephemeral: bool = False
    expiration: str = ""
    acl_tags: tuple[str, ...] = ()


class ExpirePreAuthKey(Struct, frozen=True, kw_only=True):
    """The body of an expiry."""

    id: str | int = ""


async def create(request: web.Request) -> web.Response:
    """Make a key; without an expiration it gets the default lifetime of one hour.

    (Headscale makes such a key expired from birth; its own command line always sends a time.)
    """
    body = await body_of(request, CreatePreAuthKey)
    live = live_of(request)
    now = live.clock()
    owner = str(body.user)
    async with live.edit(by=LOCAL) as edit:
        key, text = keys.create_auth_key(
            edit,
            user_id=None if owner in ("", "0") else UserID(number(owner, "user")),
            tags=body.acl_tags,
            reusable=body.reusable,
            ephemeral=body.ephemeral,
            expires_at=parse_moment(body.expiration, "expiration") or now + keys.DEFAULT_LIFETIME,
            now=now,
            random_bytes=door_of(request).random_bytes,
        )
    return answer({"preAuthKey": shapes.pre_auth_key(live.snapshot, key, text=text)})


async def show(request: web.Request) -> web.Response:
    """List all keys."""
    snapshot = live_of(request).snapshot
    found = sorted(snapshot.auth_keys.values(), key=lambda key: key.id)
    return answer({"preAuthKeys": [shapes.pre_auth_key(snapshot, key) for key in found]})


async def expire(request: web.Request) -> web.Response:
    """Let a key run out now."""
    body = await body_of(request, ExpirePreAuthKey)
    key_id = AuthKeyID(number(str(body.id), "key"))
    live = live_of(request)
    async with live.edit(by=LOCAL) as edit:
        keys.expire(edit, key_id, live.clock())
    return answer({})


async def delete(request: web.Request) -> web.Response:
    """Remove a key."""
    key_id = AuthKeyID(number(request.query.get("id", ""), "key"))
    async with live_of(request).edit(by=LOCAL) as edit:
        keys.delete(edit, key_id)
    return answer({})


ROUTES = (
    web.post("/api/v1/preauthkey", create),
    web.get("/api/v1/preauthkey", show),
    web.post("/api/v1/preauthkey/expire", expire),
    web.delete("/api/v1/preauthkey", delete),
)
