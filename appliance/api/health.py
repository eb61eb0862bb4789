"""Health, version and metrics: what machines ask to learn how the server is."""

from __future__ import annotations

import platform

from aiohttp import web

from appliance import __version__
from appliance.api.door import answer, door_of

COMPATIBLE_VERSION = "0.29.0"
"""The Headscale release whose API this is: consoles read it and choose features by it."""


async def show(request: web.Request) -> web.Response:
    """Tell whether the database answers, in the form of the API."""
    well = await door_of(request).is_database_well()
    response = answer({"databaseConnectivity": well})
    response.set_status(200 if well else 500)
    return response


async def public(request: web.Request) -> web.Response:
    """Tell it in the form of health checks (draft-inadarei-api-health-check)."""
    well = await door_of(request).is_database_well()
    return web.Response(
        status=200 if well else 500,
        body=b'{"status":"pass"}' if well else b'{"status":"fail"}',
        content_type="application/health+json",
    )


async def version(_request: web.Request) -> web.Response:
    """Tell the version, in the form that consoles of Headscale parse."""
    return answer(
        {
            "version": COMPATIBLE_VERSION,
            "commit": "",
            "buildTime": "",
            "go": {"version": "", "os": "linux", "arch": platform.machine()},
            "dirty": False,
            "headwater": __version__,
        }
    )


async def metrics(request: web.Request) -> web.Response:
    """Give all metrics in Prometheus' text form."""
    return web.Response(
        body=door_of(request).metrics(),
        headers={"Content-Type": "text/plain; version=0.0.4; charset=utf-8"},
    )


ROUTES = (
    web.get("/api/v1/health", show),
    web.get("/health", public),
    web.get("/version", version),
    web.get("/metrics", metrics),
)
