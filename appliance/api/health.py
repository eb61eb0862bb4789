"""Health, version and metrics: what machines ask to learn how the server is."""

from __future__ import annotations

import platform

from aiohttp import web

from appliance import __version__
from appliance.api.door import Door, answer, door_of

COMPATIBLE_VERSION = "0.29.0"
"""The Headscale release whose API this is: consoles read it and choose features by it."""


async def show(request: web.Request) -> web.Response:
    """Tell whether the database answers and policies are well, in the form of the API."""
    door = door_of(request)
    well = await door.is_database_well()
    told: dict[str, object] = {"databaseConnectivity": well}
    if troubles := troubles_of(door):
        told["policyTrouble"] = troubles
    if any(keeper.status.denies_all for keeper in door.policies.values()):
        told["policyDeniesAll"] = True
    response = answer(told)
    response.set_status(200 if well else 500)
    return response


def troubles_of(door: Door) -> dict[str, str]:
    """Give what is wrong with policies, by tailnet."""
    found = {keeper.live.snapshot.tailnet.name: keeper.status for keeper in door.policies.values()}
    return {name: status.trouble for name, status in found.items() if status.trouble}


async def public(request: web.Request) -> web.Response:
    """Tell it in the form of health checks (draft-inadarei-api-health-check).

    A refused policy is a warning without a word more: strangers may ask, too.
    """
    door = door_of(request)
    well = await door.is_database_well()
    grade = b"fail" if not well else b"warn" if troubles_of(door) else b"pass"
    return web.Response(
        status=200 if well else 500,
        body=b'{"status":"%s"}' % grade,
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
