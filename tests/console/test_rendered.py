"""Every page in a real browser: nothing that axe finds serious, nothing cut off, no broken rule.

Light and dark, at 360 and 1,280 px. Passkeys are registered and used with Chromium's own authenticator.
Needs Chromium, PyPI's playwright, and axe-core, which npm brings into the cache. With SCREENSHOTS=DIR the
pictures are kept, to be looked at.
"""

from __future__ import annotations

import os
import re
import secrets
import shutil
import subprocess
import tarfile
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from aiohttp.test_utils import unused_port

from appliance.identity import credentials
from appliance.identity.principals import LOCAL
from appliance.records import CredentialKind, Role
from appliance.wire import tailcfg
from tests.console.conftest import House, open_house
from tests.console.test_local import link
from tests.console.test_pages import asked
from tests.support.builder import machine_key, node_key

pytestmark = pytest.mark.system

AXE = "axe-core@4.14.1"
CACHE = Path(__file__).parents[2] / ".cache" / "axe"
WIDTHS = (360, 1280)
SCHEMES = ("light", "dark")
SESSIONS = re.compile(r":\d+/sessions$")
"""The page itself: other addresses end with it too, as where to go next."""


def axe_source() -> str:
    """Give the checker's source, brought by npm once."""
    place = CACHE / "package" / "axe.min.js"
    if not place.exists():
        npm = shutil.which("npm")
        if npm is None:
            pytest.skip("npm, which brings axe-core, is not installed")
        CACHE.mkdir(parents=True, exist_ok=True)
        done = subprocess.run(
            [npm, "pack", "--silent", AXE], cwd=CACHE, capture_output=True, text=True, check=False
        )
        if done.returncode:
            pytest.skip(f"npm cannot bring {AXE}")
        with tarfile.open(CACHE / done.stdout.split()[-1]) as archive:
            archive.extractall(CACHE, filter="data")
    return place.read_text()


@dataclass
class Visitor:
    """A browser at the pages of a house."""

    house: House
    context: Any  # playwright may not be there, and then nothing here runs
    page: Any
    scheme: str
    complaints: list[str] = field(default_factory=list)

    async def open(self, path: str) -> None:
        await self.page.goto(self.house.console.base_url + path)

    async def look(self, name: str) -> None:
        """Check the page as it is, at every width."""
        for width in WIDTHS:
            await self.page.set_viewport_size({"width": width, "height": 900})
            if "SCREENSHOTS" in os.environ:
                place = Path(os.environ["SCREENSHOTS"]) / f"{name}-{self.scheme}-{width}.png"
                await self.page.screenshot(path=place, full_page=True)
            extent = await self.page.evaluate(
                "[document.documentElement.scrollWidth, document.documentElement.clientWidth]"
            )
            assert extent[0] <= extent[1], f"{name} is cut off at {width} px"
            await self.page.evaluate(axe_source())
            found: dict[str, Any] = await self.page.evaluate("axe.run()")
            serious = [
                (each["id"], each["nodes"][0]["html"])
                for each in found["violations"]
                if each["impact"] in ("serious", "critical")
            ]
            assert not serious, f"{name}, {self.scheme}, {width} px"
        assert not self.complaints, name


@pytest.fixture(params=SCHEMES)
async def visitor(request: pytest.FixtureRequest) -> AsyncIterator[Visitor]:
    playwright = pytest.importorskip("playwright.async_api", reason="playwright is not installed")
    chromium = shutil.which("chromium")
    if chromium is None:
        pytest.skip("Chromium is not installed")
    port = unused_port()
    async with (
        open_house(f"http://localhost:{port}", port) as house,
        playwright.async_playwright() as driver,
    ):
        browser = await driver.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        context = await browser.new_context(color_scheme=request.param)
        context.set_default_timeout(15_000)
        page = await context.new_page()
        found = Visitor(house, context, page, request.param)
        page.on(
            "console",
            lambda said: (
                found.complaints.append(said.text)
                if said.type == "error" and "the server responded with a status" not in said.text
                else None
            ),
        )
        page.on("pageerror", lambda error: found.complaints.append(str(error)))
        try:
            yield found
        finally:
            await browser.close()


def machine_asks(house: House, *tags: str) -> str:
    request = tailcfg.RegisterRequest(
        version=130,
        node_key=node_key(secrets.token_hex(4)),
        hostinfo=tailcfg.Hostinfo(
            hostname="alices-rather-long-laptop-name",
            os="linux",
            os_version="6.12.9",
            ipn_version="1.98.2",
            request_tags=tags,
        ),
    )
    pending = house.console.logins.ask(machine_key("laptop"), request, "2001:db8::1234:5678:9abc")
    return pending.url.removeprefix(house.console.base_url)


