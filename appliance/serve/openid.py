"""The identity providers of the site file as a relying party; none costs nothing at the start.

Not for logins (``identity.oidc``) nor for pages (``console``).
"""

from __future__ import annotations

import secrets
from collections.abc import Mapping
from contextlib import AsyncExitStack
from datetime import UTC, datetime
from types import MappingProxyType
from typing import TYPE_CHECKING

from aiohttp import web

from appliance import config
from appliance.config import Settings
from appliance.config.settings import Oidc
from appliance.console.door import Console
from appliance.errors import Conflict
from appliance.loops import Loop
from appliance.serve.supervise import Supervisor

if TYPE_CHECKING:
    from appliance.identity.oidc.provider import Provider
    from appliance.identity.oidc.relying import RelyingParty

LOOK_S = 15.0
"""How soon a provider that was away is found again; one that is known is asked once an hour."""


def of_site(settings: Settings) -> OpenId | None:
    """Make what signs people in with providers; None without one. Raises OSError (a secret file)."""
    if not settings.oidc:
        return None
    # A quarter of a second of imports, which servers without a provider need not pay.
    from appliance.identity.oidc.relying import RelyingParty

    default = settings.tailnet.name
    return OpenId(
        RelyingParty(
            settings.server_url,
            (_provider(each, default) for each in settings.oidc),
            random_bytes=secrets.token_bytes,
            clock=lambda: datetime.now(UTC),
        )
    )


class OpenId:
    """The identity providers of one server."""

    def __init__(self, party: RelyingParty) -> None:
        self._party = party

    @property
    def warnings(self) -> tuple[str, ...]:
        """A sentence for each provider that cannot be asked now."""
        return tuple(
            f"the identity provider {name!r} cannot be asked: {remote.failure}"
            for name, remote in self._party.remotes.items()
            if remote.failure
        )

    def add_to(
        self,
        app: web.Application,
        console: Console,
        supervisor: Supervisor,
        ending: AsyncExitStack,
    ) -> None:
        """Add the pages, and start the loops that keep what is known of providers and people fresh."""
        from appliance.console.accounts import Accounts
        from appliance.console.oidc import OidcPages

        accounts = Accounts(self._party, console.tailnets)
        OidcPages(console, accounts).add_to(app)
        ending.push_async_callback(self._party.close)
        supervisor.start(
            *(
                Loop("oidc", remote.look, pause_s=LOOK_S, about=name)
                for name, remote in self._party.remotes.items()
            ),
            *accounts.loops(),
        )

    async def issuer_of(self, name: str) -> str:
        """Return the issuer by which accounts of a provider are known. Raises NotFound, Conflict."""
        from appliance.identity.oidc.remote import ProviderAway

        try:
            metadata = await self._party.remote(name).metadata()
        except ProviderAway as error:
            raise Conflict(
                "provider-away", f"the identity provider {name!r} cannot be asked now: {error}"
            ) from error
        return metadata.issuer


def _provider(settings: Oidc, default: str) -> Provider:
    from appliance.identity.oidc.provider import ClaimNames, ClientAuth, Provider
    from appliance.records import Role

    secret, claims = settings.client_secret_file, settings.claims
    roles: Mapping[str, Role] = {group: Role(role) for group, role in settings.roles.items()}
    return Provider(
        name=settings.name,
        issuer=settings.issuer,
        client_id=settings.client_id,
        client_secret="" if secret is None else config.read_secret(secret),
        title=settings.title,
        tailnet=settings.tailnet or default,
        client_auth=ClientAuth(settings.client_auth),
        scopes=settings.scopes,
        extra_params=MappingProxyType(dict(settings.extra_params)),
        pkce=settings.pkce,
        claims=ClaimNames(
            username=claims.username,
            email=claims.email,
            email_verified=claims.email_verified,
            display_name=claims.display_name,
            picture=claims.picture,
            groups=claims.groups,
        ),
        allowed_domains=settings.allowed_domains,
        allowed_users=settings.allowed_users,
        allowed_groups=settings.allowed_groups,
        email_verified_required=settings.email_verified_required,
        roles=MappingProxyType(roles),
        use_expiry_from_token=settings.use_expiry_from_token,
        key_expiry=settings.key_expiry,
        logout_expires_nodes=settings.logout_expires_nodes,
        ca_file="" if settings.ca_file is None else str(settings.ca_file),
    )
