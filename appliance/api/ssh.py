"""``/api/v1/ssh/check``: SSH logins that wait for an approval; see ``routes``.

Tools for Headscale decide the same by ``/api/v1/auth/approve`` and ``reject`` (``logins``).
"""

from __future__ import annotations

import logging

from msgspec import Struct

from appliance.api.routes import Context, Nothing, Route
from appliance.api.shapes import Moment
from appliance.identity.scopes import Scope
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
    asked_at: Moment
    expires_at: Moment


class Checks(Struct, frozen=True, kw_only=True):
    """Logins that wait."""

    checks: tuple[Check, ...]


class Decided(Struct, frozen=True, kw_only=True):
    """The login that was decided about."""

    check: Check


async def pending(ctx: Context, _: Nothing) -> Checks:
    """List the logins that wait."""
    found = ctx.door.ssh_checks.pending(ctx.live.id, ctx.live.clock())
    return Checks(checks=tuple(_check(ctx.live.snapshot, check) for check in found))


async def approve(ctx: Context, _: Nothing) -> Decided:
    """Let a login in."""
    return decided(ctx, ctx.path["check_id"], Verdict.APPROVED)


async def deny(ctx: Context, _: Nothing) -> Decided:
    """Turn a login away."""
    return decided(ctx, ctx.path["check_id"], Verdict.DENIED)


def decided(ctx: Context, check_id: str, verdict: Verdict) -> Decided:
    """Answer a check in the name of the one who asks."""
    live = ctx.live
    check = ctx.door.ssh_checks.decide(live.id, check_id, verdict, live.clock())
    shown = _check(live.snapshot, check)
    log.info(
        "ssh login decided",
        extra={
            "node": shown.destination,
            "user": shown.owner,
            "reason": verdict,
            "by": str(ctx.principal),
        },
    )
    return Decided(check=shown)


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


_CHECKS = "/api/v1/ssh/check"
_CHANGE = Scope.SSH_CHECKS
ROUTES = (
    Route("GET", _CHECKS, Scope.SSH_CHECKS_READ, Nothing, Checks, pending),
    Route("POST", f"{_CHECKS}/{{check_id}}/approve", _CHANGE, Nothing, Decided, approve),
    Route("POST", f"{_CHECKS}/{{check_id}}/deny", _CHANGE, Nothing, Decided, deny),
)
