"""``…/attributes``, ``…/device-attributes``: posture attributes, as the hosted service has them.

See ``door`` and ``shapes``. Source: https://tailscale.com/api, "device posture attributes".
"""

from __future__ import annotations

import logging
from datetime import datetime

from aiohttp import web
from msgspec import Struct

from appliance.api import shapes
from appliance.api.door import answer, body_of, live_of, number, parse_moment, path_number
from appliance.identity.principals import LOCAL
from appliance.records import Node, NodeID
from appliance.tailnet import attributes, nodes
from appliance.tailnet.checkin import plain

log = logging.getLogger(__name__)


class Given(Struct, frozen=True, kw_only=True):
    """What an attribute is to be; ``value`` is plain JSON, the verb knows which are good."""

    value: object = None
    expiry: str = ""


class SetAttribute(Given, frozen=True, kw_only=True):
    """The body of a change of one attribute. ``comment`` goes into the log."""

    comment: str = ""


class SetAttributes(Struct, frozen=True, kw_only=True):
    """The body of a change of many: by node id, then by name; null takes an attribute away."""

    nodes: dict[str, dict[str, Given | None]] = {}
    comment: str = ""


async def show(request: web.Request) -> web.Response:
    """Show all that is known of a node, also what it reports itself."""
    return answer(shapes.attributes(nodes.get(live_of(request).snapshot, _node_id(request))))


async def put(request: web.Request) -> web.Response:
    """Give a node an attribute."""
    node_id, key = _node_id(request), request.match_info["key"]
    body = await body_of(request, SetAttribute)
    expires_at = parse_moment(body.expiry, "expiry")
    live = live_of(request)
    async with live.edit(by=LOCAL) as edit:
        now = live.clock()
        node = attributes.put(edit, node_id, key, body.value, now, expires_at=expires_at)
    _log("attribute set", node, key, body.comment)
    return answer(shapes.attributes(node))


async def remove(request: web.Request) -> web.Response:
    """Take an attribute from a node."""
    node_id, key = _node_id(request), request.match_info["key"]
    async with live_of(request).edit(by=LOCAL) as edit:
        node = attributes.remove(edit, node_id, key)
    _log("attribute removed", node, key)
    return answer({})


async def patch(request: web.Request) -> web.Response:
    """Set and take away attributes of many nodes: all of them, or none if one cannot be."""
    body = await body_of(request, SetAttributes)
    named = [(NodeID(number(node, "node")), given) for node, given in body.nodes.items()]
    wanted = [
        (node_id, name, given, _expiry(name, given))
        for node_id, changes in named
        for name, given in changes.items()
    ]
    # What goes makes room for what comes.
    wanted.sort(key=lambda change: change[2] is not None)
    live = live_of(request)
    async with live.edit(by=LOCAL) as edit:
        now = live.clock()
        for node_id, name, given, expires_at in wanted:
            if given is not None:
                attributes.put(edit, node_id, name, given.value, now, expires_at=expires_at)
            elif attributes.has(edit, node_id, name):
                attributes.remove(edit, node_id, name)
        changed = {node_id: nodes.get(edit, node_id) for node_id, _ in named}
    for node_id, name, given, _ in wanted:
        said = "attribute removed" if given is None else "attribute set"
        _log(said, changed[node_id], name, body.comment)
    return answer({"nodes": {str(each): shapes.attributes(changed[each]) for each in changed}})


def _expiry(key: str, given: Given | None) -> datetime | None:
    return None if given is None else parse_moment(given.expiry, f"expiry of {key}")


def _log(what: str, node: Node, key: str, comment: str = "") -> None:
    reason = plain(comment) or "-"
    log.info(what, extra={"node": node.name, "attribute": key, "reason": reason, "by": str(LOCAL)})


def _node_id(request: web.Request) -> NodeID:
    return NodeID(path_number(request, "node_id", "node"))


ROUTES = (
    web.patch("/api/v1/device-attributes", patch),
    web.get("/api/v1/node/{node_id}/attributes", show),
    web.post("/api/v1/node/{node_id}/attributes/{key}", put),
    web.delete("/api/v1/node/{node_id}/attributes/{key}", remove),
)
