"""One provider over the network: its metadata, its keys, its token and userinfo endpoints.

Whatever a provider does, an answer comes within a bound in time and size, and what was learnt before
stays in use. Not for what answers mean (``tokens``, ``judgement``).
Source: OpenID Connect Discovery 1.0; RFC 6749 sections 2.3, 4.1.3 and 6.
"""

from __future__ import annotations

import asyncio
import base64
import ssl
import time
from collections.abc import Callable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any
from urllib.parse import quote_plus, urlsplit

import aiohttp
import msgspec
from joserfc.jwk import Key

from appliance.errors import Forbidden
from appliance.identity.oidc import tokens
from appliance.identity.oidc.provider import ClientAuth, Provider

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

TIMEOUT_S = 10.0
"""For one answer, first byte to last: a person waits in front of a browser."""
MAX_ANSWER_BYTES = 1024 * 1024
"""A userinfo with a picture inside has some 100 KB."""
FRESH_S = 3600.0
"""How long metadata and keys are used before they are asked for again."""
KEY_COOLDOWN_S = 10.0
"""At most so often a token that names an unknown key makes us ask for keys."""
MAX_REDIRECTS = 3
WELL_KNOWN = "/.well-known/openid-configuration"


class ProviderAway(Exception):
    """The provider cannot be asked now, or answers what it may not; the text says what happened."""


@dataclass(frozen=True, slots=True)
class Metadata:
    """What a provider says of itself."""

    issuer: str
    authorization_endpoint: str
    token_endpoint: str
    jwks_uri: str
    userinfo_endpoint: str = ""
    end_session_endpoint: str = ""
    algorithms: tuple[str, ...] = tokens.DEFAULT_ALGORITHMS
    auth_methods: tuple[str, ...] = ()
    sends_issuer: bool = False


@dataclass(frozen=True, slots=True)
class Tokens:
    """What the token endpoint gave."""

    id_token: str = field(default="", repr=False)
    access_token: str = field(default="", repr=False)
    refresh_token: str = field(default="", repr=False)


