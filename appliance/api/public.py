"""What anybody may ask the server over plain HTTP: its key, its health, who may use a relay.

Not for nodes (``control``) and not for administrators (``app``, which adds the API behind keys). Sits behind
the front's dispatcher, on the same port as everything else.
Source: tailscale control/controlclient (``/key``), derp admission (``/verify``).
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from aiohttp import web

from appliance.api import health
from appliance.api.door import DOOR, Door
from appliance.api.problem import refusals
from appliance.errors import Invalid
from appliance.live import LiveTailnets
from appliance.wire import tailcfg
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import MachineKey, NodeKey

MAX_VERIFY_BYTES = 4096
"""The bound that relays themselves put on this exchange."""
FIRST_NOISE_CAPVER = 39
"""Clients older than this spoke NaCl boxes, which are not offered. Source: tailscale capver 39."""

SECURITY_HEADERS = {
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "no-referrer",
    "Content-Security-Policy": "default-src 'none'; frame-ancestors 'none'",
    "Cache-Control": "no-store",
}

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


MACHINE_KEY = web.AppKey("machine_key", MachineKey)


def build(door: Door, machine_key: MachineKey) -> web.Application:
    """Make the application. ``machine_key`` is the public half of the server's Noise key."""
    app = web.Application(middlewares=[_headers, refusals], client_max_size=MAX_VERIFY_BYTES)
    app[DOOR] = door
    app[MACHINE_KEY] = machine_key
    app.add_routes(
        [
            web.get("/key", key),
            web.get("/health", health.public),
            web.get("/version", health.version),
            web.get("/robots.txt", robots),
            web.post("/verify", verify),
        ]
    )
    return app


async def robots(_request: web.Request) -> web.Response:
    """Ask crawlers to stay away."""
    return web.Response(text="User-agent: *\nDisallow: /\n")


async def key(request: web.Request) -> web.Response:
    """Tell the public machine key of the server, which clients need for the Noise handshake."""
    text = request.query.get("v", "")
    if not (text.isascii() and text.isdigit()) or int(text[:9]) < FIRST_NOISE_CAPVER:
        raise Invalid("capver-missing", "ask for /key?v=N with a capability version from 39 on")
    keys = tailcfg.OverTLSPublicKeyResponse(
        legacy_public_key=MachineKey.zero(), public_key=request.app[MACHINE_KEY]
    )
    return web.Response(body=tailcfg.encode(keys), content_type="application/json")


async def verify(request: web.Request) -> web.Response:
    """Tell a relay whether a node may use it (what derpers ask with --verify-client-url)."""
    try:
        question = tailcfg.decode_derp_admit_client_request(await request.read())
    except ProtocolError as error:
        raise Invalid("body-invalid", f"the question cannot be read: {error}") from error
    allow = may_relay(request.app[DOOR].tailnets, question.node_public)
    return web.Response(
        body=tailcfg.encode(tailcfg.DERPAdmitClientResponse(allow=allow)),
        content_type="application/json",
    )


def may_relay(tailnets: LiveTailnets, node_key: NodeKey) -> bool:
    """Tell whether a node of ours holds this key and has not expired."""
    found = tailnets.find_node(node_key)
    if found is None:
        return False
    live, node = found
    return not node.is_expired(live.clock())


@web.middleware
async def _headers(request: web.Request, handler: Handler) -> web.StreamResponse:
    response = await handler(request)
    for name, value in SECURITY_HEADERS.items():
        response.headers.setdefault(name, value)  # pages have stricter or wider ones of their own
    response.headers["Server"] = "headwater"  # not which libraries, in which versions
    if request.scheme == "https":
        response.headers["Strict-Transport-Security"] = "max-age=31536000"
    return response
