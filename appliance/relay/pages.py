"""The small HTTP answers beside ``/derp`` that clients ask a relay for.

Latency probes, the captive portal test, the bootstrap DNS for our own name. Pure functions from a
request to an answer, for whoever holds the listener (``front``).
Source: tailscale v1.104.5 cmd/derper/derper.go, derp/derpserver/handler.go,
net/captivedetection/endpoints.go, cmd/derper/bootstrap_dns.go.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Mapping, Sequence
from http import HTTPStatus
from urllib.parse import parse_qs

from appliance.front.stream import Sink, Stream
from appliance.wire.http1 import Answer, Head

PROBE_PATHS = ("/derp/probe", "/derp/latency-check")
CAPTIVE_PATH = "/generate_204"
BOOTSTRAP_PATH = "/bootstrap-dns"

_CHALLENGE = re.compile(r"[A-Za-z0-9._:\-]{1,64}")
_NO_CACHE = "no-cache, no-store, must-revalidate, no-transform, max-age=0"

Headers = Mapping[str, str]
"""Field names in lower case."""
Page = Callable[[str, str, Headers, str], Answer]
"""``(method, path, headers, query)`` to status, headers and body."""


def probe(method: str, _path: str, _headers: Headers, _query: str) -> Answer:
    """Answer the latency probe of clients without UDP: 200 without a body."""
    if method not in ("GET", "HEAD"):
        return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"bogus probe method\n")
    return Answer(HTTPStatus.OK, headers={"Access-Control-Allow-Origin": "*"})


def no_content(method: str, _path: str, headers: Headers, _query: str) -> Answer:
    """Answer the captive portal test: 204, and the proof that no portal has made it up."""
    if method not in ("GET", "HEAD"):
        return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET\n")
    fields = {"Cache-Control": _NO_CACHE}
    challenge = headers.get("x-tailscale-challenge", "")
    if _CHALLENGE.fullmatch(challenge):
        fields["X-Tailscale-Response"] = f"response {challenge}"
    return Answer(HTTPStatus.NO_CONTENT, headers=fields)


def bootstrap_dns(names: Mapping[str, Sequence[str]]) -> Page:
    """Make the page that tells a client without DNS the addresses of our own names only.

    ``names`` maps lower-case names to addresses as text. Other names get an empty object, which
    sends the client to the next relay that it knows.
    """

    def page(method: str, _path: str, _headers: Headers, query: str) -> Answer:
        if method not in ("GET", "HEAD"):
            return Answer(HTTPStatus.METHOD_NOT_ALLOWED, b"only GET\n")
        asked = parse_qs(query, max_num_fields=8).get("q", [""])[0] if len(query) < 512 else ""
        name = asked.lower().removesuffix(".")
        found = {asked: list(names[name])} if name in names else {}
        body = json.dumps(found).encode()
        return Answer(HTTPStatus.OK, body, content_type="application/json", close=True)

    return page


def route_of(page: Page) -> Callable[[Head, Stream], Sink | Answer | None]:
    """Make a page into a route of ``front.dispatch``."""

    def route(head: Head, _stream: Stream) -> Answer:
        try:
            return page(head.method, head.path, dict(reversed(head.fields)), head.query)
        except ValueError:
            return Answer(HTTPStatus.BAD_REQUEST, b"the query makes no sense\n")

    return route


def routes(
    names: Mapping[str, Sequence[str]],
) -> dict[str, Callable[[Head, Stream], Sink | Answer | None]]:
    """Give every page by its path, ready for ``front.dispatch.Front``."""
    return {
        **{path: route_of(probe) for path in PROBE_PATHS},
        CAPTIVE_PATH: route_of(no_content),
        BOOTSTRAP_PATH: route_of(bootstrap_dns(names)),
    }
