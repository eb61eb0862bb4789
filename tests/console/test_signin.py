"""Cookies, forms and the ways to sign in: what a browser is given, and what other sites get."""

from __future__ import annotations

from datetime import timedelta

import pytest
from aiohttp import web

from appliance.console import visits
from appliance.console.attempts import BURST, Attempts
from appliance.console.door import SignInWay
from appliance.console.pages import HEADERS, Pages
from appliance.console.signin import signed_in
from appliance.console.visits import Visit
from appliance.errors import Forbidden, TooMany
from appliance.identity import sessions
from appliance.records import SignInMethod
from tests.console.conftest import Browser, House


async def session_of(house: House, browser: Browser, name: str = "alice") -> None:
    """Sign a browser in, as a way to sign in does."""
    user = await house.user(name)

    async def handler(visit: Visit) -> web.Response:
        return await signed_in(
            visit, house.live, user.id, SignInMethod.PASSKEY, next_path="/connected/1"
        )

    house.ways[name] = handler
    answer = await browser.get(f"/test/{name}")
    assert (answer.status, answer.location) == (303, "/connected/1")


async def test_start_page_and_ways_to_sign_in(house: House) -> None:
    browser = house.browser()
    page = await browser.get("/")
    assert page.status == 200
    assert "tailscale up --login-server=https://hw.example.com" in page.words
    page = await browser.get("/signin")
    assert "headwater sign-in-link" in page.words
    house.console.ways.append(lambda: [SignInWay("x", "With <b>X</b> & Co", "/x/start")])
    page = await browser.get("/signin?next=/register/abc")
    assert 'href="/x/start?next=/register/abc"' in page.text
    assert "With &lt;b&gt;X&lt;/b&gt; &amp; Co" in page.text


@pytest.mark.parametrize("path", ["/", "/signin", "/register/x", "/static/style.css", "/auth/abc"])
async def test_every_answer_is_armed(house: House, path: str) -> None:
    answer = await house.browser().get(path)
    for name, value in HEADERS.items():
        if name != "Cache-Control" or "/static/" not in path:
            assert answer.headers[name] == value


async def test_cookie_is_as_strict_as_cookies_can_be(house: House) -> None:
    browser = house.browser()
    await session_of(house, browser)
    said = browser.attributes["__Host-headwater"]
    for part in ("; HttpOnly", "; Secure", "; SameSite=Lax", "; Path=/", "Max-Age=604800"):
        assert part in said
    assert "Domain" not in said
    assert len(browser.cookies["__Host-headwater"]) == sessions.TEXT_LENGTH
    assert "__Host-headwater-state" not in browser.cookies
    page = await browser.get("/")
    assert "alice" in page.words


async def test_no_secret_of_a_browser_is_shown_by_accident(house: House) -> None:
    browser = house.browser()
    await session_of(house, browser)
    shown: list[str] = []

    async def handler(visit: Visit) -> web.Response:
        shown.append(repr(visit))
        return visit.go("/")

    house.ways["repr"] = handler
    browser.cookies["__Host-headwater-state"] = "s" * 43
    await browser.get("/test/repr")
    assert browser.cookies["__Host-headwater"] not in shown[0]
    assert "s" * 43 not in shown[0]


async def test_sign_out_ends_the_session_and_not_only_the_cookie(house: House) -> None:
    browser = house.browser()
    await session_of(house, browser)
    stolen = dict(browser.cookies)
    await browser.get("/")
    answer = await browser.post("/signout")
    assert (answer.status, answer.location) == (303, "/")
    assert not house.live.snapshot.sessions
    browser.cookies = stolen
    assert "alice" not in (await browser.get("/")).words


async def test_session_of_before_ends_when_somebody_signs_in_again(house: House) -> None:
    browser = house.browser()
    await session_of(house, browser)
    old = browser.cookies["__Host-headwater"]
    await session_of(house, browser, "bob")
    assert old != browser.cookies["__Host-headwater"]
    assert len(house.live.snapshot.sessions) == 1


async def test_session_runs_out_and_its_use_is_noted(house: House) -> None:
    browser = house.browser()
    await session_of(house, browser)
    house.clock.advance(hours=20)
    assert "alice" in (await browser.get("/")).words
    house.clock.advance(hours=20)
    assert "alice" in (await browser.get("/")).words, "used 20 hours ago"
    house.clock.advance(hours=24)
    assert "alice" not in (await browser.get("/")).words


async def test_session_of_nobody_any_more_is_none(house: House) -> None:
    browser = house.browser()
    for text in ("", "x" * 43, "\u00e9" * 5, "a" * 5000):
        browser.cookies["__Host-headwater"] = text
        assert (await browser.get("/")).status == 200


