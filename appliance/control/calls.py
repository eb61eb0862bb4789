"""The smaller calls of the nodes' door: pings, and clear refusals for what comes later.

Not for register and map, which have files of their own. Clients log a 501 and go on; they must
never be left waiting.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable

from appliance.control.exchange import TEXT, Exchange
from appliance.errors import NotFound, TooMany
from appliance.wire import tailcfg
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import MachineKey

PING_PATH = "/machine/ping-response/"
MAX_PINGS = 1024
"""Pings in flight on one server: an operator's tool, not traffic."""
PING_TIMEOUT_S = 30.0
"""Clients give themselves 10 s for the ping and 15 s for the answer."""

_LATER: dict[str, str] = {
    "/machine/set-dns": "certificates for node names are not offered by this server yet",
    "/machine/id-token": "identity tokens are not offered by this server yet",
    "/machine/audit-log": "the audit log does not take entries of nodes yet",
    "/machine/set-device-attr": (
        "posture attributes are set by an administrator (headwater nodes attributes set): "
        "a policy lets through by them, so no node sets its own"
    ),
}

_NO_HTTPS = (
    "this server hands out no certificates for HTTPS yet, and no funnel: "
    "use 'tailscale serve --http=PORT' or '--tcp=PORT', which work"
)
"""Clients print this for ``serve`` with HTTPS and for ``funnel``."""


def refuse(exchange: Exchange) -> None:
    """Answer a request for something that is not offered (501) or not known (404)."""
    path = exchange.path
    if path.startswith("/machine/tka/"):
        text = "tailnet lock is not offered by this server yet"
    elif path.startswith("/machine/ssh/"):
        text = "events of SSH sessions are not kept by this server yet; recorders have the sessions"
    elif path.startswith("/machine/webclient/"):
        text = "the node's web interface is not offered by this server yet"
    elif path == "/machine/feature/query":
        exchange.respond(200, json.dumps({"Complete": False, "Text": _NO_HTTPS}).encode())
        return
    elif path in _LATER:
        text = _LATER[path]
    else:
        exchange.respond(404, b"no such call", content_type=TEXT)
        return
    exchange.respond(501, text.encode(), content_type=TEXT)


class Pings:
    """Pings on their way: sent in a map session, answered by a request of the same machine."""

    def __init__(self) -> None:
        self._waiting: dict[
            str, tuple[MachineKey, asyncio.Future[tailcfg.PingResponse | None]]
        ] = {}

    async def ping(
        self,
        machine_key: MachineKey,
        post: Callable[[tailcfg.MapResponse], bool],
        token: str,
        *,
        types: str = "",
        ip: tailcfg.Address | None = None,
    ) -> tailcfg.PingResponse | None:
        """Ask a node to prove that it is there (or to ping ``ip``), and wait for the answer.

        ``token`` must be fresh and unguessable: clients ignore a URL that they saw last, and it is
        what the answer is known by. Raises NotFound when the node has no session or does not
        answer, TooMany when too many pings wait.
        """
        if len(self._waiting) >= MAX_PINGS:
            raise TooMany("too-many-pings", "too many pings are waiting; try again in a minute")
        answer: asyncio.Future[tailcfg.PingResponse | None]
        answer = asyncio.get_running_loop().create_future()
        self._waiting[token] = (machine_key, answer)
        # The host means nothing, but the scheme does: newer clients go around Noise for http.
        request = tailcfg.PingRequest(
            url=f"https://unused{PING_PATH}{token}", url_is_noise=True, types=types, ip=ip
        )
        try:
            if not post(tailcfg.MapResponse(ping_request=request)):
                raise NotFound("node-not-connected", "the node has no open map session")
            async with asyncio.timeout(PING_TIMEOUT_S):
                return await answer
        except TimeoutError:
            raise NotFound("node-silent", "the node did not answer the ping") from None
        finally:
            self._waiting.pop(token, None)

    def answered(self, exchange: Exchange) -> None:
        """Take the answer of a node; anybody else's is not found."""
        token = exchange.path.removeprefix(PING_PATH)
        waiting = self._waiting.get(token)
        if waiting is None or waiting[0] != exchange.machine_key:
            exchange.respond(404, b"no such ping", content_type=TEXT)
            return
        answer = waiting[1]
        response: tailcfg.PingResponse | None = None
        if exchange.body:
            try:
                response = tailcfg.decode_ping_response(exchange.body)
            except ProtocolError as error:
                exchange.respond(400, f"bad answer: {error}".encode(), content_type=TEXT)
                return
        if not answer.done():
            answer.set_result(response)
        exchange.respond(200)
