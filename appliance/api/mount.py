"""Turns rows of the route table into handlers of an aiohttp application: the one place with HTTP.

In the order in which a request passes: who asks and with which scopes, which tailnet, the bound of
the body, the members (``members``), the handler, the answer. Not for refusals (``problem``). The same
rows go onto the local socket and onto TCP; what differs is ``identify``.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection, Iterable

import msgspec
from aiohttp import web

from appliance.api import members
from appliance.api.conditions import if_match, with_etag
from appliance.api.door import Door
from appliance.api.routes import AnyRoute, Context, Reply, lacking
from appliance.identity.scopes import LOCAL_CALLER, Caller
from appliance.records import UserID

Identify = Callable[[web.Request], Awaitable[Caller]]
"""Says who asks, or raises a refusal (``Forbidden``, ``web.HTTPUnauthorized``)."""


async def local(_request: web.Request) -> Caller:
    """Identify whoever may open the local socket: the file system decided."""
    return LOCAL_CALLER


def mount(app: web.Application, routes: Iterable[AnyRoute], door: Door, identify: Identify) -> None:
    """Add the routes to an application."""
    for route in routes:
        handler = _handler(route, door, identify)
        if route.method == "GET":
            app.router.add_get(pattern(route), handler)
        else:
            app.router.add_route(route.method, pattern(route), handler)


def pattern(route: AnyRoute) -> str:
    """Give the path as aiohttp matches it; a name may be empty, and is then refused in words."""
    path = route.path.replace("{name}", "{name:[^/{}]*}")
    return path.replace("{prefix}", "{prefix:[^/{}]*}")


def _handler(
    route: AnyRoute, door: Door, identify: Identify
) -> Callable[[web.Request], Awaitable[web.StreamResponse]]:
    async def handle(request: web.Request) -> web.StreamResponse:
        caller = await identify(request)
        only = _only(route, caller)
        path = dict(request.match_info)
        named = path.pop("tailnet", "") or request.query.get("tailnet", "")
        context = Context(
            caller=caller,
            door=door,
            live=door.tailnet(named, within=caller.tailnet),
            path=path,
            act=route.act,
            if_match=_condition(route, request),
            only=only,
        )
        body = members.read(route.request, request.query.items(), await _body(route, request))
        return _response(await route.handler(context, body))

    return handle


def _only(route: AnyRoute, caller: Caller) -> UserID | None:
    """Return the user to whose things the caller is bound; None: to nobody's. Raises Forbidden."""
    if route.scope is None or caller.may(route.scope):
        return None
    if route.or_scope is not None and caller.may(route.or_scope):
        return None
    if route.own and caller.has_own and caller.user_id is not None:
        return caller.user_id
    raise lacking(route.scope)


def _condition(route: AnyRoute, request: web.Request) -> Collection[str] | None:
    headers = request.headers.getall("If-Match", []) if route.is_conditional else []
    return if_match(headers)


async def _body(route: AnyRoute, request: web.Request) -> bytes:
    if not route.takes_body:
        return b""
    return await request.clone(client_max_size=route.max_body_bytes).read()


def _response(answer: object) -> web.Response:
    reply = answer if isinstance(answer, Reply) else Reply(answer)
    response = web.Response(
        status=500 if reply.is_unwell else 200,
        body=msgspec.json.encode(reply.value),
        content_type="application/json",
    )
    return with_etag(response, reply.etag) if reply.etag else response
