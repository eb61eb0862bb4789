"""From an HTTP request to a DERP connection: what the request asks for, and what is answered.

Decides about one request head; not for reading it (``front`` did) and not for what
follows (``login``). Fast start is handled for clients that ask, although we never show the
certificate that makes stock clients ask: then nothing of HTTP is answered.
Source: tailscale v1.104.5 derp/derpserver/handler.go, derp/derphttp/derphttp_client.go.
"""

from __future__ import annotations

from dataclasses import dataclass
from http import HTTPStatus

from appliance.wire import derp, websocket
from appliance.wire.http1 import Answer, Head, encode_answer

SUBPROTOCOL = "derp"


@dataclass(frozen=True, slots=True)
class Upgrade:
    """A request that is granted: what to write first, and how to go on."""

    answer: bytes
    """The HTTP answer; empty with fast start."""
    in_websocket: bool
    not_ideal: bool
    """The client wanted the first relay of the region and did not reach it."""

    @property
    def fast_start(self) -> bool:
        """Whether the client skips the HTTP answer."""
        return not self.answer


def check_upgrade(head: Head, server_raw: bytes) -> Upgrade | Answer:
    """Grant or refuse a request for ``/derp``.

    ``websocket`` without the subprotocol means plain DERP, as old clients do it.
    """
    if head.method != "GET" or head.has_body:
        return _refuse(HTTPStatus.METHOD_NOT_ALLOWED, "a relay connection begins with GET\n")
    asked = head.tokens("upgrade")
    not_ideal = bool(head.get("ideal-node"))
    if "websocket" in asked and SUBPROTOCOL in websocket.offered_subprotocols(head):
        try:
            answer = websocket.answer_handshake(head, SUBPROTOCOL)
        except websocket.WebSocketError as error:
            return _refuse(HTTPStatus.BAD_REQUEST, f"{error}\n")
        return Upgrade(answer, in_websocket=True, not_ideal=not_ideal)
    if not asked & {"derp", "websocket"}:
        return _refuse(HTTPStatus.UPGRADE_REQUIRED, "DERP needs Upgrade: DERP\n", upgrade=True)
    if head.get("derp-fast-start") == "1":
        return Upgrade(b"", in_websocket=False, not_ideal=not_ideal)
    headers = {
        "Upgrade": "DERP",
        "Connection": "Upgrade",
        "Derp-Version": str(derp.VERSION),
        "Derp-Public-Key": server_raw.hex(),
    }
    answer = encode_answer(Answer(101, headers=headers), keep_alive=True)
    return Upgrade(answer, in_websocket=False, not_ideal=not_ideal)


def _refuse(status: HTTPStatus, text: str, *, upgrade: bool = False) -> Answer:
    headers = {"Upgrade": "DERP"} if upgrade else {}
    return Answer(status, text.encode(), headers=headers, close=True)
