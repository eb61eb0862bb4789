"""Invitations: who made one may have kept it, or another one, and must not come in as somebody else."""

from __future__ import annotations

from secrets import token_bytes
from unittest.mock import Mock

import pytest

from appliance.console.attempts import CHANGE_BURST, CODES_BURST
from appliance.identity import credentials, sessions
from appliance.identity.principals import LOCAL
from appliance.live import CommitFailed
from appliance.records import CredentialKind, User
from tests.console.conftest import Answer, House


async def invited(house: House, name: str) -> tuple[User, str]:
    """Invite somebody; give the path of the link."""
    user = await house.user(name)
    async with house.live.edit(by=LOCAL, act="user.invite") as edit:
        text, _ = credentials.make_link(
            edit, user.id, CredentialKind.INVITATION, house.clock(), random_bytes=token_bytes
        )
    return user, f"/invite/{text}"


async def accept(house: House, path: str) -> Answer:
    browser = house.browser()
    await browser.get(path)
    return await browser.post(path)


async def test_a_second_invitation_is_worth_nothing_once_somebody_came(house: House) -> None:
    user, first = await invited(house, "alice")
    _, second = await invited(house, "alice")
    assert (await accept(house, first)).status == 303
    assert (await house.browser().get(second)).status == 403
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        for session in edit.sessions.values():
            edit.drop(session)
    assert (await accept(house, second)).status == 403
    assert not credentials.of_user(house.live.snapshot, user.id, CredentialKind.INVITATION)


async def test_an_invitation_is_void_for_who_came_another_way(house: House) -> None:
    user, path = await invited(house, "alice")
    assert (await house.browser().get(path)).status == 200
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        credentials.make_codes(edit, user.id, house.clock(), random_bytes=token_bytes)
    assert (await house.browser().get(path)).status == 403
    assert (await accept(house, path)).status == 403


@pytest.mark.parametrize("kind", [CredentialKind.LINK, CredentialKind.INVITATION])
async def test_a_link_is_spent_with_the_session_or_not_at_all(
    house: House, monkeypatch: pytest.MonkeyPatch, kind: CredentialKind
) -> None:
    """Between the two a browser may go away, or the database."""
    user = await house.user("alice")
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        text, _ = credentials.make_link(
            edit, user.id, kind, house.clock(), random_bytes=token_bytes
        )
    path = f"/signin/link/{text}" if kind is CredentialKind.LINK else f"/invite/{text}"
    with monkeypatch.context() as broken:
        broken.setattr(sessions, "start", Mock(side_effect=CommitFailed("the disk is full")))
        assert (await accept(house, path)).status == 503
    assert (await accept(house, path)).status == 303
    assert len(house.live.snapshot.sessions) == 1


async def test_a_flood_of_wrong_ones_keeps_nobody_out(house: House) -> None:
    _, path = await invited(house, "alice")
    while (await house.browser().get("/invite/wrong")).status != 429:
        pass
    assert (await house.browser().get(path)).status == 200
    assert (await accept(house, path)).status == 303


async def test_nobody_floods_the_audit_log_with_changes_of_their_own(house: House) -> None:
    _, path = await invited(house, "alice")
    browser = house.browser()
    await browser.get(path)
    await browser.post(path)
    token = (await browser.get("/sessions")).token
    statuses = [
        (await browser.post("/recovery-codes", token=token)).status
        for _ in range(int(CODES_BURST) + 1)
    ]
    assert statuses == [200] * int(CODES_BURST) + [429]
    ends = [
        (await browser.post("/sessions/end-others", token=token)).status
        for _ in range(int(CHANGE_BURST))
    ]
    assert (set(ends), ends[0], ends[-1]) == ({303, 429}, 303, 429)
    assert (await browser.get("/sessions")).status == 200, "who only looks may go on"
    house.clock.advance(600)
    assert (await browser.post("/sessions/end-others", token=token)).status == 303
