"""How the API says no: one body that old and new clients of Headscale understand.

Not for deciding what is refused. The body has the members of RFC 9457 and, beside them, the
``code``, ``message`` and ``details`` that clients of Headscale up to 0.29 read.
"""

from __future__ import annotations

import logging
from collections.abc import Awaitable, Callable, Mapping
from types import MappingProxyType

import msgspec
from aiohttp import web

from appliance.api.conditions import with_etag
from appliance.api.door import DOOR
from appliance.errors import Kind, Rejected
from appliance.live import CommitFailed
from appliance.store.errors import is_databases, reason

log = logging.getLogger(__name__)

_STATUS = {
    Kind.NOT_FOUND: 404,
    Kind.CONFLICT: 409,
    Kind.INVALID: 400,
    Kind.FORBIDDEN: 403,
    Kind.TOO_MANY: 429,
}
_STATUS_OF_CODE = {
    "user-has-nodes": 400,
    "node-name-taken": 400,
    "policy-read-only": 400,
    "policy-missing": 500,
    "policy-changed": 412,
}
"""Refusals that Headscale, or RFC 9110, answers with another status than their kind has here."""

_RPC_CODES = {400: 3, 401: 16, 403: 7, 404: 5, 409: 6, 412: 9, 429: 8, 500: 13, 501: 12, 503: 14}
"""The ``code`` member of old bodies: a number of the gRPC status list."""

Handler = Callable[[web.Request], Awaitable[web.StreamResponse]]


CHALLENGE = 'Bearer realm="headwater", Basic realm="headwater"'


class Unproven(Exception):
    """Nobody knows who asks: no key, or one that is no good. Nothing more is told."""


class Refusal(Exception):
    """A refusal, and what a client is told beside its sentence.

    ``sentence`` replaces the refusal's own where clients look for certain words. ``etag`` is the
    version that is in force; ``members`` go into the body as they are.
    """

    def __init__(
        self,
        of: Rejected,
        *,
        sentence: str = "",
        etag: str = "",
        members: Mapping[str, object] = MappingProxyType({}),
    ) -> None:
        super().__init__(sentence or of.sentence)
        self.of = of
        self.sentence = sentence or of.sentence
        self.etag = etag
        self.members = members


def problem(
    status: int, sentence: str, *, code: str = "", concerns: str = "", **members: object
) -> web.Response:
    """Make the answer for a refusal or a failure; further members go in as they are."""
    body: dict[str, object] = {
        "type": f"urn:headwater:{code}" if code else "about:blank",
        "title": code or _title(status),
        "status": status,
        "detail": sentence,
        "errors": [{"message": sentence, **({"value": concerns} if concerns else {})}],
        "code": _RPC_CODES.get(status, 2),
        "message": sentence,
        "details": [],
        **members,
    }
    return web.Response(
        status=status, body=msgspec.json.encode(body), content_type="application/problem+json"
    )


def _of_http(request: web.Request, answer: web.HTTPException) -> web.Response:
    response = problem(answer.status, f"{request.method} {request.path}: {answer.reason}")
    if "Retry-After" in answer.headers:
        response.headers["Retry-After"] = answer.headers["Retry-After"]
    return response


def _unproven(request: web.Request) -> web.Response:
    """Answer with Headscale's one word, up to 0.29; what came later writes a body as for all else."""
    if request.app[DOOR].release == "0.30":
        response = problem(401, "Unauthorized", code="unauthorized")
    else:
        response = web.Response(status=401, text="Unauthorized")
    response.headers["WWW-Authenticate"] = CHALLENGE
    return response


@web.middleware
async def refusals(request: web.Request, handler: Handler) -> web.StreamResponse:
    """Turn refusals into answers, and bugs into a 500 that is logged once."""
    try:
        return await handler(request)
    except (Rejected, Refusal) as refusal:
        return _refused(refusal if isinstance(refusal, Refusal) else Refusal(refusal))
    except Unproven:
        return _unproven(request)
    except CommitFailed as failure:
        return problem(503, str(failure), code="not-stored")
    except web.HTTPException as answer:
        if answer.status < 400:
            raise
        return _of_http(request, answer)
    except (ConnectionError, web.RequestPayloadError):
        return problem(400, "the body did not arrive whole")
    except Exception as failure:
        if is_databases(failure):
            why = {"path": request.path, "reason": reason(failure)}
            log.warning("database did not answer the API", extra=why)
            return problem(503, "the database does not answer", code="database-away")
        log.exception("API handler failed", extra={"path": request.path})
        return problem(500, "the server failed at this request; its log has the reason")


def _refused(refusal: Refusal) -> web.Response:
    of = refusal.of
    answer = problem(
        _STATUS_OF_CODE.get(of.code, _STATUS[of.kind]),
        refusal.sentence,
        code=of.code,
        concerns=of.concerns,
        **refusal.members,
    )
    return with_etag(answer, refusal.etag) if refusal.etag else answer


_TITLES = {401: "unauthorized", 404: "not-found", 405: "method-not-allowed", 413: "too-large"}


def _title(status: int) -> str:
    return _TITLES.get(status, "failed")
