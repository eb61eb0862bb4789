"""Signing in and out: the page that lists the ways, and the start of a session, whatever the way was.

Not for proving who somebody is: each way does that, and then calls ``signed_in``.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from urllib.parse import quote

from aiohttp import web

from appliance.console.visits import (
    SESSION_COOKIE,
    STATE_COOKIE,
    Visit,
    drop_cookie,
    local_path,
    set_cookie,
    spend_change,
)
from appliance.errors import Forbidden
from appliance.identity import sessions
from appliance.identity.principals import Principal, PrincipalKind
from appliance.live import LiveTailnet
from appliance.records import Credential, SignInMethod, UserID
from appliance.tailnet import users
from appliance.tailnet.snapshot import Edit

log = logging.getLogger(__name__)


async def signed_in(
    visit: Visit,
    live: LiveTailnet,
    user_id: UserID,
    method: SignInMethod,
    *,
    spend: Callable[[Edit], Credential] | None = None,
    expires_at: datetime | None = None,
    next_path: str = "/",
) -> web.Response:
    """Start a session for a user who proved to be that user; send the browser on.

    ``spend`` takes what was shown for its use, in the same change: whatever happens, either both are
    done or none is. A session that the browser had ends. Raises NotFound for a user who is gone.
    """
    now = live.clock()
    if expires_at is not None and expires_at <= now:
        raise Forbidden("login-expired", "this login has run out: sign in again")
    user = users.get(live.snapshot, user_id)
    spend_change(visit, live, user_id)
    request = visit.request
    async with live.edit(
        by=Principal(PrincipalKind.USER, user.login_name), act="session.start"
    ) as edit:
        if spend is not None:
            edit.because(spend(edit), "credential.use", "")
        text, session = sessions.start(
            edit,
            user_id,
            method,
            now,
            random_bytes=visit.console.random_bytes,
            expires_at=expires_at,
            agent=request.headers.get("User-Agent", ""),
            source=request.remote or "",
        )
    await _end(visit)
    log.info(
        "signed in",
        extra={"user": user.name, "reason": method, "tailnet": live.snapshot.tailnet.name},
    )
    response = visit.go(next_path)
    age_s = int((session.expires_at - now).total_seconds())
    set_cookie(visit.console, response, SESSION_COOKIE, text, age_s)
    drop_cookie(visit.console, response, STATE_COOKIE)
    return response


async def show(visit: Visit) -> web.Response:
    """Show the ways to sign in."""
    next_path = local_path(visit.request.query.get("next", "/"))
    if visit.who is not None and "again" not in visit.request.query:
        return visit.go(next_path)
    ways = [
        (way, f"{way.url}{'&' if '?' in way.url else '?'}next={quote(next_path, safe='/')}")
        for way in visit.console.sign_in_ways()
    ]
    return visit.page("signin.html", ways=ways, next_path=next_path)


async def sign_out(visit: Visit) -> web.Response:
    """End the session of this browser."""
    await _end(visit)
    response = visit.go("/")
    drop_cookie(visit.console, response, SESSION_COOKIE)
    return response


async def _end(visit: Visit) -> None:
    who = visit.who
    if who is None:
        return
    async with who.live.edit(by=who.principal, act="session.end") as edit:
        if who.session.id in edit.sessions:
            sessions.end(edit, who.session.id)
