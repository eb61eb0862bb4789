"""``/api/v1/ssh/check``: SSH logins that wait for an approval; see ``door`` and ``shapes``.

Also ``/api/v1/auth/approve`` and ``reject``, by which tools for Headscale decide the same.
"""

from __future__ import annotations

import logging
from datetime import datetime

from aiohttp import web
from msgspec import Struct

from appliance.api.door import answer, body_of, door_of, live_of
from appliance.identity.principals import LOCAL
from appliance.identity.sshchecks import SSHCheck, Verdict
from appliance.records import TAGGED_USER_ID, NodeID
from appliance.tailnet import users
from appliance.tailnet.snapshot import Snapshot

log = logging.getLogger(__name__)


class Check(Struct, frozen=True, kw_only=True, rename="camel"):
    """A login that waits: from which node and whose, to which node, as whom."""

    id: str
    source: str
    source_id: str
    owner: str
    destination: str
    destination_id: str
    local_user: str
    asked_at: datetime
    expires_at: datetime


class AuthID(Struct, frozen=True, kw_only=True, rename="camel"):
    """The body of a decision in Headscale's form."""

    auth_id: str = ""


async def pending(request: web.Request) -> web.Response:
    """List the logins that wait."""
    live = live_of(request)
    found = door_of(request).ssh_checks.pending(live.id, live.clock())
    return answer({"checks": [_check(live.snapshot, check) for check in found]})


async def approve(request: web.Request) -> web.Response:
    """Let a login in."""
    return _decided(request, request.match_info["check_id"], Verdict.APPROVED)


async def deny(request: web.Request) -> web.Response:
    """Turn a login away."""
    return _decided(request, request.match_info["check_id"], Verdict.DENIED)


async def auth_approve(request: web.Request) -> web.Response:
    """Let a login in, as Headscale's tools say it."""
    _decided(request, (await body_of(request, AuthID)).auth_id, Verdict.APPROVED)
    return answer({})


async def auth_reject(request: web.Request) -> web.Response:
    """Turn a login away, as Headscale's tools say it."""
    _decided(request, (await body_of(request, AuthID)).auth_id, Verdict.DENIED)
    return answer({})


def _decided(request: web.Request, check_id: str, verdict: Verdict) -> web.Response:
    live = live_of(request)
    check = door_of(request).ssh_checks.decide(live.id, check_id, verdict, live.clock())
    shown = _check(live.snapshot, check)
    log.info(
        "ssh login decided",
        extra={"node": shown.destination, "user": shown.owner, "reason": verdict, "by": str(LOCAL)},
    )
    return answer({"check": shown})


def _check(snapshot: Snapshot, check: SSHCheck) -> Check:
    login = check.login
    return Check(
        id=check.id,
        source=_name(snapshot, login.source),
        source_id=str(login.source),
        owner=(
            users.profile(snapshot, login.owner).login_name
            if login.owner == TAGGED_USER_ID or login.owner in snapshot.users
            else ""
        ),
        destination=_name(snapshot, login.destination),
        destination_id=str(login.destination),
        local_user=login.local_user,
        asked_at=check.asked_at,
        expires_at=check.expires_at,
    )


def _name(snapshot: Snapshot, node_id: NodeID) -> str:
    """Give a node's name; it may have been deleted since."""
    node = snapshot.nodes.get(node_id)
    return "" if node is None else node.name


ROUTES = (
    web.get("/api/v1/ssh/check", pending),
    web.post("/api/v1/ssh/check/{check_id}/approve", approve),
    web.post("/api/v1/ssh/check/{check_id}/deny", deny),
    web.post("/api/v1/auth/approve", auth_approve),
    web.post("/api/v1/auth/reject", auth_reject),
)
