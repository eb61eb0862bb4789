"""A person's own account: sessions, passkeys and recovery codes."""

from __future__ import annotations

from datetime import datetime

from aiohttp import web

from appliance.console.visits import SESSION_COOKIE, Visit, drop_cookie, spend_change
from appliance.errors import NotFound
from appliance.identity import credentials, sessions
from appliance.records import CredentialKind, Session, SessionID

_METHODS = {
    "link": "one-time link",
    "invitation": "invitation",
    "passkey": "passkey",
    "recovery-code": "recovery code",
    "oidc": "identity provider",
}


async def show(visit: Visit) -> web.Response:
    """Show how one signs in, and where one is signed in."""
    who = visit.user
    snapshot, now = who.live.snapshot, who.live.clock()
    mine = [
        each for each in sessions.of_user(snapshot, who.user.id) if not sessions.is_over(each, now)
    ]
    passkeys = credentials.of_user(snapshot, who.user.id, CredentialKind.PASSKEY)
    return visit.page(
        "account.html",
        user=who.user,
        sessions=[(each, *_told(each)) for each in sorted(mine, key=_last_used, reverse=True)],
        this=who.session.id,
        passkeys=[
            (each, _day(each.created_at), "" if each.used_at is None else _day(each.used_at))
            for each in passkeys
        ],
        can_passkeys=visit.console.passkeys.is_possible,
        codes=len(credentials.of_user(snapshot, who.user.id, CredentialKind.RECOVERY_CODE)),
    )


async def end(visit: Visit) -> web.Response:
    """End one of one's own sessions."""
    who = visit.user
    number = SessionID(int(visit.request.match_info["session_id"]))
    async with who.live.edit(by=who.principal, act="session.end") as edit:
        session = edit.sessions.get(number)
        if session is None or session.user_id != who.user.id:
            raise NotFound("session-unknown", "you have no such session (any more)")
        sessions.end(edit, number)
    if number != who.session.id:
        return visit.go("/sessions")
    response = visit.go("/")
    drop_cookie(visit.console, response, SESSION_COOKIE)
    return response


async def end_others(visit: Visit) -> web.Response:
    """End all of one's own sessions but this one."""
    who = visit.user
    async with who.live.edit(by=who.principal, act="session.end") as edit:
        sessions.end_all(edit, who.user.id, besides=who.session.id)
    return visit.go("/sessions")


async def make_codes(visit: Visit) -> web.Response:
    """Make new recovery codes, and show them once."""
    who = visit.fresh
    spend_change(visit, who.live, who.user.id, codes=True)
    async with who.live.edit(by=who.principal, act="credential.create") as edit:
        codes = credentials.make_codes(
            edit, who.user.id, who.live.clock(), random_bytes=visit.console.random_bytes
        )
    return visit.page("codes.html", codes=codes)


def _told(session: Session) -> tuple[str, str, str]:
    return (
        _METHODS.get(session.method, session.method),
        session.created_at.strftime("%Y-%m-%d %H:%M UTC"),
        session.last_used_at.strftime("%Y-%m-%d %H:%M UTC"),
    )


def _last_used(session: Session) -> datetime:
    return session.last_used_at


def _day(moment: datetime) -> str:
    return f"{moment:%Y-%m-%d}"
