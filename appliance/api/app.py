"""The API as one aiohttp application: all nouns, and what wraps every answer.

Not for where it listens (``server``).
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from aiohttp import web

from appliance.api import (
    apikeys,
    attributes,
    audit,
    certificates,
    document,
    health,
    logins,
    nodes,
    oauth,
    policy,
    preauthkeys,
    public,
    ssh,
    tailnetkeys,
    users,
)
from appliance.api.door import DOOR, Door
from appliance.api.gate import Gate
from appliance.api.mount import Identify, local, mount
from appliance.api.problem import problem, refusals
from appliance.api.routes import MAX_BODY_BYTES, AnyRoute
from appliance.identity import tokens

ROUTES: tuple[AnyRoute, ...] = (
    *health.ROUTES,
    *users.ROUTES,
    *preauthkeys.ROUTES,
    *apikeys.ROUTES,
    *tailnetkeys.ROUTES,
    *nodes.ROUTES,
    *attributes.ROUTES,
    *policy.ROUTES,
    *ssh.ROUTES,
    *logins.ROUTES,
    *audit.ROUTES,
    *certificates.ROUTES,
)
"""The route table of version 1."""

NOT_BUILT = (
    "/api/v1/debug/node",
    "/api/v2/{rest:.*}",
)
"""Calls of Headscale and of the hosted service that are not built: a sentence helps more than "not found"."""


_PARAMETER = re.compile(r"\{[^}]*\}")


def build(door: Door, identify: Identify = local) -> web.Application:
    """Make the application of the local socket."""
    app = web.Application(middlewares=[refusals], client_max_size=MAX_BODY_BYTES)
    app[DOOR] = door
    mount(app, ROUTES, door, identify)
    app.add_routes(document.routes(ROUTES))
    app.add_routes([web.route("*", path, _not_built) for path in NOT_BUILT])
    app.add_routes(
        [
            web.get("/health", health.public),
            web.get("/version", health.version),
            web.get("/metrics", health.metrics),
            web.post("/verify", public.verify),  # a relay process of this host asks here
        ]
    )
    return app


async def _not_built(request: web.Request) -> web.Response:
    sentence = (
        f"{request.path}: this server does not have this call of Headscale or the hosted service"
    )
    return problem(501, sentence, code="not-built")


def add_remote(
    app: web.Application, door: Door, gate: Gate, seal: tokens.Seal | None = None
) -> None:
    """Add the API to the application of the main listener, behind keys.

    What is on the local socket only is not here. Nobody without a key learns which paths there are.
    """

    async def nowhere(request: web.Request) -> web.Response:
        await gate.identify(request)
        if any(fnmatchcase(request.path, _PARAMETER.sub("*", path)) for path in NOT_BUILT):
            return await _not_built(request)
        return problem(404, f"{request.method} {request.path}: Not Found")

    mount(app, [route for route in ROUTES if not route.is_local], door, gate.identify)
    if seal is not None:
        app.add_routes([web.post(oauth.PATH, oauth.endpoint(door, gate, seal))])
    app.add_routes(document.routes(ROUTES))
    app.add_routes([web.route("*", "/api/{rest:.*}", nowhere)])


def build_metrics(door: Door) -> web.Application:
    """Make the application of the separate listener for metrics: nothing else is on it."""
    app = web.Application(middlewares=[refusals], client_max_size=MAX_BODY_BYTES)
    app[DOOR] = door
    app.add_routes([web.get("/metrics", health.metrics), web.get("/health", health.public)])
    return app
