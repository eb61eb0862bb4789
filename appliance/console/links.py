"""Signing in by a link, an invitation or a recovery code: each works once.

Opening a link does nothing but show whom it signs in, so that a mail program that looks at it does not
use it up; the button does.
"""

from __future__ import annotations

from aiohttp import web

from appliance.console.door import SignInWay
from appliance.console.signin import signed_in
from appliance.console.visits import Visit, local_path
from appliance.errors import Forbidden
from appliance.identity import credentials
from appliance.live import LiveTailnet
from appliance.records import Credential, CredentialKind, SignInMethod

CODE_WAY = SignInWay("recovery-code", "Recovery code", "/signin/code")
_METHODS = {
    CredentialKind.LINK: SignInMethod.LINK,
    CredentialKind.INVITATION: SignInMethod.INVITATION,
    CredentialKind.RECOVERY_CODE: SignInMethod.RECOVERY_CODE,
}


async def show_link(visit: Visit) -> web.Response:
    """Show whom a link signs in."""
    return _show(visit, CredentialKind.LINK)


async def use_link(visit: Visit) -> web.Response:
    """Sign in by a link."""
    return await _use(visit, CredentialKind.LINK, visit.request.match_info["secret"], "/sessions")


async def show_invitation(visit: Visit) -> web.Response:
    """Show whom an invitation is for."""
    return _show(visit, CredentialKind.INVITATION)


async def use_invitation(visit: Visit) -> web.Response:
    """Sign in by an invitation."""
    secret = visit.request.match_info["secret"]
    return await _use(visit, CredentialKind.INVITATION, secret, "/sessions")


async def show_code(visit: Visit) -> web.Response:
    """Show where to enter a recovery code."""
    return visit.page(
        "code.html", next_path=local_path(visit.request.query.get("next", "/")), wrong=""
    )


async def use_code(visit: Visit) -> web.Response:
    """Sign in by a recovery code."""
    next_path = local_path(visit.fields.get("next", "/"))
    code = visit.fields.get("code", "")
    try:
        return await _use(visit, CredentialKind.RECOVERY_CODE, code, next_path)
    except Forbidden as refusal:
        sentence = refusal.sentence[:1].upper() + refusal.sentence[1:]
        return visit.page("code.html", status=403, next_path=next_path, wrong=sentence)


def _show(visit: Visit, kind: CredentialKind) -> web.Response:
    live, found = _find(visit, kind, visit.request.match_info["secret"])
    return visit.page(
        "link.html",
        user=live.snapshot.users[found.user_id],
        is_invitation=kind is CredentialKind.INVITATION,
        tailnet=live.snapshot.tailnet,
        path=visit.request.path,
    )


async def _use(visit: Visit, kind: CredentialKind, secret: str, next_path: str) -> web.Response:
    live, found = _find(visit, kind, secret)
    return await signed_in(
        visit,
        live,
        found.user_id,
        _METHODS[kind],
        spend=lambda edit: credentials.spend(edit, kind, secret, live.clock()),
        next_path=next_path,
    )


def _find(visit: Visit, kind: CredentialKind, secret: str) -> tuple[LiveTailnet, Credential]:
    for live in visit.console.tailnets:
        found = credentials.find(live.snapshot, kind, secret, live.clock())
        if found is not None:
            return live, found
    # Only what is wrong is counted: a flood of it must not keep out who has a right one.
    _spend(visit)
    visit.console.attempts.failed += 1
    raise credentials.refusal(kind)


def _spend(visit: Visit) -> None:
    visit.console.attempts.spend(visit.request.remote, visit.console.monotonic())
