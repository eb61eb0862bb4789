"""``/api/v1/node``: see ``routes`` and ``shapes``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from ipaddress import ip_network
from typing import cast

from msgspec import Struct

from appliance.api import shapes
from appliance.api.routes import Context, Nothing, Route, number, parse_moment
from appliance.errors import Forbidden, Invalid, NotFound
from appliance.identity.scopes import Scope
from appliance.records import Network, Node, UserID
from appliance.tailnet import addresses, nodes, users
from appliance.tailnet.snapshot import Edit, Snapshot


class ListNodes(Struct, frozen=True, kw_only=True):
    """Which nodes: those of the user of this name, or all."""

    user: str = ""


class Expire(Struct, frozen=True, kw_only=True, rename="camel"):
    """When a node's key runs out; nothing said means now."""

    expiry: str | None = None
    disable_expiry: bool = False


class SetTags(Struct, frozen=True, kw_only=True):
    """All tags that a node is to have."""

    tags: tuple[str, ...] = ()


class ApproveRoutes(Struct, frozen=True, kw_only=True):
    """All routes of a node that are to be approved."""

    routes: tuple[str, ...] = ()


class MoveNode(Struct, frozen=True, kw_only=True):
    """The user who is to own a node, by id or by name."""

    user: str | int = ""


class Backfill(Struct, frozen=True, kw_only=True):
    """The confirmation that nodes may be changed; or ``plan``, which only says what would be."""

    confirmed: bool = False
    plan: bool = False


class Backfilled(Struct, frozen=True, kw_only=True):
    """What was changed (or would be), in words."""

    changes: tuple[str, ...]


async def show(ctx: Context, body: ListNodes) -> shapes.Nodes:
    """List nodes, all or those of one user."""
    snapshot = ctx.live.snapshot
    found: Sequence[Node] = sorted(snapshot.nodes.values(), key=lambda node: node.id)
    if ctx.only is not None:
        found = [node for node in found if node.user_id == ctx.only]
    elif body.user:
        owner = _owner_named(snapshot, body.user)
        found = [node for node in found if node.owner_id == owner]
    shown, release = ctx.door.shown_nodes, ctx.door.release
    encoded = tuple(shown.show(snapshot, node, release) for node in found)
    return shapes.Nodes(nodes=cast(tuple[shapes.Node, ...], encoded))  # they are, as JSON


async def get(ctx: Context, _: Nothing) -> shapes.NodeAnswer:
    """Show one node."""
    return _answer(ctx, ctx.node(ctx.live.snapshot))


async def delete(ctx: Context, _: Nothing) -> Nothing:
    """Remove a node."""
    async with ctx.edit() as edit:
        nodes.delete(edit, ctx.node(edit).id)
    return Nothing()


async def expire(ctx: Context, body: Expire) -> shapes.NodeAnswer:
    """Let a node's key run out now or at a time, or never."""
    if body.disable_expiry and body.expiry:
        raise Invalid("expiry-contradiction", "give expiry or disableExpiry, not both")
    if body.expiry == "":  # an unset variable of a script must not expire a node
        raise Invalid("time-invalid", "expiry is empty: leave it out to expire the node now")
    at = parse_moment(body.expiry or "", "expiry")
    if ctx.only is not None and (body.disable_expiry or at is not None):
        raise Forbidden(
            "scope-missing", f"a user may log a node out, and not choose its expiry: {_CORE}"
        )
    async with ctx.edit() as edit:
        node_id = ctx.node(edit).id
        if body.disable_expiry:
            node = nodes.never_expire(edit, node_id, ctx.live.clock())
        else:
            node = nodes.expire(edit, node_id, ctx.live.clock(), at=at)
    return _answer(ctx, node)


async def rename(ctx: Context, _: Nothing) -> shapes.NodeAnswer:
    """Give a node another MagicDNS name."""
    async with ctx.edit() as edit:
        node = nodes.rename(edit, ctx.node(edit).id, ctx.path["name"])
    return _answer(ctx, node)


async def set_tags(ctx: Context, body: SetTags) -> shapes.NodeAnswer:
    """Set a node's tags."""
    ctx.check_tags(body.tags)
    async with ctx.edit() as edit:
        node = nodes.set_tags(edit, ctx.node_id, body.tags, ctx.live.clock())
    return _answer(ctx, node)


