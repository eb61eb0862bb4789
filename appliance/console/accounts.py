"""What follows from a login at a provider: a user, later a refresh, at the end a logout.

Not for tokens (``identity.oidc``), pages or cookies (``oidc``).
"""

from __future__ import annotations

import logging
from collections import OrderedDict
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from appliance.errors import Forbidden, Rejected
from appliance.identity import sessions
from appliance.identity.oidc.provider import Provider
from appliance.identity.oidc.relying import Finished, RelyingParty
from appliance.identity.oidc.remote import ProviderAway
from appliance.identity.principals import SYSTEM, Principal, PrincipalKind
from appliance.live import CommitFailed, LiveTailnet, LiveTailnets
from appliance.loops import Loop
from appliance.records import User, UserID
from appliance.tailnet import nodes, people

log = logging.getLogger(__name__)

REFRESH_EVERY = timedelta(hours=1)
"""How old what a provider said of somebody may be, where it gave a refresh token."""
REFRESH_POLL_S = 60.0
MAX_REFRESHED = 10_000
"""People whose refresh tokens are kept, each about 1 KiB; the oldest login makes room."""
MOST_AT_ONCE = 50
"""Refreshes of one minute: a provider is not to take us for an attack."""


@dataclass(slots=True)
class _Refreshed:
    """What is known of one login that can be refreshed; in memory only, since it is a secret."""

    provider: str
    subject: str
    token: str = field(repr=False)
    due: datetime


class Accounts:
    """The people of all providers, as users of the tailnets that the providers are for."""

    def __init__(self, party: RelyingParty, tailnets: LiveTailnets) -> None:
        self.party = party
        self._tailnets = tailnets
        self._refreshed: OrderedDict[tuple[str, UserID], _Refreshed] = OrderedDict()

    def loops(self) -> Iterator[Loop]:
        """Yield the loop that keeps groups and roles up to date."""
        yield Loop("oidc refresh", self.refresh, pause_s=REFRESH_POLL_S)

    async def signed_in(self, finished: Finished) -> tuple[LiveTailnet, User]:
        """Return the user of a login, made or brought up to date. Raises Forbidden, Conflict."""
        provider, person = finished.provider, finished.judged.person
        live = self._live(provider)
        by = Principal(PrincipalKind.USER, person.email or person.username or person.subject)
        async with live.edit(
            by=by, act="user.sign-in", reason=f"login with {provider.name}"
        ) as edit:
            user = people.sign_in(edit, person, live.clock())
        if finished.refresh_token:
            self._keep(live, user, finished)
        return live, user

    async def logged_out(self, name: str, token: str) -> None:
        """End the sessions of whom a logout token names; by setting, also the keys of their nodes.

        Raises Forbidden, NotFound, ProviderAway.
        """
        issuer, subject = await self.party.logged_out(name, token)
        if not subject:
            raise Forbidden(
                "oidc-logout-unknown", "the logout token names a session only, and no account"
            )
        provider = self.party.remote(name).provider
        live = self._live(provider)
        user = people.find(live.snapshot, issuer, subject)
        if user is None:
            return
        await self._end(live, user, provider, "logged out at the provider")

    async def refresh(self) -> None:
        """Ask the providers again about the people whose time has come."""
        due = [
            (key, known)
            for key, known in self._refreshed.items()
            if known.due <= self._tailnets.default.clock()
        ]
        for (tailnet, user_id), known in due[:MOST_AT_ONCE]:
            live = self._named(tailnet)
            user = None if live is None else live.snapshot.users.get(user_id)
            if live is None or user is None:
                self._refreshed.pop((tailnet, user_id), None)
                continue
            await self._refresh(live, user, known)

    async def _refresh(self, live: LiveTailnet, user: User, known: _Refreshed) -> None:
        key = (live.snapshot.tailnet.name, user.id)
        known.due = live.clock() + REFRESH_EVERY
        try:
            judged, known.token = await self.party.renew(known.provider, known.subject, known.token)
            async with live.edit(by=SYSTEM, act="user.refresh", reason="refresh token") as edit:
                found = people.find(edit, judged.person.issuer, judged.person.subject)
                if found is not None and found.id == user.id:
                    people.sign_in(edit, judged.person, live.clock())
                else:  # unlinked meanwhile: nobody logged in, so nobody is made
                    self._refreshed.pop(key, None)
        except (ProviderAway, CommitFailed) as error:
            log.debug("refresh put off", extra={"user": user.name, "reason": str(error)})
        except Rejected as refusal:
            self._refreshed.pop(key, None)
            if refusal.code.endswith("-not-allowed"):
                provider = self.party.remote(known.provider).provider
                await self._end(live, user, provider, refusal.code)
            else:
                # Refresh tokens run out, too: what was known stays until the next login.
                log.debug("no more refreshes", extra={"user": user.name, "reason": refusal.code})

    async def _end(self, live: LiveTailnet, user: User, provider: Provider, reason: str) -> None:
        now = live.clock()
        async with live.edit(by=SYSTEM, act="session.end", reason=reason) as edit:
            ended = sessions.end_all(edit, user.id)
            if provider.logout_expires_nodes:
                for node in nodes.find(edit, user_id=user.id):
                    if not node.is_expired(now):
                        nodes.expire(edit, node.id, now)
        self._refreshed.pop((live.snapshot.tailnet.name, user.id), None)
        log.info(
            "signed out",
            extra={
                "user": user.name,
                "tailnet": live.snapshot.tailnet.name,
                "reason": f"{reason}; {ended} session(s)",
                "by": provider.name,
            },
        )

    def _keep(self, live: LiveTailnet, user: User, finished: Finished) -> None:
        key = (live.snapshot.tailnet.name, user.id)
        self._refreshed.pop(key, None)
        while len(self._refreshed) >= MAX_REFRESHED:
            self._refreshed.popitem(last=False)
        self._refreshed[key] = _Refreshed(
            finished.provider.name,
            finished.judged.person.subject,
            finished.refresh_token,
            live.clock() + REFRESH_EVERY,
        )

    def _live(self, provider: Provider) -> LiveTailnet:
        found = self._named(provider.tailnet) if provider.tailnet else self._tailnets.default
        if found is None:
            raise Forbidden("tailnet-unknown", "the tailnet of this provider is not served")
        return found

    def _named(self, name: str) -> LiveTailnet | None:
        for live in self._tailnets:
            if live.snapshot.tailnet.name == name:
                return live
        return None