async def test_pages_for_strangers(visitor: Visitor) -> None:
    house = visitor.house
    for name, path in {
        "welcome": "/",
        "signin-none": "/signin",
        "apple": "/apple",
        "windows": "/windows",
        "android": "/android",
        "register": machine_asks(house, "tag:web"),
        "expired": "/register/hskey-authreq-" + "2" * 24,
        "link-used": "/signin/link/" + "x" * 43,
        "code": "/signin/code",
        "passkey": "/signin/passkey",
    }.items():
        await visitor.open(path)
        await visitor.look(name)
    await visitor.open("/signin/code")
    await visitor.page.fill("#code", "aaaa-bbbb-cccc-dddd")
    await visitor.page.click("main button")
    await visitor.look("code-wrong")


async def test_invited_person_signs_in_and_lets_devices_in(visitor: Visitor) -> None:
    house, page = visitor.house, visitor.page
    await visitor.open(await link(house, CredentialKind.INVITATION))
    await visitor.look("invitation")
    await page.click("main button")
    await page.wait_for_url(SESSIONS)
    await visitor.look("account-new")
    await page.click("text=Make new codes")
    await page.wait_for_selector("pre.codes")
    await visitor.look("codes")
    await visitor.open(machine_asks(house))
    await visitor.look("register-signed-in")
    await page.click("main button >> text=Connect")
    await page.wait_for_url("**/connected/*")
    await visitor.look("connected")
    await visitor.open(machine_asks(house))
    await page.click("main button >> text=Refuse")
    await page.wait_for_selector(".notice.bad")
    await visitor.look("refused")


async def test_ssh_login_is_vouched_for(visitor: Visitor) -> None:
    house, page = visitor.house, visitor.page
    old = await asked(house)
    await visitor.open(await link(house))
    await visitor.look("link")
    await page.click("main button")
    await page.wait_for_url(SESSIONS)
    await visitor.open(f"/auth/{old.id}")
    await visitor.look("ssh")
    await page.click("main button >> text=Approve")
    await page.wait_for_selector(".notice.good")
    await visitor.look("ssh-approved")
    house.clock.advance(minutes=1)
    new = await asked(house, "ci")
    await visitor.open(f"/auth/{new.id}")
    await visitor.look("ssh-again")


async def test_passkey_of_a_real_browser(visitor: Visitor) -> None:
    house, page = visitor.house, visitor.page
    session = await visitor.context.new_cdp_session(page)
    await session.send("WebAuthn.enable")
    await session.send(
        "WebAuthn.addVirtualAuthenticator",
        {
            "options": {
                "protocol": "ctap2",
                "transport": "internal",
                "hasResidentKey": True,
                "hasUserVerification": True,
                "isUserVerified": True,
                "automaticPresenceSimulation": True,
            }
        },
    )
    await visitor.open(await link(house))
    await page.click("main button")
    await page.wait_for_url(SESSIONS)
    await page.fill("#name", "My laptop")
    await page.click("text=Add a passkey")
    await page.wait_for_selector("text=My laptop")
    await visitor.look("account")
    await page.click("text=Sign out")
    await page.wait_for_url(re.compile(r":\d+/$"))
    await visitor.open("/signin?next=/sessions")
    await visitor.look("signin")
    await page.click("main >> text=Passkey")
    await page.click("text=Use a passkey")
    await page.wait_for_url(SESSIONS)
    assert "by passkey" in await page.inner_text("main")
    (passkey,) = house.live.snapshot.credentials.values()
    assert passkey.used_at is not None


async def test_page_can_be_walked_by_keyboard(visitor: Visitor) -> None:
    page = visitor.page
    await visitor.open("/")
    await page.keyboard.press("Tab")
    assert await page.evaluate("document.activeElement.className") == "skip"
    await page.keyboard.press("Enter")
    assert await page.evaluate("document.activeElement.id") == "main"
    seen = []
    for _ in range(6):
        await page.keyboard.press("Tab")
        seen.append(await page.evaluate("document.activeElement.getAttribute('href')"))
    assert {"/apple", "/android", "/windows"} <= set(seen)


async def test_forms_work_without_scripts(visitor: Visitor) -> None:
    house = visitor.house
    user = await house.user("alice", Role.OWNER)
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        codes = credentials.make_codes(
            edit, user.id, house.clock(), random_bytes=house.console.random_bytes
        )
    browser = visitor.context.browser
    assert browser is not None
    context = await browser.new_context(java_script_enabled=False)
    page = await context.new_page()
    await page.goto(house.console.base_url + machine_asks(house))
    await page.click("main >> text=Recovery code")
    await page.fill("#code", codes[0])
    await page.click("main button")
    await page.click("main button >> text=Connect")
    await page.wait_for_url("**/connected/*")
    assert len(house.live.snapshot.nodes) == 1
