"""People without an identity provider: links, invitations, passkeys, codes, sessions."""

from __future__ import annotations

import json
from typing import Any

import pytest

from appliance.console.attempts import BURST
from appliance.identity import credentials
from appliance.identity.principals import LOCAL
from appliance.records import CredentialKind, Role, SignInMethod
from tests.console.conftest import BASE_URL, Answer, Browser, House
from tests.console.test_signin import session_of
from tests.support.softkey import SoftKey


async def link(
    house: House, kind: CredentialKind = CredentialKind.LINK, name: str = "alice"
) -> str:
    """Make a link as the local socket does; give its path."""
    user = await house.user(name, Role.OWNER)
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        text, _ = credentials.make_link(
            edit, user.id, kind, house.clock(), random_bytes=house.console.random_bytes
        )
    return f"/signin/link/{text}" if kind is CredentialKind.LINK else f"/invite/{text}"


@pytest.mark.parametrize("kind", [CredentialKind.LINK, CredentialKind.INVITATION])
async def test_link_works_once_and_only_by_its_button(house: House, kind: CredentialKind) -> None:
    path, browser = await link(house, kind), house.browser()
    for _ in range(3):
        assert "alice" in (await browser.get(path)).words, "a mail program may look at it"
    answer = await browser.post(path)
    assert (answer.status, answer.location) == (303, "/sessions")
    (session,) = house.live.snapshot.sessions.values()
    assert session.method in (SignInMethod.LINK, SignInMethod.INVITATION)
    assert "owner" in (await browser.get("/sessions")).words
    other = house.browser()
    assert (await other.get(path)).status == 403
    other.last = Answer(200, "", {})
    assert (await other.post(path)).status == 403


async def test_link_runs_out_and_is_no_invitation(house: House) -> None:
    path = await link(house)
    browser = house.browser()
    assert (await browser.get(path.replace("/signin/link/", "/invite/"))).status == 403
    house.clock.advance(minutes=15)
    assert (await browser.get(path)).status == 403
    invitation = await link(house, CredentialKind.INVITATION)
    house.clock.advance(days=6)
    assert (await browser.get(invitation)).status == 200
    house.clock.advance(days=1)
    assert (await browser.get(invitation)).status == 403


async def test_form_of_a_link_needs_the_browser_that_saw_it(house: House) -> None:
    """Nobody is signed in as somebody else by a form of another site."""
    path = await link(house)
    browser = house.browser()
    await browser.get(path)
    assert (await browser.post(path, headers={"Sec-Fetch-Site": "cross-site"})).status == 403
    stranger = house.browser()
    stranger.last = browser.last
    assert (await stranger.post(path)).status == 403
    assert not house.live.snapshot.sessions


async def test_guessing_is_bounded_and_counted(house: House) -> None:
    browser = house.browser()
    await browser.get("/signin/code")
    first = browser.last
    statuses = []
    for number in range(int(BURST) + 5):
        browser.last = first
        answer = await browser.post("/signin/code", {"code": f"aaaa-bbbb-cccc-{number:04}"})
        statuses.append(answer.status)
    # Requests of tests come from this machine, which is no stranger: only the bound of all holds.
    assert set(statuses) == {403}
    assert house.console.attempts.failed == len(statuses)
    assert house.console.attempts.refused == 0


async def make_codes(browser: Browser) -> list[str]:
    await browser.get("/sessions")
    page = await browser.post("/recovery-codes")
    assert page.status == 200
    return page.text.split("<pre")[1].split(">", 1)[1].split("</pre")[0].split()


async def test_codes_are_shown_once_and_each_works_once(house: House) -> None:
    browser = house.browser()
    await session_of(house, browser)
    old = await make_codes(browser)
    codes = await make_codes(browser)
    assert (len(codes), len(set(codes + old))) == (10, 20)
    assert not any(code in repr(house.live.snapshot) for code in codes)
    fresh = house.browser()
    assert "Recovery code" in (await fresh.get("/signin?next=/auth/x")).words
    for code, status in ((old[0], 403), (codes[0].upper().replace("-", " "), 303), (codes[0], 403)):
        fresh.cookies.clear()
        await fresh.get("/signin/code?next=/auth/x")
        answer = await fresh.post("/signin/code", {"code": code, "next": "/auth/x"})
        assert answer.status == status, code
        if status == 303:
            assert answer.location == "/auth/x"