class RemoteProvider:
    """Asks one provider; ``failure`` says what was wrong the last time, and is empty if nothing."""

    def __init__(self, provider: Provider, *, now: Callable[[], float] = time.monotonic) -> None:
        self.provider = provider
        self.failure = ""
        self._now = now
        self._lock = asyncio.Lock()
        self._metadata: Metadata | None = None
        self._keys: tuple[Key, ...] = ()
        self._tries = 0
        self._learnt_at = float("-inf")
        self._keys_at = float("-inf")
        self._session: aiohttp.ClientSession | None = None

    @property
    def known(self) -> Metadata | None:
        """Return what is known of the provider, however old."""
        return self._metadata

    async def close(self) -> None:
        """Close the connections."""
        session, self._session = self._session, None
        if session is not None:
            await session.close()

    async def metadata(self) -> Metadata:
        """Return what the provider says of itself, not older than an hour.

        Raises ProviderAway if it was never reached; later failures leave what is known in use.
        """
        tries = self._tries
        async with self._lock:
            is_due = self._metadata is None or self._now() - self._learnt_at >= FRESH_S
            # Who waited while another asked has the same answer: a crowd would wait one by one.
            if is_due and tries == self._tries:
                await self._learn()
                self._tries += 1
            if self._metadata is None:
                raise ProviderAway(self.failure)
            return self._metadata

    async def look(self) -> None:
        """Ask again, if what is known is not fresh; never raises ProviderAway."""
        try:
            await self.metadata()
        except ProviderAway:
            return

    async def claims(self, token: str) -> dict[str, Any]:
        """Return the claims of a token that this provider signed. Raises Forbidden, ProviderAway."""
        metadata = await self.metadata()
        try:
            return tokens.read(token, self._keys, metadata.algorithms)
        except tokens.UnknownKey:
            await self._learn_new_keys()
        try:
            return tokens.read(token, self._keys, metadata.algorithms)
        except tokens.UnknownKey as error:
            raise Forbidden(
                "oidc-key-unknown", "the token names a key that the provider does not publish"
            ) from error

    async def exchange(self, code: str, verifier: str, redirect_uri: str) -> Tokens:
        """Exchange a code for tokens. Raises Forbidden, ProviderAway."""
        fields = {"grant_type": "authorization_code", "code": code, "redirect_uri": redirect_uri}
        if self.provider.pkce:
            fields["code_verifier"] = verifier
        found = await self._ask_for_tokens(fields)
        if not found.id_token:
            raise Forbidden(
                "oidc-no-id-token",
                "the provider gave no ID token: does the list of scopes have 'openid'?",
            )
        return found

    async def refresh(self, refresh_token: str) -> Tokens:
        """Exchange a refresh token for new tokens. Raises Forbidden if it is worth nothing any more."""
        return await self._ask_for_tokens(
            {"grant_type": "refresh_token", "refresh_token": refresh_token}
        )

    async def userinfo(self, access_token: str) -> dict[str, Any]:
        """Return what the provider says of the owner of a token; nothing if it has no such endpoint.

        Raises Forbidden, ProviderAway.
        """
        metadata = await self.metadata()
        if not metadata.userinfo_endpoint or not access_token:
            return {}
        status, kind, body = await self._fetch(
            "GET",
            metadata.userinfo_endpoint,
            headers={"Authorization": f"Bearer {access_token}"},
        )
        if status != 200:
            raise ProviderAway(f"its userinfo endpoint answers with status {status}")
        if kind == "application/jwt":
            return await self.claims(body.decode("ascii", "replace").strip())
        return _object(body, "userinfo")

    # ── the network ──────────────────────────────────────────────────────────────────────────

    async def _learn(self) -> None:
        url = self.provider.issuer.rstrip("/") + WELL_KNOWN
        try:
            metadata = _metadata(await self._document(url), self.provider)
            await self._learn_keys(metadata)
        except (ProviderAway, Forbidden) as error:
            self.failure = str(error)
            return
        self.failure = ""
        self._metadata = metadata
        self._learnt_at = self._now()

    async def _document(self, url: str) -> dict[str, Any]:
        status, _, body = await self._fetch("GET", url)
        if status != 200:
            raise ProviderAway(f"{_place(url)} answers with status {status}")
        return _object(body, url)

    async def _learn_keys(self, metadata: Metadata) -> None:
        self._keys_at = self._now()
        self._keys = tokens.read_keys(await self._document(metadata.jwks_uri))

    async def _learn_new_keys(self) -> None:
        async with self._lock:
            if self._metadata is not None and self._now() - self._keys_at >= KEY_COOLDOWN_S:
                await self._learn_keys(self._metadata)

    async def _ask_for_tokens(self, fields: dict[str, str]) -> Tokens:
        metadata = await self.metadata()
        answer: dict[str, Any] = {}
        status = 0
        for method in _methods(self.provider, metadata):
            headers, more = _credentials(self.provider, method)
            status, _, body = await self._fetch(
                "POST", metadata.token_endpoint, headers=headers, data={**fields, **more}
            )
            answer = _object(body, "the token endpoint", lenient=status != 200)
            if status == 200 or answer.get("error") != "invalid_client":
                break
        if status >= 500:
            raise ProviderAway(f"its token endpoint answers with status {status}")
        if status != 200:
            raise Forbidden("oidc-refused", _refusal(answer, status))
        return Tokens(
            *(_text(answer, key) for key in ("id_token", "access_token", "refresh_token"))
        )

    async def _fetch(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        data: Mapping[str, str] | None = None,
    ) -> tuple[int, str, bytes]:
        try:
            async with (
                asyncio.timeout(TIMEOUT_S),
                self._answer(method, url, headers, data) as answer,
            ):
                body = await answer.content.read(MAX_ANSWER_BYTES)
                while not answer.content.at_eof():
                    more = await answer.content.read(MAX_ANSWER_BYTES)
                    body += more
                    if len(body) > MAX_ANSWER_BYTES:
                        raise ProviderAway(f"{_place(url)} answers with more than 1 MB")
                return answer.status, answer.content_type, body
        except TimeoutError as error:
            raise ProviderAway(f"{_place(url)} does not answer within {TIMEOUT_S:.0f} s") from error
        except (aiohttp.ClientError, OSError, ValueError) as error:
            raise ProviderAway(f"{_place(url)} cannot be reached: {_why(error)}") from error

    @asynccontextmanager
    async def _answer(
        self,
        method: str,
        url: str,
        headers: Mapping[str, str] | None,
        data: Mapping[str, str] | None,
    ) -> AsyncIterator[aiohttp.ClientResponse]:
        # Only what asks without a secret may be sent elsewhere.
        may_redirect = method == "GET" and headers is None
        async with self._client().request(
            method,
            url,
            headers={"Accept": "application/json", **(headers or {})},
            data=data,
            allow_redirects=may_redirect,
            max_redirects=MAX_REDIRECTS,
        ) as answer:
            if may_redirect and not _is_fine(str(answer.url), self.provider):
                raise ProviderAway(f"{_place(url)} leads to an address without TLS")
            yield answer

    def _client(self) -> aiohttp.ClientSession:
        if self._session is None:
            context = ssl.create_default_context(cafile=self.provider.ca_file or None)
            self._session = aiohttp.ClientSession(
                connector=aiohttp.TCPConnector(ssl=context, limit=8),
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=TIMEOUT_S),
                trust_env=False,
            )
        return self._session


