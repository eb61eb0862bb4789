"""Signing in with identity providers: browsers go there, come back, and are somebody.

Not for what tokens must be (``identity.oidc``) nor for what follows from a login (``accounts``).
"""

from __future__ import annotations

import logging
from typing import TYPE_CHECKING

from aiohttp import web

from appliance.console.accounts import Accounts
from appliance.console.door import Console, SignInWay
from appliance.console.signin import signed_in
from appliance.console.visits import (
    Visit,
    drop_cookie,
    local_path,
    page,
    read_form,
    refused,
    set_cookie,
)
from appliance.errors import Forbidden, Rejected
from appliance.front.source import source_of
from appliance.identity.oidc.flows import LIFETIME
from appliance.identity.oidc.provider import CALLBACK_PATH
from appliance.identity.oidc.remote import ProviderAway
from appliance.records import SignInMethod
from appliance.repeats import Repeats

if TYPE_CHECKING:
    from collections.abc import Iterator

log = logging.getLogger(__name__)

START_PATH = "/oidc/start/"
LOGOUT_PATH = "/oidc/backchannel/"
COOKIE = "headwater-login-"
"""With the beginning of the login's state, so that several tabs sign in side by side."""
STATE_SHOWN = 12
MAX_TOKEN_BODY = 128 * 1024
MAX_STATE_CHARS = 128
MAX_SHOWN_PATH = 80
"""Of the path of a request that was refused, in the log."""
RETRY_S = 15


class OidcPages:
    """The addresses of one server's providers."""

    def __init__(self, console: Console, accounts: Accounts) -> None:
        self._console = console
        self._accounts = accounts
        self._party = accounts.party
        self._repeats = Repeats()

    def add_to(self, app: web.Application) -> None:
        """Add the addresses, and the ways to sign in."""
        app.router.add_get(START_PATH + "{name}", page(self.start))
        app.router.add_get(CALLBACK_PATH, page(self.callback))
        app.router.add_get(CALLBACK_PATH + "/{name}", page(self.callback))
        app.router.add_post(LOGOUT_PATH + "{name}", self.log_out)
        self._console.ways.append(lambda: list(self._ways()))

    def _ways(self) -> Iterator[SignInWay]:
        for remote in self._party.remotes.values():
            provider = remote.provider
            title = f"Sign in with {provider.label}"
            yield SignInWay(provider.name, title, START_PATH + provider.name)

    async def start(self, visit: Visit) -> web.Response:
        """Send a browser to a provider."""
        name = visit.request.match_info["name"]
        try:
            url, flow, cookie = await self._party.begin(
                name,
                source=_source(visit.request),
                next_path=local_path(visit.request.query.get("next", "/")),
            )
        except ProviderAway as error:
            return self._away(visit, name, error)
        response = web.Response(status=303, headers={"Location": url})
        age_s = int(LIFETIME.total_seconds())
        set_cookie(self._console, response, _cookie(flow.state), cookie, age_s)
        return response

    async def callback(self, visit: Visit) -> web.Response:
        """Take a browser back."""
        name = self._party.provider_at(visit.request.match_info.get("name", ""))
        query = {key: visit.request.query.getall(key)[0] for key in visit.request.query}
        state = query.get("state", "")[:MAX_STATE_CHARS]
        cookie_name = _cookie(state)
        try:
            if self._party.flows.peek(state) is None:
                self._console.attempts.spend(visit.request.remote, self._console.monotonic())
            finished = await self._party.finish(name, query, visit.cookie(cookie_name))
            live, user = await self._accounts.signed_in(finished)
            response = await signed_in(
                visit,
                live,
                user.id,
                SignInMethod.OIDC,
                expires_at=finished.key_expires_at(live.clock()),
                next_path=finished.flow.next_path,
            )
        except ProviderAway as error:
            response = self._away(visit, name, error)
        except Rejected as refusal:
            self._console.attempts.failed += 1
            self._tell("sign-in refused", visit.request, refusal.code)
            response = refused(visit, refusal)
        drop_cookie(self._console, response, cookie_name)
        return response

    async def log_out(self, request: web.Request) -> web.Response:
        """End the sessions of somebody whom a provider has logged out (back-channel logout)."""
        try:
            self._console.attempts.spend(request.remote, self._console.monotonic())
            token = (await read_form(request, MAX_TOKEN_BODY)).get("logout_token")
            if token is None:
                raise Forbidden("oidc-logout-wrong", "the request carries no logout_token")
            await self._accounts.logged_out(request.match_info["name"], token)
        except (Rejected, ProviderAway) as refusal:
            reason = refusal.code if isinstance(refusal, Rejected) else "provider-away"
            self._tell("logout refused", request, reason)
            body = {"error": "invalid_request", "error_description": str(refusal)}
            return web.json_response(body, status=400, headers={"Cache-Control": "no-store"})
        return web.Response(headers={"Cache-Control": "no-store"})

    def _tell(self, message: str, request: web.Request, reason: str) -> None:
        """Write a refusal once an hour for each source and reason: any stranger can have one."""
        now = self._console.monotonic()
        repeated = self._repeats.note((message, _source(request), reason), now)
        if repeated is not None:
            fields = {
                "reason": reason,
                "source": request.path[:MAX_SHOWN_PATH],
                "remote": request.remote,
            }
            log.info(message, extra={**fields, "repeated": repeated})

    def _away(self, visit: Visit, name: str, error: ProviderAway) -> web.Response:
        log.warning(
            "identity provider cannot be asked", extra={"source": name, "reason": str(error)}
        )
        label = self._party.remote(name).provider.label
        response = visit.page(
            "refused.html",
            status=503,
            title="The provider does not answer",
            sentence=f"{label} cannot be asked right now. Devices that are connected stay connected."
            " Try again in a moment.",
        )
        response.headers["Retry-After"] = str(RETRY_S)
        return response


def _cookie(state: str) -> str:
    return COOKIE + "".join(c for c in state[:STATE_SHOWN] if c.isascii() and c.isalnum())


def _source(request: web.Request) -> str:
    """Give what counts as one stranger; this machine itself, or a proxy of it, is one, too."""
    remote = request.remote or ""
    return source_of((remote, 0)) or remote