FOREIGN = [
    {"Sec-Fetch-Site": "cross-site"},
    {"Sec-Fetch-Site": "same-site"},
    {"Sec-Fetch-Site": "none"},
    {"Sec-Fetch-Site": "", "Origin": "https://evil.example"},
    {"Sec-Fetch-Site": "", "Origin": "null"},
    {"Sec-Fetch-Site": ""},
    {"Sec-Fetch-Site": "cross-site", "Origin": "https://hw.example.com"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=str)
async def test_form_of_another_site_is_refused(house: House, headers: dict[str, str]) -> None:
    browser = house.browser()
    await session_of(house, browser)
    await browser.get("/")
    answer = await browser.post("/signout", headers=headers)
    assert answer.status == 403
    assert len(house.live.snapshot.sessions) == 1


@pytest.mark.parametrize(
    "headers", [{}, {"Sec-Fetch-Site": "", "Origin": "https://hw.example.com"}], ids=str
)
async def test_form_of_ours_is_taken(house: House, headers: dict[str, str]) -> None:
    browser = house.browser()
    await session_of(house, browser)
    await browser.get("/")
    assert (await browser.post("/signout", headers=headers)).status == 303


@pytest.mark.parametrize("token", ["", "0" * 64, "\u00e9"])
async def test_form_without_its_token_is_refused(house: House, token: str) -> None:
    browser = house.browser()
    await session_of(house, browser)
    await browser.get("/")
    assert (await browser.post("/signout", token=token)).status == 403
    other = house.browser()
    await session_of(house, other, "bob")
    await other.get("/")
    assert other.last is not None
    assert (await browser.post("/signout", token=other.last.token)).status == 403


async def test_form_is_bounded_and_may_be_garbage(house: House) -> None:
    browser = house.browser()
    await session_of(house, browser)
    await browser.get("/")
    assert (await browser.post("/signout", {"x": "y" * 20_000})).status == 413
    async with house.client.post(
        "/signout", data=b"\xff\x00{", headers={"Content-Type": "multipart/form-data"}
    ) as answer:
        assert answer.status == 403


@pytest.mark.parametrize(
    "path",
    [
        "https://evil.example/", "//evil.example", "/\\evil.example", "\\\\evil.example", "javascript:x",
        "/a\nSet-Cookie: x=y", "evil", "", "///evil", "/ /evil", "/x" * 600, "/\u00e9", "http://[",
    ],
)  # fmt: skip
def test_nobody_is_sent_anywhere_else(path: str) -> None:
    assert visits.local_path(path) == "/"


@pytest.mark.parametrize("path", ["/", "/register/abc?x=1", "/a//b", "/auth/k7m2p9"])
def test_our_own_paths_stay(path: str) -> None:
    assert visits.local_path(path) == path


async def test_login_that_has_run_out_starts_no_session(house: House) -> None:
    user = await house.user("alice")

    async def handler(visit: Visit) -> web.Response:
        with pytest.raises(Forbidden):
            await signed_in(
                visit,
                house.live,
                user.id,
                SignInMethod.OIDC,
                expires_at=house.clock() - timedelta(seconds=1),
            )
        return visit.go("/")

    house.ways["late"] = handler
    await house.browser().get("/test/late")
    assert not house.live.snapshot.sessions


async def test_static_files_never_change_under_their_address(house: House) -> None:
    pages = Pages()
    address = pages.address_of("style.css")
    answer = await house.browser().get(address)
    assert "immutable" in answer.headers["Cache-Control"]
    again = await house.browser().get(address, {"If-None-Match": answer.headers["ETag"]})
    assert (again.status, again.text) == (304, "")
    for path in ("/static/none.css", "/static/..%2fapp.py", "/static/"):
        assert (await house.browser().get(path)).status == 404


def test_no_page_has_scripts_or_styles_inside() -> None:
    pages = Pages()
    for name in pages._environment.list_templates():
        text, _, _ = pages._environment.loader.get_source(pages._environment, name)  # type: ignore[union-attr]  # it has one
        for forbidden in ("<style", " style=", " onclick", "javascript:", "|safe", "<script>"):
            assert forbidden not in text, name


def test_tries_of_one_source_are_bounded() -> None:
    attempts = Attempts()
    for _ in range(int(BURST)):
        attempts.spend("192.0.2.1", 0.0)
    with pytest.raises(TooMany):
        attempts.spend("192.0.2.1", 0.0)
    attempts.spend("192.0.2.2", 0.0)
    attempts.spend("192.0.2.1", 60.0)
    assert attempts.refused == 1
