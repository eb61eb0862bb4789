"""Pages that help with apps, and the page that decides about SSH logins."""

from __future__ import annotations

import plistlib

import pytest

from appliance.identity.principals import LOCAL
from appliance.identity.sshchecks import SSHCheck, SSHLogin, Verdict
from appliance.records import Role
from tests.console.conftest import House
from tests.console.test_signin import session_of
from tests.support.builder import extend


@pytest.mark.parametrize("path", ["/apple", "/windows", "/android"])
async def test_helper_pages_have_the_address_to_copy_and_to_scan(house: House, path: str) -> None:
    page = await house.browser().get(path)
    assert page.status == 200
    assert "<code>https://hw.example.com</code>" in page.text
    assert "<svg" in page.text
    assert "&lt;svg" not in page.text


@pytest.mark.parametrize(
    ("platform", "payload"),
    [
        ("ios", "io.tailscale.ipn.ios"),
        ("macos-app-store", "io.tailscale.ipn.macos"),
        ("macos-standalone", "io.tailscale.ipn.macsys"),
    ],
)
async def test_profile_sets_the_address(house: House, platform: str, payload: str) -> None:
    async with house.client.get(f"/apple/{platform}") as answer:
        assert answer.content_type == "application/x-apple-aspen-config"
        profile = plistlib.loads(await answer.read())
    (content,) = profile["PayloadContent"]
    assert (content["PayloadType"], content["ControlURL"]) == (payload, "https://hw.example.com")
    assert (await house.browser().get("/apple/<script>")).status == 404


async def asked(house: House, source: str = "laptop") -> SSHCheck:
    if not house.live.snapshot.nodes:
        async with house.live.edit(by=LOCAL, act="test.change") as edit:
            extend(edit, "alice: laptop; bob: desk; tag:web: srv ci")
    snapshot = house.live.snapshot
    node = snapshot.nodes[snapshot.by_name[source]]
    login = SSHLogin(house.live.id, node.id, node.owner_id, snapshot.by_name["srv"], "root")
    return house.console.ssh_checks.ask(login, house.clock(), once=False)


async def test_owner_vouches_for_an_ssh_login(house: House) -> None:
    check = await asked(house)
    browser = house.browser()
    answer = await browser.get(f"/auth/{check.id}")
    assert answer.location == f"/signin?next=/auth/{check.id}"
    await session_of(house, browser)
    page = await browser.get(f"/auth/{check.id}")
    for said in ("laptop", "srv", "root"):
        assert said in page.words
    assert "approved" in (await browser.post(f"/auth/{check.id}/approve")).words
    assert check.verdict is Verdict.APPROVED


async def test_session_that_is_older_than_the_question_does_not_vouch(house: House) -> None:
    """A check asks whether the person is there now."""
    await asked(house, "ci")
    browser = house.browser()
    await session_of(house, browser)
    house.clock.advance(seconds=1)
    check = await asked(house)
    page = await browser.get(f"/auth/{check.id}")
    assert "Sign in again" in page.words
    assert (await browser.post(f"/auth/{check.id}/approve")).status == 403
    assert check.verdict is None
    await browser.get(f"/auth/{check.id}")
    assert "denied" in (await browser.post(f"/auth/{check.id}/deny")).words


@pytest.mark.parametrize(
    ("name", "role", "may"),
    [("bob", Role.MEMBER, False), ("root", Role.ADMIN, True), ("eve", Role.AUDITOR, False)],
)
async def test_others_vouch_only_if_their_role_may(
    house: House, name: str, role: Role, may: bool
) -> None:
    check = await asked(house)
    await house.user(name, role)
    browser = house.browser()
    await session_of(house, browser, name)
    assert (await browser.get(f"/auth/{check.id}")).status == (200 if may else 404)
    await browser.get("/")
    answer = await browser.post(f"/auth/{check.id}/approve")
    assert (answer.status, check.verdict is Verdict.APPROVED) == (
        (200, True) if may else (404, False)
    )


async def test_link_of_a_machine_is_sent_to_its_page(house: House) -> None:
    browser = house.browser()
    await session_of(house, browser)
    assert (await browser.get("/auth/hskey-authreq-abc")).location == "/register/hskey-authreq-abc"
