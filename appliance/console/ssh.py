"""The page at which somebody vouches for an SSH login that the policy checks.

The owner of the device that the login comes from, or an administrator; and in a session that is younger
than the question, since the check asks whether the person is there now. Not for what the node is
told (``control.sshcheck``).
"""

from __future__ import annotations

import logging
from urllib.parse import quote

from aiohttp import web

from appliance.console.visits import SignedIn, Visit
from appliance.errors import Forbidden, NotFound
from appliance.identity.roles import scopes_of
from appliance.identity.scopes import Scope, covers
from appliance.identity.sshchecks import SSHCheck, Verdict
from appliance.tailnet import logins

log = logging.getLogger(__name__)


async def show(visit: Visit) -> web.Response:
    """Show the login, and ask."""
    check_id = visit.request.match_info["check_id"]
    if check_id.startswith(logins.ID_PREFIX):
        return visit.go(f"/register/{quote(check_id, safe='')}")
    who = visit.user
    check = _check(visit, who, check_id)
    nodes = who.live.snapshot.nodes
    login = check.login
    source, destination = nodes.get(login.source), nodes.get(login.destination)
    return visit.page(
        "ssh.html",
        check=check,
        source="a device that is gone" if source is None else source.name,
        destination="a device that is gone" if destination is None else destination.name,
        local_user=login.local_user,
        asked=check.asked_at.strftime("%H:%M UTC"),
        until=check.expires_at.strftime("%H:%M UTC"),
        is_fresh=_is_fresh(who, check),
        again=f"/signin?again=1&next={quote(f'/auth/{check.id}', safe='/')}",
    )


async def approve(visit: Visit) -> web.Response:
    """Let the login in."""
    return _decide(visit, Verdict.APPROVED)


async def deny(visit: Visit) -> web.Response:
    """Turn the login away."""
    return _decide(visit, Verdict.DENIED)


def _decide(visit: Visit, verdict: Verdict) -> web.Response:
    who = visit.user
    check = _check(visit, who, visit.request.match_info["check_id"])
    if verdict is Verdict.APPROVED and not _is_fresh(who, check):
        raise Forbidden("sign-in-stale", "sign in again: this question is newer than your session")
    visit.console.ssh_checks.decide(who.live.id, check.id, verdict, who.live.clock())
    log.info(
        "ssh login decided",
        extra={"user": who.user.name, "reason": verdict, "by": str(who.principal)},
    )
    return visit.page("sshdone.html", is_approved=verdict is Verdict.APPROVED)


def _check(visit: Visit, who: SignedIn, check_id: str) -> SSHCheck:
    """Return a check that is this user's to decide; the same refusal for all others."""
    check = visit.console.ssh_checks.get(check_id.strip().lower(), who.live.clock())
    is_open = check is not None and check.verdict is None and check.login.tailnet == who.live.id
    is_admin = covers(scopes_of(who.user.role), Scope.SSH_CHECKS)
    if check is None or not is_open or not (is_admin or check.login.owner == who.user.id):
        raise NotFound(
            "ssh-check-unknown",
            "no SSH login waits for you here: it may have run out, or somebody has decided. Connect "
            "again to be asked once more",
        )
    return check


def _is_fresh(who: SignedIn, check: SSHCheck) -> bool:
    return who.session.created_at >= check.asked_at