async def test_code_leads_nowhere_else(house: House) -> None:
    browser = house.browser()
    await session_of(house, browser)
    codes = await make_codes(browser)
    fresh = house.browser()
    await fresh.get("/signin/code")
    answer = await fresh.post("/signin/code", {"code": codes[0], "next": "https://evil.example"})
    assert answer.location == "/"


class Person:
    """A browser with a passkey."""

    def __init__(self, house: House) -> None:
        self.house = house
        self.browser = house.browser()
        self.key = SoftKey(BASE_URL)

    async def call(self, path: str, value: object, token: str) -> tuple[int, Any]:
        """Do what the script does."""
        headers = {"Sec-Fetch-Site": "same-origin", "X-CSRF-Token": token}
        if self.browser.cookies:
            headers["Cookie"] = "; ".join(f"{k}={v}" for k, v in self.browser.cookies.items())
        async with self.house.client.post(
            path, json=value, headers=headers, allow_redirects=False
        ) as answer:
            for name, morsel in answer.cookies.items():
                self.browser.cookies[name] = morsel.value
            text = await answer.text()
            return answer.status, json.loads(text) if answer.status == 200 else text

    async def register(self) -> tuple[int, Any]:
        page = await self.browser.get("/sessions")
        _, options = await self.call("/passkeys/begin", {}, page.token)
        answer = self.key.register(options)
        return await self.call("/passkeys/complete?name=Laptop", answer, page.token)

    async def begin(self) -> tuple[str, Any]:
        page = await self.browser.get("/signin/passkey?next=/sessions")
        status, options = await self.call("/signin/passkey/begin", {}, page.token)
        assert status == 200
        return page.token, options

    async def sign_in(self) -> tuple[int, Any]:
        token, options = await self.begin()
        path = "/signin/passkey/complete?next=/sessions"
        return await self.call(path, self.key.prove(options), token)


@pytest.fixture
async def person(house: House) -> Person:
    found = Person(house)
    await session_of(house, found.browser)
    status, answer = await found.register()
    assert (status, answer) == (200, {"location": "/sessions"})
    found.browser = house.browser()
    return found


async def test_passkey_signs_in(house: House, person: Person) -> None:
    page = await person.browser.get("/signin")
    assert "Passkey" in page.words
    status, answer = await person.sign_in()
    assert (status, answer) == (200, {"location": "/sessions"})
    page = await person.browser.get("/sessions")
    assert "Laptop" in page.words
    assert "by passkey" in page.words
    (passkey,) = house.live.snapshot.credentials.values()
    assert passkey.sign_count == 1
    assert passkey.used_at == house.clock()
    status, _ = await person.sign_in()
    assert status == 200, "again, while signed in"


async def test_passkey_that_proves_nothing_is_refused(house: House, person: Person) -> None:
    other = SoftKey(BASE_URL)
    other.id = person.key.id
    foreign = SoftKey("https://evil.example")
    foreign.id, foreign.key = person.key.id, person.key.key
    unverified = SoftKey(BASE_URL)
    unverified.id, unverified.key = person.key.id, person.key.key
    unverified.flags = type(person.key.flags)(1)
    for key in (other, foreign, unverified, SoftKey(BASE_URL)):
        token, options = await person.begin()
        status, _ = await person.call("/signin/passkey/complete", key.prove(options), token)
        assert status == 403
    assert len(house.live.snapshot.sessions) == 1, "of the registration"
    assert house.console.attempts.failed == 4


