"""Serves the API's description: the OpenAPI document, and the page for people.

Not for what is in them (``openapi``). The page loads nothing from elsewhere: a console may be the only
thing that reaches the server.
"""

from __future__ import annotations

import asyncio
import base64
import hashlib
from collections.abc import Awaitable, Callable, Sequence
from functools import cache

import msgspec
from aiohttp import web

from appliance.api import openapi
from appliance.api.routes import AnyRoute

_STYLE_HASH = base64.b64encode(hashlib.sha256(openapi.STYLE.encode()).digest()).decode()
PAGE_HEADERS = {
    "Content-Security-Policy": (
        f"default-src 'none'; style-src 'sha256-{_STYLE_HASH}'; frame-ancestors 'none'"
    )
}


def routes(table: Sequence[AnyRoute], prefix: str = "/api/v1") -> list[web.RouteDef]:
    """Give the routes of the description of a table. (JSON is YAML, too.)

    It is made when somebody asks for it first: it takes longer than all else that the API does at the
    start of the server.
    """

    @cache
    def text() -> bytes:
        return msgspec.json.encode(openapi.document(table))

    @cache
    def page() -> bytes:
        return openapi.page("Headwater: the API", table).encode()

    return [
        web.get(f"{prefix}/openapi.json", _serve(text, "application/json")),
        web.get(f"{prefix}/openapi.yaml", _serve(text, "application/yaml")),
        web.get(f"{prefix}/docs", _serve(page, "text/html", PAGE_HEADERS)),
    ]


def _serve(
    make: Callable[[], bytes], content_type: str, headers: dict[str, str] | None = None
) -> Callable[[web.Request], Awaitable[web.Response]]:
    async def serve(_request: web.Request) -> web.Response:
        data = await asyncio.to_thread(make)  # the first time it takes some turns of the loop
        return web.Response(body=data, content_type=content_type, charset="utf-8", headers=headers)

    return serve
