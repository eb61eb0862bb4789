"""``/api/v1/user``: see ``routes`` and ``shapes``."""

from __future__ import annotations

from msgspec import Struct

from appliance.api import shapes
from appliance.api.routes import Context, Nothing, Route, optional_number
from appliance.errors import Invalid
from appliance.identity import credentials, roles, sessions
from appliance.identity.scopes import Scope
from appliance.records import UserID
from appliance.tailnet import people, users


class CreateUser(Struct, frozen=True, kw_only=True, rename="camel"):
    """A user to be made."""

    name: str = ""
    display_name: str = ""
    email: str = ""
    picture_url: str = ""
    role: str = ""


class ListUsers(Struct, frozen=True, kw_only=True):
    """Which users: name counts before e-mail before id; none given means all."""

    id: str | int = ""
    name: str = ""
    email: str = ""


class SetRole(Struct, frozen=True, kw_only=True):
    """A role, as ``users set-role`` names them."""

    role: str = ""


class RoleSet(Struct, frozen=True, kw_only=True, rename="camel"):
    """A user with the new role, and who had it before if it was handed over."""

    user: shapes.User
    former_owner: shapes.User | None


async def create(ctx: Context, body: CreateUser) -> shapes.UserAnswer:
    """Add a user."""
    async with ctx.edit() as edit:
        roles.check_rank(ctx.caller, edit, None, users.check_role(body.role))
        user = users.create(
            edit,
            body.name,
            ctx.live.clock(),
            display_name=body.display_name,
            email=body.email,
            profile_pic_url=body.picture_url,
            role=users.check_role(body.role),
        )
    return shapes.UserAnswer(user=shapes.user(user))


class LinkUser(Struct, frozen=True, rename="camel"):
    """An account at an identity provider: ``subject`` is the provider's own name of it."""

    provider: str
    subject: str


async def show(ctx: Context, body: ListUsers) -> shapes.Users:
    """List users, filtered by name, e-mail or id."""
    user_id = optional_number(body.id, "user")
    found = users.find(
        ctx.live.snapshot,
        user_id=None if user_id is None else UserID(user_id),
        name=body.name,
        email=body.email,
    )
    if ctx.only is not None:
        found = [user for user in found if user.id == ctx.only]
    return shapes.Users(users=tuple(map(shapes.user, found)))


async def rename(ctx: Context, _: Nothing) -> shapes.UserAnswer:
    """Give a user another name."""
    async with ctx.edit() as edit:
        roles.check_rank(ctx.caller, edit, ctx.user_id)
        user = users.rename(edit, ctx.user_id, ctx.path["name"])
    return shapes.UserAnswer(user=shapes.user(user))


async def set_role(ctx: Context, body: SetRole) -> RoleSet:
    """Give a user another role; an owner before becomes an administrator."""
    user_id = ctx.user_id
    role = users.check_role(body.role)
    async with ctx.edit() as edit:
        roles.check_rank(ctx.caller, edit, user_id, role)
        owner = users.owner_of(edit)
        is_same = users.get(edit, user_id).role is role
        user = users.set_role(edit, user_id, role)
        if not is_same:
            credentials.take_back_invitations(edit, user_id)
        former = None if owner is None or owner.id == user.id else edit.users[owner.id]
    is_handed_over = former is not None and former is not owner
    return RoleSet(
        user=shapes.user(user),
        former_owner=shapes.user(former) if former is not None and is_handed_over else None,
    )


async def link(ctx: Context, body: LinkUser) -> shapes.UserAnswer:
    """Let an account of an identity provider log in as this user."""
    user_id = ctx.user_id
    issuer = await ctx.door.issuer_of(body.provider)
    if not 0 < len(body.subject) <= people.MAX_SUBJECT_CHARS or not body.subject.isprintable():
        raise Invalid("subject-invalid", "say which account: the provider's own name of it (sub)")
    async with ctx.edit() as edit:
        roles.check_rank(
            ctx.caller, edit, user_id
        )  # whoever has the account is the user from now on
        user = people.link(
            edit,
            users.get(edit, user_id),
            provider=body.provider,
            issuer=issuer,
            subject=body.subject,
        )
    return shapes.UserAnswer(user=shapes.user(user))


async def unlink(ctx: Context, _: Nothing) -> shapes.UserAnswer:
    """Take away a user's account at an identity provider, its groups and all sessions."""
    async with ctx.edit() as edit:
        roles.check_rank(ctx.caller, edit, ctx.user_id)
        user = people.unlink(edit, users.get(edit, ctx.user_id))
        sessions.end_all(edit, user.id)  # whoever has the account may sit at one of them
    return shapes.UserAnswer(user=shapes.user(user))


async def destroy(ctx: Context, _: Nothing) -> Nothing:
    """Remove a user."""
    async with ctx.edit() as edit:
        roles.check_rank(ctx.caller, edit, ctx.user_id)
        users.destroy(edit, ctx.user_id)
    return Nothing()


_ONE = "/api/v1/user/{user_id}"
ROUTES = (
    Route(
        "POST", "/api/v1/user", Scope.USERS, CreateUser, shapes.UserAnswer, create, "user.create"
    ),
    Route("GET", "/api/v1/user", Scope.USERS_READ, ListUsers, shapes.Users, show, own=True),
    Route(
        "POST",
        f"{_ONE}/rename/{{name}}",
        Scope.USERS,
        Nothing,
        shapes.UserAnswer,
        rename,
        "user.rename",
    ),
    Route("POST", f"{_ONE}/role", Scope.USERS, SetRole, RoleSet, set_role, "user.set-role"),
    Route("POST", f"{_ONE}/link", Scope.USERS, LinkUser, shapes.UserAnswer, link, "user.link"),
    Route("POST", f"{_ONE}/unlink", Scope.USERS, Nothing, shapes.UserAnswer, unlink, "user.unlink"),
    Route("DELETE", _ONE, Scope.USERS, Nothing, Nothing, destroy, "user.destroy"),
)