def _metadata(document: Mapping[str, Any], provider: Provider) -> Metadata:
    """Read the document of discovery. Raises ProviderAway for what cannot be used."""
    issuer = _text(document, "issuer")
    if issuer.rstrip("/") != provider.issuer.rstrip("/"):
        raise ProviderAway(
            f"it calls itself {issuer[:200]!r}, not {provider.issuer!r}: write its own name as 'issuer'"
        )
    found = {
        key: _text(document, key)
        for key in (
            "authorization_endpoint",
            "token_endpoint",
            "jwks_uri",
            "userinfo_endpoint",
            "end_session_endpoint",
        )
    }
    for key, url in found.items():
        if not url and key in ("authorization_endpoint", "token_endpoint", "jwks_uri"):
            raise ProviderAway(f"its discovery document lacks {key}")
        if url and not _is_fine(url, provider):
            raise ProviderAway(f"its {key} is not an https address")
    methods = document.get("token_endpoint_auth_methods_supported")
    return Metadata(
        issuer=issuer,
        **found,
        algorithms=tokens.algorithms_of(document),
        auth_methods=tuple(m for m in methods if isinstance(m, str))
        if isinstance(methods, list)
        else (),
        sends_issuer=document.get("authorization_response_iss_parameter_supported") is True,
    )


def _methods(provider: Provider, metadata: Metadata) -> tuple[ClientAuth, ...]:
    """Return the ways to show who we are, the likeliest first; a refused one costs no code."""
    if not provider.client_secret:
        return (ClientAuth.NONE,)
    if provider.client_auth is not ClientAuth.AUTO:
        return (provider.client_auth,)
    both = (ClientAuth.BASIC, ClientAuth.POST)
    # Without a word of the provider Basic is meant: Discovery 1.0 section 3.
    named = tuple(method for method in both if method in metadata.auth_methods)
    return named + tuple(method for method in both if method not in named)


def _credentials(provider: Provider, method: ClientAuth) -> tuple[dict[str, str], dict[str, str]]:
    if method is ClientAuth.BASIC:
        pair = f"{quote_plus(provider.client_id)}:{quote_plus(provider.client_secret)}"
        return {"Authorization": "Basic " + base64.b64encode(pair.encode()).decode()}, {}
    fields = {"client_id": provider.client_id}
    if method is ClientAuth.POST:
        fields["client_secret"] = provider.client_secret
    return {}, fields


def _is_fine(url: str, provider: Provider) -> bool:
    """Return whether an endpoint may be asked: with TLS, unless the issuer itself is without."""
    scheme = urlsplit(url).scheme
    return scheme == "https" or (scheme == "http" and provider.issuer.startswith("http://"))


def _object(body: bytes, what: str, *, lenient: bool = False) -> dict[str, Any]:
    try:
        found = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError):
        found = None
    if isinstance(found, dict):
        return found
    if lenient:
        return {}
    raise ProviderAway(f"{_place(what)} answers with something other than a JSON object")


def _text(values: Mapping[str, Any], key: str) -> str:
    found = values.get(key)
    return found if isinstance(found, str) else ""


def _refusal(answer: Mapping[str, Any], status: int) -> str:
    code = _text(answer, "error")[:80]
    more = _text(answer, "error_description")[:200]
    words = ": ".join(each for each in (code, more) if each) or f"status {status}"
    return "the provider refuses the login: " + "".join(c for c in words if c.isprintable())


def _place(url: str) -> str:
    parts = urlsplit(url)
    return f"{parts.scheme}://{parts.netloc}{parts.path}" if parts.netloc else url


def _why(error: Exception) -> str:
    return (str(error) or type(error).__name__)[:200]
