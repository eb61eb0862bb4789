"""Passkeys in pages: registered by who is signed in, and a way to sign in. The only pages with a script."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import msgspec
from aiohttp import web

from appliance.console.door import SignInWay
from appliance.console.signin import signed_in
from appliance.console.visits import Visit, local_path
from appliance.errors import Forbidden, Invalid
from appliance.identity import credentials
from appliance.live import LiveTailnet
from appliance.records import Credential, CredentialID, CredentialKind, SignInMethod

MAX_ANSWER_BYTES = 16 * 1024
"""An answer of a browser has at most 2 KiB, since no certificates are asked for; to read one takes time
that grows with the square of its size, and strangers may send them."""
WAY = SignInWay("passkey", "Passkey", "/signin/passkey")


async def show(visit: Visit) -> web.Response:
    """Show the page that signs in by a passkey."""
    return visit.page("passkey.html", next_path=local_path(visit.request.query.get("next", "/")))


async def begin_sign_in(visit: Visit) -> web.Response:
    """Ask the browser for a passkey."""
    _spend(visit)
    now = visit.console.logins.now
    return _json(visit.console.passkeys.begin_sign_in(visit.binding, now))


async def finish_sign_in(visit: Visit) -> web.Response:
    """Sign in whose passkey it is."""
    _spend(visit)
    found: list[tuple[LiveTailnet, Credential]] = []

    def find(public_id: bytes) -> Credential | None:
        for live in visit.console.tailnets:
            passkey = credentials.find_passkey(live.snapshot, public_id)
            if passkey is not None:
                found.append((live, passkey))
                return passkey
        return None

    answer = await _answer(visit)
    try:
        _, count = visit.console.passkeys.finish_sign_in(
            visit.binding, answer, find, visit.console.logins.now
        )
    except Forbidden:
        visit.console.attempts.failed += 1
        raise
    live, passkey = found[0]
    response = await signed_in(
        visit,
        live,
        passkey.user_id,
        SignInMethod.PASSKEY,
        spend=lambda edit: credentials.use_passkey(edit, passkey.id, count, live.clock()),
        next_path=visit.request.query.get("next", "/"),
    )
    return _as_json(response)


async def begin_registration(visit: Visit) -> web.Response:
    """Ask the browser for a new passkey."""
    who = visit.fresh
    known = credentials.of_user(who.live.snapshot, who.user.id, CredentialKind.PASSKEY)
    now = who.live.clock()
    return _json(visit.console.passkeys.begin_registration(visit.binding, who.user, known, now))


async def finish_registration(visit: Visit) -> web.Response:
    """Add the passkey to whoever is signed in."""
    who = visit.fresh
    now = who.live.clock()
    made = visit.console.passkeys.finish_registration(visit.binding, await _answer(visit), now)
    async with who.live.edit(by=who.principal, act="credential.create") as edit:
        credentials.add_passkey(
            edit,
            who.user.id,
            now,
            public_id=made.public_id,
            public_key=made.public_key,
            sign_count=made.sign_count,
            name=visit.request.query.get("name", ""),
        )
    return _json({"location": "/sessions"})


async def remove(visit: Visit) -> web.Response:
    """Take a passkey away."""
    who = visit.fresh
    number = CredentialID(int(visit.request.match_info["credential_id"]))
    async with who.live.edit(by=who.principal, act="credential.remove") as edit:
        credentials.remove_passkey(edit, who.user.id, number)
    return visit.go("/sessions")


def _spend(visit: Visit) -> None:
    visit.console.attempts.spend(visit.request.remote, visit.console.monotonic())


async def _answer(visit: Visit) -> Mapping[str, Any]:
    body = await visit.request.clone(client_max_size=MAX_ANSWER_BYTES).read()
    try:
        answer = msgspec.json.decode(body)
    except (msgspec.DecodeError, RecursionError) as error:
        raise Invalid("passkey-answer", "the browser's answer cannot be read") from error
    if not isinstance(answer, dict):
        raise Invalid("passkey-answer", "the browser's answer cannot be read")
    return answer


def _json(value: object) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _as_json(response: web.Response) -> web.Response:
    """Return a redirection in the form that the script follows, with its cookies."""
    answer = _json({"location": response.headers["Location"]})
    for morsel in response.cookies.values():
        answer.cookies[morsel.key] = morsel
    return answer
