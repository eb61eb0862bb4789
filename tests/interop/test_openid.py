"""Logins with the providers of others: what they send, our relying party takes.

Keycloak takes long to start, and is in ``test_login`` alone.
"""

from __future__ import annotations

import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from datetime import UTC, datetime
from urllib.parse import parse_qs, urlsplit

import pytest

from appliance.identity.oidc.provider import Provider
from appliance.identity.oidc.relying import Finished, RelyingParty
from tests.interop.build import Unavailable
from tests.interop.openid import providers
from tests.interop.openid.providers import Running
from tests.support.browser import Browser

pytestmark = pytest.mark.interop

BASE = "http://127.0.0.1:1"
REDIRECT = f"{BASE}/oidc/callback"

Start = Callable[[str], AbstractAsyncContextManager[Running]]

STARTS: dict[str, Start] = {
    "oidc-provider": providers.oidc_provider,
    "oidc-provider, claims in userinfo only": lambda redirect: providers.oidc_provider(
        redirect, userinfo_only=True
    ),
    "canaille": providers.canaille,
}


@pytest.fixture(params=STARTS)
async def running(request: pytest.FixtureRequest) -> AsyncIterator[Running]:
    try:
        async with STARTS[request.param](REDIRECT) as found:
            yield found
    except Unavailable as reason:
        pytest.skip(f"PROVIDER IS NOT HERE: {reason}")


async def _login(party: RelyingParty, running: Running, user: str) -> Finished:
    url, _, cookie = await party.begin("company", source="127.0.0.1", next_path="/")
    async with Browser(stop_at=REDIRECT, trusted=running.issuer) as browser:
        page = await browser.get(url)
        if page.status:
            page = await running.sign_in(browser, page, user)
    query = {key: values[0] for key, values in parse_qs(urlsplit(page.url).query).items()}
    return await party.finish("company", query, cookie)


async def test_a_login(running: Running) -> None:
    provider = Provider(
        name="company",
        issuer=running.issuer,
        client_id=providers.CLIENT_ID,
        client_secret=providers.CLIENT_SECRET,
        scopes=running.scopes,
        # OpenID Connect Core 1.0 section 11: no refresh token without it.
        extra_params={"prompt": "consent"} if "offline_access" in running.scopes else {},
        email_verified_required=running.name != "canaille",
    )
    party = RelyingParty(
        BASE,
        [provider],
        random_bytes=secrets.token_bytes,
        clock=lambda: datetime.now(UTC),
    )
    try:
        done = await _login(party, running, "alice")
        person = done.judged.person
        assert person.issuer == running.issuer
        assert person.email == "alice@example.com"
        assert person.username == ("" if running.name == "canaille" else "alice")
        assert sorted(person.groups) == ["engineers", "staff"]
        if done.refresh_token:
            judged, _ = await party.renew("company", person.subject, done.refresh_token)
            assert judged.person.subject == person.subject
            assert sorted(judged.person.groups) == ["engineers", "staff"]
        else:
            assert "offline_access" not in running.scopes
    finally:
        await party.close()
