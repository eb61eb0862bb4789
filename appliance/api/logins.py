"""``/api/v1/auth``: logins of machines and of SSH that wait, as Headscale's tools decide them; see ``routes``.

Also ``/api/v1/node/register``, which older tools know, and the links by which people sign in.
"""

from __future__ import annotations

from msgspec import Struct

from appliance.api import shapes, ssh
from appliance.api.routes import Context, Nothing, Route
from appliance.api.shapes import Moment
from appliance.errors import Forbidden, Invalid, NotFound
from appliance.identity import credentials, roles
from appliance.identity.scopes import Scope, covers
from appliance.identity.sshchecks import Verdict
from appliance.records import Credential, CredentialKind, RegisterMethod, User
from appliance.tailnet import logins, users
from appliance.tailnet.enrolment import LoginGrant, Pending


class AuthID(Struct, frozen=True, kw_only=True, rename="camel"):
    """Which login, in Headscale's form."""

    auth_id: str = ""


class RegisterLogin(Struct, frozen=True, kw_only=True, rename="camel"):
    """Which login, and the name of the user whose node it becomes."""

    user: str = ""
    auth_id: str = ""


class RegisterNode(Struct, frozen=True, kw_only=True):
    """The same, in the form of older releases of Headscale."""

    user: str = ""
    key: str = ""


class Login(Struct, frozen=True, kw_only=True, rename="camel"):
    """A machine that asks to join: what it says of itself, and from where it asks.

    ``authId`` and ``url`` are empty for those who may not let it in.
    """

    auth_id: str
    url: str
    hostname: str
    os: str
    client_version: str
    tags: tuple[str, ...]
    machine_key: str
    source: str
    asked_at: Moment
    expires_at: Moment


class Logins(Struct, frozen=True, kw_only=True):
    """Machines that wait."""

    logins: tuple[Login, ...]


class SignInLink(Struct, frozen=True, kw_only=True):
    """Whom the link signs in; empty means the owner of the tailnet."""

    user: str = ""


class Invite(Struct, frozen=True, kw_only=True, rename="camel"):
    """Who is invited; a user of this name is made unless there is one who never signed in."""

    name: str = ""
    email: str = ""
    display_name: str = ""
    role: str = ""


class Link(Struct, frozen=True, kw_only=True, rename="camel"):
    """A link that works once, and until when; it is shown now and never again."""

    user: shapes.User
    url: str
    expires_at: Moment | None


async def pending(ctx: Context, _: Nothing) -> Logins:
    """List the machines that wait to be let in.

    Whoever knows the id of one may have it joined as theirs: those who only look are not told it, nor
    are other tailnets of the machine.
    """
    caller = ctx.caller
    is_told = caller.may(Scope.DEVICES_CORE)
    found = ctx.door.logins.pending(None if caller.tailnet is None else ctx.live.id)
    return Logins(logins=tuple(_login(each, is_told=is_told) for each in found))


async def register(ctx: Context, body: RegisterLogin) -> shapes.NodeAnswer:
    """Let a machine in as a user's node."""
    return await _register(ctx, body.user, body.auth_id)


async def register_node(ctx: Context, body: RegisterNode) -> shapes.NodeAnswer:
    """Let a machine in as a user's node, as older tools say it."""
    return await _register(ctx, body.user, body.key)


async def approve(ctx: Context, body: AuthID) -> Nothing:
    """Let an SSH login in, as Headscale's tools say it."""
    if _is_machines(ctx, body.auth_id):
        raise Invalid(
            "login-needs-user",
            "this is a machine that asks to join: say whose it becomes "
            "(headwater auth register --user NAME --auth-id ID)",
        )
    ssh.decided(ctx, body.auth_id, Verdict.APPROVED)
    return Nothing()


async def reject(ctx: Context, body: AuthID) -> Nothing:
    """Turn a machine or an SSH login away, as Headscale's tools say it."""
    if _is_machines(ctx, body.auth_id):
        if not covers(ctx.caller.scopes, Scope.DEVICES_CORE):
            raise Forbidden(
                "scope-missing", f"to turn machines away needs the scope {Scope.DEVICES_CORE}"
            )
        ctx.door.logins.reject(body.auth_id, by=ctx.principal)
    else:
        ssh.decided(ctx, body.auth_id, Verdict.DENIED)
    return Nothing()