async def approve_routes(ctx: Context, body: ApproveRoutes) -> shapes.NodeAnswer:
    """Set which routes of a node are approved."""
    routes = [_route(text) for text in body.routes]
    async with ctx.edit() as edit:
        node = nodes.approve_routes(edit, ctx.node_id, routes)
    return _answer(ctx, node)


async def move(ctx: Context, body: MoveNode) -> shapes.NodeAnswer:
    """Give a node to a user; a tagged node loses its tags."""
    if ctx.caller.tags is not None:
        raise Forbidden("node-of-user", "an OAuth client gives nodes its tags, and to no user")
    async with ctx.edit() as edit:
        node = nodes.move(edit, ctx.node_id, _user_meant(edit, str(body.user)))
    return _answer(ctx, node)


async def backfill(ctx: Context, body: Backfill) -> Backfilled:
    """Make the addresses of all nodes fit the prefixes: give what lacks, take away what was left."""
    if body.plan:
        changed = addresses.plan_backfill(ctx.live.snapshot, ctx.door.rng)
    elif body.confirmed:
        async with ctx.edit() as edit:
            changed = addresses.backfill(edit, ctx.door.rng)
    else:
        raise Invalid(
            "not-confirmed",
            "this changes nodes: see what it would do with ?plan=true, and confirm it with"
            " ?confirmed=true",
        )
    return Backfilled(changes=tuple(sentence for each in changed for sentence in _changes(each)))


def _changes(changed: addresses.Readdressed) -> Iterator[str]:
    """Say what a backfill did to a node, an address a sentence."""
    who = f"{changed.node.name} ({changed.node.id})"
    for address in changed.removed:
        yield f"{who} lost {address}"
    for address in changed.added:
        yield f"{who} got {address}"


def _owner_named(snapshot: Snapshot, name: str) -> UserID:
    """Find whose nodes a filter means. Raises NotFound: a typo must not look like "no nodes"."""
    if name == shapes.TAGGED.name:
        return UserID(int(shapes.TAGGED.id))
    for user in snapshot.users.values():
        if name in (user.name, shapes.user(user).name):
            return user.id
    raise NotFound("user-unknown", f"there is no user named {name!r}", concerns=name)


def _user_meant(edit: Edit, text: str) -> UserID:
    """Find the user whom an id or a name means. Raises Invalid, NotFound."""
    if text.isascii() and text.isdigit():
        return users.get(edit, UserID(number(text, "user"))).id
    return users.find_one(edit, name=text).id


def _answer(ctx: Context, node: Node) -> shapes.NodeAnswer:
    shown = shapes.node(ctx.live.snapshot, node, in_list=False, release=ctx.door.release)
    return shapes.NodeAnswer(node=shown)


def _route(text: str) -> Network:
    """Read a route; bits beyond the prefix are masked, as Headscale does."""
    try:
        return ip_network(text.strip(), strict=False)
    except ValueError as error:
        raise Invalid("route-invalid", f"{text!r} is no prefix like 10.0.0.0/8: {error}") from error


_ALL = "/api/v1/node"
_ONE = "/api/v1/node/{node_id}"
_CORE, _CORE_READ = Scope.DEVICES_CORE, Scope.DEVICES_CORE_READ
ROUTES = (
    Route("GET", _ALL, _CORE_READ, ListNodes, shapes.Nodes, show, own=True),
    Route("POST", f"{_ALL}/backfillips", _CORE, Backfill, Backfilled, backfill, "node.backfill"),
    Route("GET", _ONE, _CORE_READ, Nothing, shapes.NodeAnswer, get, own=True),
    Route("DELETE", _ONE, _CORE, Nothing, Nothing, delete, "node.delete", own=True),
    Route(
        "POST", f"{_ONE}/expire", _CORE, Expire, shapes.NodeAnswer, expire, "node.expire", own=True
    ),
    Route(
        "POST",
        f"{_ONE}/rename/{{name}}",
        _CORE,
        Nothing,
        shapes.NodeAnswer,
        rename,
        "node.rename",
        own=True,
    ),
    Route("POST", f"{_ONE}/tags", _CORE, SetTags, shapes.NodeAnswer, set_tags, "node.tag"),
    # As clients of Headscale up to 0.27 call it.
    Route("POST", f"{_ONE}/user", _CORE, MoveNode, shapes.NodeAnswer, move, "node.move"),
    Route(
        "POST",
        f"{_ONE}/approve_routes",
        Scope.DEVICES_ROUTES,
        ApproveRoutes,
        shapes.NodeAnswer,
        approve_routes,
        "node.approve-routes",
    ),
)
