"""``/api/v1/user``: see ``door`` and ``shapes``."""

from __future__ import annotations

from aiohttp import web
from msgspec import Struct

from appliance.api import shapes
from appliance.api.door import answer, body_of, live_of, number, path_number
from appliance.identity.principals import LOCAL
from appliance.records import UserID
from appliance.tailnet import users


class CreateUser(Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of a creation."""

    name: str = ""
    display_name: str = ""
    email: str = ""
    picture_url: str = ""
    role: str = ""


class SetRole(Struct, frozen=True, kw_only=True):
    """The body of a change of role."""

    role: str = ""


async def create(request: web.Request) -> web.Response:
    """Add a user."""
    body = await body_of(request, CreateUser)
    live = live_of(request)
    async with live.edit(by=LOCAL) as edit:
        user = users.create(
            edit,
            body.name,
            live.clock(),
            display_name=body.display_name,
            email=body.email,
            profile_pic_url=body.picture_url,
            role=users.check_role(body.role),
        )
    return answer({"user": shapes.user(user)})


async def show(request: web.Request) -> web.Response:
    """List users, filtered by name, e-mail or id."""
    query = request.query
    identifier = query.get("id", "")
    found = users.find(
        live_of(request).snapshot,
        user_id=UserID(number(identifier, "user")) if identifier not in ("", "0") else None,
        name=query.get("name", ""),
        email=query.get("email", ""),
    )
    return answer({"users": [shapes.user(user) for user in found]})


async def rename(request: web.Request) -> web.Response:
    """Give a user another name."""
    user_id = UserID(path_number(request, "user_id", "user"))
    async with live_of(request).edit(by=LOCAL) as edit:
        user = users.rename(edit, user_id, request.match_info["name"])
    return answer({"user": shapes.user(user)})


async def set_role(request: web.Request) -> web.Response:
    """Give a user another role; an owner before becomes an administrator."""
    user_id = UserID(path_number(request, "user_id", "user"))
    body = await body_of(request, SetRole)
    role = users.check_role(body.role)
    async with live_of(request).edit(by=LOCAL) as edit:
        owner = users.owner_of(edit)
        user = users.set_role(edit, user_id, role)
        former = None if owner is None or owner.id == user.id else edit.users[owner.id]
    is_handed_over = former is not None and former is not owner
    return answer(
        {
            "user": shapes.user(user),
            "formerOwner": shapes.user(former) if former is not None and is_handed_over else None,
        }
    )


async def destroy(request: web.Request) -> web.Response:
    """Remove a user."""
    user_id = UserID(path_number(request, "user_id", "user"))
    async with live_of(request).edit(by=LOCAL) as edit:
        users.destroy(edit, user_id)
    return answer({})


ROUTES = (
    web.post("/api/v1/user", create),
    web.get("/api/v1/user", show),
    web.post("/api/v1/user/{user_id}/rename/{name}", rename),
    web.post("/api/v1/user/{user_id}/role", set_role),
    web.delete("/api/v1/user/{user_id}", destroy),
)
