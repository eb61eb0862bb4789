"""Signing in with a provider, as a browser sees it: who gets in, and which page says no."""

from __future__ import annotations

import logging
import secrets
from collections.abc import AsyncIterator, Awaitable, Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any
from urllib.parse import urlencode

import pytest
from aiohttp import web
from aiohttp.test_utils import TestClient, TestServer

from appliance.console import accounts, app
from appliance.console.accounts import Accounts
from appliance.console.attempts import ALL_BURST
from appliance.console.oidc import OidcPages
from appliance.identity.oidc.flows import MAX_FLOWS_PER_SOURCE
from appliance.identity.oidc.provider import Provider
from appliance.identity.oidc.relying import RelyingParty
from appliance.identity.principals import LOCAL
from appliance.records import Role, User
from appliance.tailnet import people, users
from tests.console.conftest import BASE_URL, Answer, Browser, House
from tests.support import openid
from tests.support.builder import extend


@dataclass
class Site:
    """The pages with one provider that bends."""

    house: House
    idp: openid.Provider
    party: RelyingParty
    accounts: Accounts
    client: TestClient[web.Request, web.Application]

    def browser(self) -> Browser:
        return Browser(self.client)

    async def leave(self, browser: Browser, next_path: str = "/register/x") -> str:
        """Go off to the provider; return the address there."""
        answer = await browser.get(f"/oidc/start/company?next={next_path}")
        assert answer.status == 303
        return answer.location

    async def come_back(self, browser: Browser, url: str, **changes: str) -> Answer:
        query = {**self.idp.log_in(url), **changes}
        return await browser.get(f"/oidc/callback?{urlencode(query)}")

    async def sign_in(self, browser: Browser, next_path: str = "/register/x") -> Answer:
        return await self.come_back(browser, await self.leave(browser, next_path))

    def user(self) -> User | None:
        return people.find(self.house.live.snapshot, self.idp.issuer, self.idp.claims["sub"])


@pytest.fixture
async def rules() -> dict[str, Any]:
    return {}


@pytest.fixture
async def site(house: House, rules: dict[str, Any]) -> AsyncIterator[Site]:
    async with openid.Provider().serve() as idp:
        idp.claims |= {
            "preferred_username": "alice",
            "email": "alice@example.com",
            "email_verified": True,
            "groups": ["staff"],
        }
        provider = Provider(
            name="company",
            title="Example Inc.",
            issuer=idp.issuer,
            client_id=openid.CLIENT_ID,
            client_secret=openid.CLIENT_SECRET,
            **rules,
        )
        party = RelyingParty(
            BASE_URL,
            [provider],
            random_bytes=secrets.token_bytes,
            clock=lambda: datetime.now(UTC),
        )
        found = Accounts(party, house.console.tailnets)

        @web.middleware
        async def from_afar(
            request: web.Request,
            handler: Callable[[web.Request], Awaitable[web.StreamResponse]],
        ) -> web.StreamResponse:
            remote = request.headers.get("X-Test-Source", request.remote or "")
            return await handler(request.clone(remote=remote))

        pages = web.Application(middlewares=[from_afar])
        app.add_to(pages, house.console)
        OidcPages(house.console, found).add_to(pages)
        async with TestClient(TestServer(pages)) as client:
            yield Site(house, idp, party, found, client)
        await party.close()


async def test_the_page_offers_the_provider(site: Site) -> None:
    page = await site.browser().get("/signin?next=/register/abc")
    assert "Sign in with Example Inc." in page.words
    assert 'href="/oidc/start/company?next=/register/abc"' in page.text


async def test_a_login_ends_in_a_session_at_the_place_it_began(site: Site) -> None:
    browser = site.browser()
    answer = await site.sign_in(browser)
    assert (answer.status, answer.location) == (303, "/register/x")
    user = site.user()
    assert user is not None
    assert (user.name, user.email, user.groups) == ("alice", "alice@example.com", ("staff",))
    assert "__Host-headwater" in browser.cookies
    assert not any("login" in name for name in browser.cookies), "of no use any more"


