"""``…/attributes``, ``…/device-attributes``: posture attributes, as the hosted service has them.

See ``routes`` and ``shapes``. Source: https://tailscale.com/api, "device posture attributes".
"""

from __future__ import annotations

import logging
from datetime import datetime

from msgspec import Struct

from appliance.api import shapes
from appliance.api.routes import Context, Nothing, Route, number, parse_moment
from appliance.identity.scopes import Scope
from appliance.records import NodeID
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


class AttributesOfNodes(Struct, frozen=True, kw_only=True):
    """What is known of the nodes that were changed, by their ids."""

    nodes: dict[str, shapes.Attributes]


async def show(ctx: Context, _: Nothing) -> shapes.Attributes:
    """Show all that is known of a node, also what it reports itself."""
    return shapes.attributes(nodes.get(ctx.live.snapshot, ctx.node_id))


async def put(ctx: Context, body: SetAttribute) -> shapes.Attributes:
    """Give a node an attribute."""
    node_id, key = ctx.node_id, ctx.path["key"]
    expires_at = parse_moment(body.expiry, "expiry")
    async with ctx.edit(reason=plain(body.comment)) as edit:
        now = ctx.live.clock()
        node = attributes.put(edit, node_id, key, body.value, now, expires_at=expires_at)
    return shapes.attributes(node)


async def remove(ctx: Context, _: Nothing) -> Nothing:
    """Take an attribute from a node."""
    node_id, key = ctx.node_id, ctx.path["key"]
    async with ctx.edit() as edit:
        attributes.remove(edit, node_id, key)
    return Nothing()


async def patch(ctx: Context, body: SetAttributes) -> AttributesOfNodes:
    """Set and take away attributes of many nodes: all of them, or none if one cannot be."""
    named = [(NodeID(number(node, "node")), given) for node, given in body.nodes.items()]
    wanted = [
        (node_id, name, given, _expiry(name, given))
        for node_id, changes in named
        for name, given in changes.items()
    ]
    # What goes makes room for what comes.
    wanted.sort(key=lambda change: change[2] is not None)
    async with ctx.edit(reason=plain(body.comment)) as edit:
        now = ctx.live.clock()
        for node_id, name, given, expires_at in wanted:
            if given is not None:
                attributes.put(edit, node_id, name, given.value, now, expires_at=expires_at)
            elif attributes.has(edit, node_id, name):
                attributes.remove(edit, node_id, name)
        changed = {node_id: nodes.get(edit, node_id) for node_id, _ in named}
    shown = {str(node_id): shapes.attributes(node) for node_id, node in changed.items()}
    return AttributesOfNodes(nodes=shown)


def _expiry(key: str, given: Given | None) -> datetime | None:
    return None if given is None else parse_moment(given.expiry, f"expiry of {key}")


_ALL = "/api/v1/node/{node_id}/attributes"
_ONE = f"{_ALL}/{{key}}"
_CHANGE = Scope.POSTURE_ATTRIBUTES
ROUTES = (
    Route(
        "PATCH",
        "/api/v1/device-attributes",
        _CHANGE,
        SetAttributes,
        AttributesOfNodes,
        patch,
        "node.set-attributes",
    ),
    Route("GET", _ALL, Scope.POSTURE_ATTRIBUTES_READ, Nothing, shapes.Attributes, show),
    Route("POST", _ONE, _CHANGE, SetAttribute, shapes.Attributes, put, "node.set-attribute"),
    Route("DELETE", _ONE, _CHANGE, Nothing, Nothing, remove, "node.remove-attribute"),
)
