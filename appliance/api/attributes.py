"""``/api/v1/node/…/attributes``: posture attributes, as the hosted service's API has them.

See ``door`` and ``shapes``. Source: https://tailscale.com/api, "device posture attributes".
"""

from __future__ import annotations

import logging

from aiohttp import web
from msgspec import Struct

from appliance.api import shapes
from appliance.api.door import answer, body_of, live_of, parse_moment, path_number
from appliance.identity.principals import LOCAL
from appliance.records import NodeID
from appliance.tailnet import attributes, nodes
from appliance.tailnet.checkin import plain

log = logging.getLogger(__name__)


class SetAttribute(Struct, frozen=True, kw_only=True):
    """The body of a change; ``value`` is what JSON made of it, the verb knows which are good.

    ``comment`` goes into the log.
    """

    value: object = None
    expiry: str = ""
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
    reason = plain(body.comment) or "-"
    log.info(
        "attribute set",
        extra={"node": node.name, "attribute": key, "reason": reason, "by": str(LOCAL)},
    )
    return answer(shapes.attributes(node))


async def remove(request: web.Request) -> web.Response:
    """Take an attribute from a node."""
    node_id, key = _node_id(request), request.match_info["key"]
    async with live_of(request).edit(by=LOCAL) as edit:
        node = attributes.remove(edit, node_id, key)
    log.info("attribute removed", extra={"node": node.name, "attribute": key, "by": str(LOCAL)})
    return answer({})


def _node_id(request: web.Request) -> NodeID:
    return NodeID(path_number(request, "node_id", "node"))


ROUTES = (
    web.get("/api/v1/node/{node_id}/attributes", show),
    web.post("/api/v1/node/{node_id}/attributes/{key}", put),
    web.delete("/api/v1/node/{node_id}/attributes/{key}", remove),
)