async def test_the_cookie_of_a_login_is_strict(site: Site) -> None:
    browser = site.browser()
    await site.leave(browser)
    (name,) = (each for each in browser.cookies if "login" in each)
    assert name.startswith("__Host-")
    for word in ("Secure", "HttpOnly", "SameSite=Lax", "Path=/", "Max-Age=900"):
        assert word in browser.attributes[name]


async def test_two_tabs(site: Site) -> None:
    browser = site.browser()
    first = await site.leave(browser, "/1")
    second = await site.leave(browser, "/2")
    assert (await site.come_back(browser, first)).location == "/1"
    assert (await site.come_back(browser, second)).location == "/2"


@pytest.mark.parametrize("path", ["//evil.example", "https://evil.example", "/\\evil.example"])
async def test_nobody_is_sent_elsewhere_afterwards(site: Site, path: str) -> None:
    assert (await site.sign_in(site.browser(), path)).location == "/"


async def test_the_answer_in_another_browser_is_refused(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url = await site.leave(site.browser())
    victim = site.browser()
    answer = await site.come_back(victim, url)
    assert answer.status == 403
    assert "another browser" in answer.words
    assert "__Host-headwater" not in victim.cookies
    assert site.user() is None
    (line,) = (each for each in caplog.records if each.msg == "sign-in refused")
    assert line.__dict__["reason"] == "login-of-another-browser"


async def test_an_answer_that_comes_twice_is_refused(site: Site) -> None:
    browser = site.browser()
    url = await site.leave(browser)
    query = site.idp.log_in(url)
    cookies = dict(browser.cookies)
    assert (await browser.get(f"/oidc/callback?{urlencode(query)}")).status == 303
    browser.cookies |= cookies
    assert (await browser.get(f"/oidc/callback?{urlencode(query)}")).status == 403


@pytest.mark.parametrize("query", ["", "?state=x", "?code=y", "?state=%00&code=%ff", "?error=x"])
async def test_answers_of_nobody(site: Site, query: str) -> None:
    assert (await site.browser().get(f"/oidc/callback{query}")).status == 403


@pytest.mark.parametrize("state", ["\u00e9", "\u0663", "%00", ";,=", "a" * 4000])
async def test_states_that_are_none(site: Site, state: str) -> None:
    assert (await site.browser().get(f"/oidc/callback?state={state}")).status == 403


async def test_refusals_of_strangers_do_not_fill_the_log(
    site: Site, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    for i in range(50):
        assert (await site.browser().get(f"/oidc/callback?state={i}")).status == 403
        async with site.client.post("/oidc/backchannel/company", data={"x": str(i)}) as answer:
            assert answer.status == 400
    lines = [each.getMessage() for each in caplog.records if "refused" in each.getMessage()]
    assert lines == ["sign-in refused", "logout refused"]


async def test_a_whole_ipv6_network_is_one_stranger(site: Site) -> None:
    """Else its owner begins so many logins that nobody else can."""

    async def begin(remote: str) -> Answer:
        return await site.browser().get("/oidc/start/company", {"X-Test-Source": remote})

    for i in range(MAX_FLOWS_PER_SOURCE):
        assert (await begin(f"2001:db8::{i:x}")).status == 303
    assert (await begin("2001:db8::ffff")).status == 429
    assert (await begin("2001:db8:0:1::1")).status == 303


async def test_a_logout_in_a_charset_that_costs(site: Site) -> None:
    kind = "application/x-www-form-urlencoded; charset=nonsense"
    async with site.client.post(
        "/oidc/backchannel/company", data=b"logout_token=x", headers={"Content-Type": kind}
    ) as answer:
        assert answer.status == 400
        assert (await answer.json())["error"] == "invalid_request"


async def test_guessing_states_is_bounded(site: Site) -> None:
    # Of this machine itself only all together are counted.
    for i in range(int(ALL_BURST)):
        assert (await site.browser().get(f"/oidc/callback?state={i}")).status == 403
    assert (await site.browser().get("/oidc/callback?state=x")).status == 429


@pytest.mark.parametrize("rules", [{"allowed_groups": ("ops",)}])
async def test_who_may_not_come_in_is_told_why(site: Site) -> None:
    answer = await site.sign_in(site.browser())
    assert answer.status == 403
    assert "in none of the groups that may sign in with Example Inc." in answer.words
    assert site.user() is None


async def test_an_address_of_another_user_is_no_key(site: Site) -> None:
    async with site.house.live.edit(by=LOCAL, act="test.change") as edit:
        users.create(edit, "boss", site.house.clock(), email="alice@example.com", role=Role.OWNER)
    answer = await site.sign_in(site.browser())
    assert answer.status == 409
    assert "headwater users link boss --provider company --subject alice-1" in answer.words


async def test_a_provider_that_is_away(site: Site) -> None:
    site.party.remote("company").provider = Provider(
        name="company", issuer="http://127.0.0.1:1", client_id="x"
    )
    answer = await site.browser().get("/oidc/start/company")
    assert (answer.status, answer.headers["Retry-After"]) == (503, "15")
    assert "cannot be asked right now" in answer.words


async def test_an_unknown_provider(site: Site) -> None:
    assert (await site.browser().get("/oidc/start/other")).status == 404
    assert (await site.browser().get("/oidc/callback/other?state=x")).status == 404


async def test_the_provider_logs_somebody_out(site: Site) -> None:
    browser = site.browser()
    await site.sign_in(browser)
    assert (await browser.get("/sessions")).status == 200
    for token, status in (("x", 400), (site.idp.logout_token(), 200)):
        async with site.client.post(
            "/oidc/backchannel/company", data={"logout_token": token}
        ) as answer:
            assert answer.status == status
            assert answer.headers["Cache-Control"] == "no-store"
    assert (await browser.get("/sessions")).status == 303
    assert not site.house.live.snapshot.sessions


@pytest.mark.parametrize("rules", [{"logout_expires_nodes": True}])
async def test_the_provider_logs_nodes_out_where_the_site_says_so(site: Site) -> None:
    await site.sign_in(site.browser())
    user = site.user()
    assert user is not None
    now = site.house.clock()
    async with site.house.live.edit(by=LOCAL, act="test.change") as edit:
        extend(edit, "alice: laptop")
    async with site.client.post(
        "/oidc/backchannel/company", data={"logout_token": site.idp.logout_token()}
    ) as answer:
        assert answer.status == 200
    (laptop,) = site.house.live.snapshot.nodes.values()
    assert laptop.is_expired(now)


async def test_groups_follow_while_a_refresh_token_is_good(site: Site) -> None:
    site.idp.refresh_token = "rt"
    await site.sign_in(site.browser())
    site.idp.claims["groups"] = ["ops"]
    await site.accounts.refresh()
    assert site.user().groups == ("staff",)  # type: ignore[union-attr]
    site.house.clock.advance(accounts.REFRESH_EVERY.total_seconds())
    await site.accounts.refresh()
    assert site.user().groups == ("ops",)  # type: ignore[union-attr]


async def test_nobody_is_made_by_a_refresh(site: Site) -> None:
    """Once an administrator has taken the account from the user, only a login makes another one."""
    del site.idp.claims["email"]
    site.idp.refresh_token = "rt"
    await site.sign_in(site.browser())
    user = site.user()
    assert user is not None
    async with site.house.live.edit(by=LOCAL, act="test.change") as edit:
        people.unlink(edit, edit.users[user.id])
    site.house.clock.advance(accounts.REFRESH_EVERY.total_seconds())
    before = site.house.live.snapshot.users
    await site.accounts.refresh()
    assert site.house.live.snapshot.users == before


@pytest.mark.parametrize("rules", [{"allowed_groups": ("staff",)}])
async def test_who_may_no_longer_come_in_is_signed_out(site: Site) -> None:
    site.idp.refresh_token = "rt"
    await site.sign_in(site.browser())
    assert site.house.live.snapshot.sessions
    site.idp.claims["groups"] = []
    site.house.clock.advance(accounts.REFRESH_EVERY.total_seconds())
    await site.accounts.refresh()
    assert not site.house.live.snapshot.sessions
