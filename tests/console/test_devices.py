"""The page that lets a device in, and what it tells of the device."""

from __future__ import annotations

import hashlib
import hmac

import pytest

from appliance.identity.principals import LOCAL
from appliance.policy.answers.admission import admit
from appliance.tailnet import logins, policies
from appliance.wire import tailcfg
from tests.console.conftest import House
from tests.console.test_signin import session_of
from tests.support.builder import machine_key, node_key


def wait(house: House, name: str = "laptop", source: str = "192.0.2.9", **fields: object) -> str:
    """Have a machine ask; give the path of its link."""
    request = tailcfg.RegisterRequest(
        version=130,
        node_key=node_key(name),
        hostinfo=tailcfg.Hostinfo(
            hostname=name,
            os="linux",
            os_version="6.1",
            ipn_version="1.98.2-t123",
            **fields,  # type: ignore[arg-type]  # passed on
        ),
    )
    pending = house.console.logins.ask(machine_key(name), request, source)
    return pending.url.removeprefix("https://hw.example.com")


async def test_page_tells_what_asks_and_how_an_administrator_lets_it_in(house: House) -> None:
    path = wait(house, "<b>evil</b>")
    page = await house.browser().get(path)
    assert page.status == 200
    for said in ("linux 6.1", "1.98.2", "192.0.2.9", str(machine_key("<b>evil</b>"))[5:21]):
        assert said in page.words
    auth_id = path.rpartition("/")[2]
    assert f"headwater auth register --user NAME --auth-id {auth_id}" in page.words
    assert "<b>evil" not in page.text


async def test_signed_in_user_connects_the_device(house: House) -> None:
    browser = house.browser()
    await session_of(house, browser)
    page = await browser.get(wait(house))
    assert "will belong to alice" in page.words
    login_id = logins.plain_id(page.text.split('action="/register/')[1].split("/connect")[0])
    answer = await browser.post(f"/register/{login_id}/connect")
    assert answer.status == 303
    (node,) = house.live.snapshot.nodes.values()
    assert answer.location == f"/connected/{node.id}"
    assert (node.name, house.live.snapshot.users[node.user_id or 0].name) == ("laptop", "alice")  # type: ignore[index]  # 0 is nobody
    assert "100.64." in (await browser.get(answer.location)).words
    other = house.browser()
    await session_of(house, other, "bob")
    assert (await other.get(answer.location)).status == 404, "somebody else's device"


async def test_signed_in_user_refuses_the_device(house: House) -> None:
    browser = house.browser()
    await session_of(house, browser)
    path = wait(house)
    await browser.get(path)
    assert "was not let in" in (await browser.post(f"{path}/reject")).words
    assert (await browser.get(path)).status == 404
    assert not house.live.snapshot.nodes


async def test_stranger_can_do_nothing_but_look(house: House) -> None:
    browser = house.browser()
    path = wait(house)
    await browser.get(path)
    state = browser.cookies["__Host-headwater-state"]
    token = hmac.new(state.encode(), b"headwater form", hashlib.sha256).hexdigest()
    for verb in ("connect", "reject"):
        answer = await browser.post(f"{path}/{verb}", token=token)
        assert (answer.status, answer.location) == (303, "/signin?next=/")
    assert not house.live.snapshot.nodes
    assert house.console.logins.find(path)


@pytest.mark.parametrize("path", ["/register/x", "/register/hskey-authreq-" + "2" * 24, "/a/zz"])
async def test_link_that_is_none_says_what_to_do(house: House, path: str) -> None:
    page = await house.browser().get(path)
    assert page.status in (400, 404)
    assert "tailscale up --login-server=https://hw.example.com" in page.words


async def test_several_tabs_with_several_links(house: House) -> None:
    """C12: each link is its own, whichever was opened first."""
    browser = house.browser()
    await session_of(house, browser)
    first, second = wait(house, "one"), wait(house, "two")
    await browser.get(first)
    await browser.get(second)
    assert (await browser.post(f"{first}/connect")).status == 303
    await browser.get(second)
    assert (await browser.post(f"{second}/connect")).status == 303
    assert {node.name for node in house.live.snapshot.nodes.values()} == {"one", "two"}


async def test_tags_that_are_asked_for_are_shown_and_ruled_on(house: House) -> None:
    browser = house.browser()
    await session_of(house, browser)
    path = wait(house, request_tags=("tag:web",))
    page = await browser.get(path)
    assert "tag:web" in page.words
    answer = await browser.post(f"{path}/connect")
    assert answer.status == 400
    assert "not permitted" in answer.words
    assert not house.live.snapshot.nodes


async def test_a_tagged_device_is_shown_to_who_let_it_in(house: House) -> None:
    """It is nobody's: else every member could leaf through all of them."""
    await house.user("alice")
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        known = edit.users, edit.nodes, policies.background(edit)
        admitted = admit('{"tagOwners": {"tag:web": ["alice@"]}}', *known)
        policies.replace_policy(edit, admitted, house.clock(), source="database", by="test")
    browser, other = house.browser(), house.browser()
    await session_of(house, browser)
    await session_of(house, other, "bob")
    path = wait(house, request_tags=("tag:web",))
    await browser.get(path)
    answer = await browser.post(f"{path}/connect")
    assert answer.status == 303, answer.words
    (node,) = house.live.snapshot.nodes.values()
    assert node.is_tagged
    assert "tag:web" in (await browser.get(answer.location)).words
    for visitor, place in (
        (browser, f"/connected/{node.id}"),
        (other, f"/connected/{node.id}"),
        (other, answer.location),
    ):
        assert (await visitor.get(place)).status == 404
