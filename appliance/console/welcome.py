"""The page at the server's own address, static files, and what has no page."""

from __future__ import annotations

from aiohttp import web

from appliance.console.door import CONSOLE
from appliance.console.pages import HEADERS
from appliance.console.visits import Visit

YEAR_S = 365 * 24 * 3600


async def show(visit: Visit) -> web.Response:
    """Say what this is, to people who look."""
    return visit.page("welcome.html")


async def static(request: web.Request) -> web.Response:
    """Send a static file; with its version in the address it never changes."""
    found = request.app[CONSOLE].pages.static.get(request.match_info["name"])
    if found is None:
        raise web.HTTPNotFound
    etag = f'"{found.digest}"'
    is_current = request.query.get("v") == found.digest
    age = f"public, max-age={YEAR_S}, immutable" if is_current else "no-cache"
    headers = {**HEADERS, "Cache-Control": age, "ETag": etag}
    if request.headers.get("If-None-Match") == etag:
        return web.Response(status=304, headers=headers)
    return web.Response(body=found.body, content_type=found.content_type, headers=headers)