async def sign_in_link(ctx: Context, body: SignInLink) -> Link:
    """Make a link that signs a user in; the first one makes the owner."""
    now = ctx.live.clock()
    async with ctx.edit() as edit:
        user = credentials.holder(edit, body.user, now)
        text, link = credentials.make_link(
            edit, user.id, CredentialKind.LINK, now, random_bytes=ctx.door.random_bytes
        )
    return _link(ctx, user, f"/signin/link/{text}", link)


async def invite(ctx: Context, body: Invite) -> Link:
    """Invite a person by a link."""
    now = ctx.live.clock()
    role = users.check_role(body.role)
    async with ctx.edit() as edit:
        found = users.find(edit, name=body.name) if body.name else []
        if found:
            user = found[0]
            roles.check_rank(ctx.caller, edit, user.id)
            credentials.check_never_signed_in(edit, user)
        else:
            roles.check_rank(ctx.caller, edit, None, role)
            user = users.create(
                edit,
                body.name,
                now,
                display_name=body.display_name,
                email=body.email,
                role=role,
            )
        text, link = credentials.make_link(
            edit, user.id, CredentialKind.INVITATION, now, random_bytes=ctx.door.random_bytes
        )
    return _link(ctx, user, f"/invite/{text}", link)


def _link(ctx: Context, user: User, path: str, made: Credential) -> Link:
    url = f"{ctx.door.base_url}{path}"
    return Link(user=shapes.user(user), url=url, expires_at=made.expires_at)


async def _register(ctx: Context, name: str, auth_id: str) -> shapes.NodeAnswer:
    if ctx.caller.tags is not None:
        raise Forbidden("node-of-user", "an OAuth client lets nodes in by auth keys with its tags")
    ctx.door.logins.find(auth_id)
    user = users.find_one(ctx.live.snapshot, name=name)
    node = await ctx.door.logins.approve(
        ctx.live, auth_id, LoginGrant(user.id, RegisterMethod.CLI), by=ctx.principal
    )
    shown = shapes.node(ctx.live.snapshot, node, in_list=False, release=ctx.door.release)
    return shapes.NodeAnswer(node=shown)


def _is_machines(ctx: Context, auth_id: str) -> bool:
    """Return whether an id is that of a machine's login rather than of an SSH login."""
    try:
        ctx.door.logins.find(auth_id)
    except Invalid:
        return False
    except NotFound:
        return len(logins.plain_id(auth_id)) == logins.ID_LENGTH
    return True


def _login(pending: Pending, *, is_told: bool) -> Login:
    said = pending.request.hostinfo
    return Login(
        auth_id=f"{logins.ID_PREFIX}{pending.id}" if is_told else "",
        url=pending.url if is_told else "",
        hostname="" if said is None else said.hostname,
        os="" if said is None else said.os,
        client_version="" if said is None else said.ipn_version,
        tags=() if said is None else said.request_tags,
        machine_key=str(pending.machine),
        source=pending.source,
        asked_at=pending.asked_at,
        expires_at=pending.expires_at,
    )


_AUTH = "/api/v1/auth"
_CORE = Scope.DEVICES_CORE
ROUTES = (
    Route("GET", "/api/v1/login", Scope.DEVICES_CORE_READ, Nothing, Logins, pending),
    Route(
        "POST", f"{_AUTH}/register", _CORE, RegisterLogin, shapes.NodeAnswer, register,
        act="node.register",
    ),
    Route(
        "POST", "/api/v1/node/register", _CORE, RegisterNode, shapes.NodeAnswer, register_node,
        act="node.register",
    ),
    Route("POST", f"{_AUTH}/approve", Scope.SSH_CHECKS, AuthID, Nothing, approve),
    Route("POST", f"{_AUTH}/reject", Scope.SSH_CHECKS, AuthID, Nothing, reject),
    Route(
        "POST", "/api/v1/signin/link", Scope.ALL, SignInLink, Link, sign_in_link,
        act="credential.create", is_local=True,
    ),
    Route("POST", "/api/v1/invitation", Scope.USERS, Invite, Link, invite, act="user.invite"),
)  # fmt: skip
