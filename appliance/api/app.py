"""The API as one aiohttp application: all nouns, and what wraps every answer.

Not for where it listens (``server``).
"""

from __future__ import annotations

from aiohttp import web

from appliance.api import attributes, health, nodes, policy, preauthkeys, public, ssh, users
from appliance.api.door import DOOR, MAX_BODY_BYTES, Door
from appliance.api.problem import refusals


def build(door: Door) -> web.Application:
    """Make the application."""
    app = web.Application(middlewares=[refusals], client_max_size=MAX_BODY_BYTES)
    app[DOOR] = door
    for noun in (health, users, preauthkeys, nodes, attributes, policy, ssh):
        app.add_routes(noun.ROUTES)
    app.add_routes([web.post("/verify", public.verify)])  # a relay process of this host asks here
    return app


def build_metrics(door: Door) -> web.Application:
    """Make the application of the separate listener for metrics: nothing else is on it."""
    app = web.Application(middlewares=[refusals], client_max_size=MAX_BODY_BYTES)
    app[DOOR] = door
    app.add_routes([web.get("/metrics", health.metrics), web.get("/health", health.public)])
    return app
