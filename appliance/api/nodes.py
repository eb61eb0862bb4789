"""``/api/v1/node``: see ``door`` and ``shapes``."""

from __future__ import annotations

from ipaddress import ip_network

from aiohttp import web
from msgspec import Struct

from appliance.api import shapes
from appliance.api.door import answer, body_of, door_of, live_of, parse_moment, path_number
from appliance.errors import Invalid
from appliance.identity.principals import LOCAL
from appliance.live import LiveTailnet
from appliance.records import Network, Node, NodeID
from appliance.tailnet import nodes


class Expire(Struct, frozen=True, kw_only=True, rename="camel"):
    """When a node's key runs out; nothing said means now."""

    expiry: str | None = None
    disable_expiry: bool = False


class SetTags(Struct, frozen=True, kw_only=True):
    """The body of a tagging."""

    tags: tuple[str, ...] = ()


class ApproveRoutes(Struct, frozen=True, kw_only=True):
    """The body of an approval."""

    routes: tuple[str, ...] = ()


async def show(request: web.Request) -> web.Response:
    """List nodes, all or those of one user."""
    snapshot = live_of(request).snapshot
    owner = request.query.get("user", "")
    found = sorted(snapshot.nodes.values(), key=lambda node: node.id)
    if owner:
        ids = {user.id for user in snapshot.users.values() if user.name == owner}
        found = [node for node in found if node.user_id in ids]
    return answer({"nodes": [shapes.node(snapshot, node, in_list=True) for node in found]})


async def get(request: web.Request) -> web.Response:
    """Show one node."""
    node_id = _node_id(request)
    live = live_of(request)
    return _node(live, nodes.get(live.snapshot, node_id))


async def delete(request: web.Request) -> web.Response:
    """Remove a node."""
    async with live_of(request).edit(by=LOCAL) as edit:
        nodes.delete(edit, _node_id(request))
    return answer({})


async def expire(request: web.Request) -> web.Response:
    """Let a node's key run out now or at a time, or never."""
    node_id = _node_id(request)
    body = await body_of(request, Expire)
    live = live_of(request)
    if body.disable_expiry and body.expiry:
        raise Invalid("expiry-contradiction", "give expiry or disableExpiry, not both")
    if body.expiry == "":  # an unset variable of a script must not expire a node
        raise Invalid("time-invalid", "expiry is empty: leave it out to expire the node now")
    at = parse_moment(body.expiry or "", "expiry")
    async with live.edit(by=LOCAL) as edit:
        if body.disable_expiry:
            node = nodes.never_expire(edit, node_id, live.clock())
        else:
            node = nodes.expire(edit, node_id, live.clock(), at=at)
    return _node(live, node)


async def rename(request: web.Request) -> web.Response:
    """Give a node another MagicDNS name."""
    live = live_of(request)
    async with live.edit(by=LOCAL) as edit:
        node = nodes.rename(edit, _node_id(request), request.match_info["name"])
    return _node(live, node)


async def set_tags(request: web.Request) -> web.Response:
    """Set a node's tags."""
    node_id = _node_id(request)
    body = await body_of(request, SetTags)
    live = live_of(request)
    async with live.edit(by=LOCAL) as edit:
        node = nodes.set_tags(edit, node_id, body.tags, live.clock())
    return _node(live, node)


async def approve_routes(request: web.Request) -> web.Response:
    """Set which routes of a node are approved."""
    node_id = _node_id(request)
    body = await body_of(request, ApproveRoutes)
    routes = [_route(text) for text in body.routes]
    live = live_of(request)
    async with live.edit(by=LOCAL) as edit:
        node = nodes.approve_routes(edit, node_id, routes)
    return _node(live, node)


async def backfill(request: web.Request) -> web.Response:
    """Give nodes the addresses that they lack."""
    if request.query.get("confirmed") != "true":
        raise Invalid("not-confirmed", "this changes nodes: confirm it with ?confirmed=true")
    live = live_of(request)
    async with live.edit(by=LOCAL) as edit:
        given = nodes.backfill_addresses(edit, door_of(request).rng)
    changes = [f"{node.name} ({node.id}) got {address}" for node, address in given]
    return answer({"changes": changes})


def _node_id(request: web.Request) -> NodeID:
    return NodeID(path_number(request, "node_id", "node"))


def _node(live: LiveTailnet, node: Node) -> web.Response:
    return answer({"node": shapes.node(live.snapshot, node, in_list=False)})


def _route(text: str) -> Network:
    try:
        return ip_network(text)
    except ValueError as error:
        raise Invalid("route-invalid", f"{text!r} is no prefix like 10.0.0.0/8: {error}") from error


ROUTES = (
    web.get("/api/v1/node", show),
    web.post("/api/v1/node/backfillips", backfill),
    web.get("/api/v1/node/{node_id}", get),
    web.delete("/api/v1/node/{node_id}", delete),
    web.post("/api/v1/node/{node_id}/expire", expire),
    web.post("/api/v1/node/{node_id}/rename/{name}", rename),
    web.post("/api/v1/node/{node_id}/tags", set_tags),
    web.post("/api/v1/node/{node_id}/approve_routes", approve_routes),
)
