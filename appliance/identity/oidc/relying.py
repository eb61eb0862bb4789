"""The whole of a login: a browser is sent to a provider, comes back, and is somebody.

Not for pages, cookies and sessions (``console``), nor for users (``tailnet.people``). What fails is a
``Forbidden`` with a sentence for the person, or ``ProviderAway``.
Source: OpenID Connect Core 1.0 section 3.1; RFC 9207 (issuer in the answer); RFC 9700 section 4.4.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

from authlib.oauth2.rfc6749.parameters import prepare_grant_uri
from authlib.oauth2.rfc7636 import create_s256_code_challenge

from appliance.errors import Forbidden, NotFound
from appliance.identity.oidc import tokens
from appliance.identity.oidc.flows import Flow, Flows
from appliance.identity.oidc.judgement import Judged, judge, together
from appliance.identity.oidc.provider import CALLBACK_PATH, OUR_PARAMETERS, Provider
from appliance.identity.oidc.remote import Metadata, RemoteProvider

MAX_CODE_CHARS = 4096
"""Codes are below 2 KB at the providers that are known."""


@dataclass(frozen=True, slots=True)
class Finished:
    """A login that ended well."""

    judged: Judged
    flow: Flow
    provider: Provider
    refresh_token: str = field(default="", repr=False)

    def key_expires_at(self, now: datetime) -> datetime | None:
        """Return when the key of a node ends that joins by this login; None: by the settings."""
        provider = self.provider
        if provider.use_expiry_from_token:
            return self.judged.token_expires_at
        return None if provider.key_expiry is None else now + provider.key_expiry


class RelyingParty:
    """All providers of one server, in the order of the site file, and the logins under way."""

    def __init__(
        self,
        base_url: str,
        providers: Iterable[Provider],
        *,
        random_bytes: Callable[[int], bytes],
        clock: Callable[[], datetime],
    ) -> None:
        self._base_url = base_url.rstrip("/")
        self._clock = clock
        self.flows = Flows(random_bytes)
        self.remotes = {provider.name: RemoteProvider(provider) for provider in providers}

    def remote(self, name: str) -> RemoteProvider:
        """Return a provider by its name. Raises NotFound."""
        found = self.remotes.get(name)
        if found is None:
            raise NotFound("provider-unknown", "this server knows no such identity provider")
        return found

    def callback_path(self, name: str) -> str:
        """Return the path to which a provider sends browsers back.

        Each has its own, so that no provider can pass off another one's answer as its own; the first
        one has the path that Headscale's users have registered already.
        """
        is_first = next(iter(self.remotes), None) == name
        return CALLBACK_PATH if is_first else f"{CALLBACK_PATH}/{name}"

    def provider_at(self, name: str) -> str:
        """Return the provider whose callback has this last part of the path; empty means none."""
        return name or next(iter(self.remotes), "")

    async def begin(self, name: str, *, source: str, next_path: str) -> tuple[str, Flow, str]:
        """Return where to send the browser, the login, and the text of its cookie.

        Raises NotFound, TooMany, ProviderAway.
        """
        remote = self.remote(name)
        metadata = await remote.metadata()
        flow, cookie = self.flows.begin(name, source, next_path, self._clock())
        return self._authorization_url(remote.provider, metadata, flow), flow, cookie

    def _authorization_url(self, provider: Provider, metadata: Metadata, flow: Flow) -> str:
        extra = {k: v for k, v in provider.extra_params.items() if k not in OUR_PARAMETERS}
        if provider.pkce:
            extra["code_challenge"] = create_s256_code_challenge(flow.verifier)
            extra["code_challenge_method"] = "S256"
        url: str = prepare_grant_uri(
            metadata.authorization_endpoint,
            provider.client_id,
            "code",
            redirect_uri=self._redirect_uri(provider),
            scope=" ".join(provider.scopes),
            state=flow.state,
            nonce=flow.nonce,
            **extra,
        )
        return url

    def _redirect_uri(self, provider: Provider) -> str:
        return self._base_url + self.callback_path(provider.name)

    async def finish(self, name: str, query: Mapping[str, str], cookie: str) -> Finished:
        """Return who came back from a provider. Raises Forbidden, NotFound, ProviderAway.

        ``name`` is that of the provider whose callback was called; ``cookie`` is of the browser.
        """
        remote = self.remote(name)
        flow = self.flows.end(query.get("state", ""), cookie, self._clock())
        if flow.provider != name:
            raise Forbidden("oidc-mixed-up", "the answer is of another provider than was asked")
        metadata = await remote.metadata()
        said = query.get("iss")
        if (said is not None or metadata.sends_issuer) and said != metadata.issuer:
            raise Forbidden("oidc-mixed-up", "the answer is of another provider than was asked")
        if "error" in query:
            raise Forbidden("oidc-refused", _told(query))
        code = query.get("code", "")
        if not 0 < len(code) <= MAX_CODE_CHARS:
            raise Forbidden("oidc-no-code", "the provider sent no code: sign in again")
        given = await remote.exchange(code, flow.verifier, self._redirect_uri(remote.provider))
        claims = await remote.claims(given.id_token)
        self._check(claims, remote.provider, metadata, flow.nonce)
        userinfo = await remote.userinfo(given.access_token)
        judged = _judged(remote.provider, claims, userinfo)
        return Finished(judged, flow, remote.provider, given.refresh_token)

    async def renew(self, name: str, subject: str, refresh_token: str) -> tuple[Judged, str]:
        """Ask again who somebody is, with a refresh token; return also the token for the next time.

        Raises Forbidden, NotFound, ProviderAway.
        """
        remote = self.remote(name)
        metadata = await remote.metadata()
        given = await remote.refresh(refresh_token)
        claims: Mapping[str, Any] = {"iss": metadata.issuer, "sub": subject}
        if given.id_token:
            claims = await remote.claims(given.id_token)
            self._check(claims, remote.provider, metadata, None)
        userinfo = await remote.userinfo(given.access_token)
        if claims.get("sub") != subject or not (given.id_token or userinfo):
            raise Forbidden("oidc-refresh-wrong", "the provider's new tokens are of somebody else")
        judged = _judged(remote.provider, claims, userinfo)
        return judged, given.refresh_token or refresh_token

    async def logged_out(self, name: str, logout_token: str) -> tuple[str, str]:
        """Return issuer and subject of whom a provider has logged out; the subject may be empty.

        Raises Forbidden, NotFound, ProviderAway.
        """
        remote = self.remote(name)
        metadata = await remote.metadata()
        claims = await remote.claims(logout_token)
        tokens.check_logout_token(
            claims,
            issuer=metadata.issuer,
            client_id=remote.provider.client_id,
            now=self._clock(),
        )
        subject = claims.get("sub")
        return metadata.issuer, subject if isinstance(subject, str) else ""

    def _check(
        self, claims: Mapping[str, Any], provider: Provider, metadata: Metadata, nonce: str | None
    ) -> None:
        tokens.check_id_token(
            claims,
            issuer=metadata.issuer,
            client_id=provider.client_id,
            nonce=nonce,
            now=self._clock(),
        )

    async def close(self) -> None:
        """Close the connections to all providers."""
        for remote in self.remotes.values():
            await remote.close()


def _judged(provider: Provider, claims: Mapping[str, Any], userinfo: Mapping[str, Any]) -> Judged:
    return judge(provider, together(claims, userinfo, provider.claims))


def _told(query: Mapping[str, str]) -> str:
    words = ": ".join(
        text[:200] for text in (query.get("error", ""), query.get("error_description", "")) if text
    )
    return "the provider says " + "".join(c for c in words if c.isprintable())