async def test_answer_is_good_once_for_its_browser_and_for_minutes(
    house: House, person: Person
) -> None:
    token, options = await person.begin()
    answer = person.key.prove(options)
    thief = Person(house)
    thief_token, _ = await thief.begin()
    assert (await thief.call("/signin/passkey/complete", answer, thief_token))[0] == 403
    assert (await person.call("/signin/passkey/complete", answer, token))[0] == 200
    person.browser = house.browser()
    token, _ = await person.begin()
    assert (await person.call("/signin/passkey/complete", answer, token))[0] == 403
    token, options = await person.begin()
    house.clock.advance(minutes=5)
    assert (await person.call("/signin/passkey/complete", person.key.prove(options), token))[
        0
    ] == 403


async def test_copied_passkey_is_noticed_by_its_count(house: House, person: Person) -> None:
    person.key.count = 5
    assert (await person.sign_in())[0] == 200
    person.browser = house.browser()
    person.key.count = 2
    assert (await person.sign_in())[0] == 403


@pytest.mark.parametrize("body", ["", "[]", "{", "null", "{}", '{"rawId": 7}', "[" * 16_000, '"x"'])
async def test_garbage_for_a_passkey_is_refused(house: House, body: str) -> None:
    person = Person(house)
    token, _ = await person.begin()
    headers = {
        "Sec-Fetch-Site": "same-origin",
        "X-CSRF-Token": token,
        "Cookie": "; ".join(f"{k}={v}" for k, v in person.browser.cookies.items()),
    }
    async with house.client.post(
        "/signin/passkey/complete", data=body.encode(), headers=headers
    ) as answer:
        assert answer.status in (400, 403)


async def test_old_session_must_sign_in_again_to_add_what_lets_in(house: House) -> None:
    person = Person(house)
    await session_of(house, person.browser)
    house.clock.advance(hours=1)
    page = await person.browser.get("/sessions")
    status, _ = await person.call("/passkeys/begin", {}, page.token)
    assert status == 303
    answer = await person.browser.post("/recovery-codes")
    assert (answer.status, answer.location) == (303, "/signin?again=1&next=/sessions")
    assert not house.live.snapshot.credentials


async def test_passkeys_and_sessions_of_others_are_not_touched(
    house: House, person: Person
) -> None:
    (passkey,) = house.live.snapshot.credentials.values()
    (session,) = house.live.snapshot.sessions
    await session_of(house, person.browser, "bob")
    await person.browser.get("/sessions")
    page = person.browser.last
    for path in (f"/passkeys/{passkey.id}/remove", f"/sessions/{session}/end"):
        person.browser.last = page
        assert (await person.browser.post(path)).status == 404
    assert session in house.live.snapshot.sessions


async def test_own_sessions_are_ended(house: House) -> None:
    one, two = house.browser(), house.browser()
    await session_of(house, one)
    await session_of(house, two)
    await one.get("/sessions")
    await one.post("/sessions/end-others")
    assert len(house.live.snapshot.sessions) == 1
    assert "alice" not in (await two.get("/")).words
    (mine,) = house.live.snapshot.sessions
    await one.get("/sessions")
    assert (await one.post(f"/sessions/{mine}/end")).location == "/"
    assert not house.live.snapshot.sessions


async def test_passkey_is_removed(house: House, person: Person) -> None:
    await person.sign_in()
    (passkey,) = house.live.snapshot.credentials.values()
    await person.browser.get("/sessions")
    assert (await person.browser.post(f"/passkeys/{passkey.id}/remove")).status == 303
    person.browser = house.browser()
    assert (await person.sign_in())[0] == 403


async def test_passkeys_are_not_offered_where_browsers_refuse_them() -> None:
    from appliance.identity.passkeys import Passkeys

    possible = {
        "https://hw.example.com": True,
        "https://hw.example.com:8443": True,
        "http://localhost:8080": True,
        "https://192.0.2.1": False,
        "https://[2001:db8::1]": False,
        "http://hw.example.com": False,
    }
    for url, expected in possible.items():
        assert Passkeys(url, bytes).is_possible is expected, url
