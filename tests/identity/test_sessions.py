"""Sessions: found by their secret only, ended by time, by not being used, and by hand."""

from __future__ import annotations

from datetime import datetime, timedelta
from random import Random

import pytest

from appliance.errors import NotFound
from appliance.identity import sessions
from appliance.records import Session, SessionID, SignInMethod, UserID
from appliance.tailnet import users
from appliance.tailnet.snapshot import Edit
from tests.support.builder import build, edit_of, user_named
from tests.support.clock import NOON


class House:
    def __init__(self) -> None:
        self.edit: Edit = edit_of(build("alice: laptop; bob: desk"))
        self.alice = user_named(self.edit, "alice").id
        self.bob = user_named(self.edit, "bob").id
        self.rng = Random(5)

    def start(
        self,
        user_id: UserID | None = None,
        now: datetime = NOON,
        expires_at: datetime | None = None,
    ) -> tuple[str, Session]:
        return sessions.start(
            self.edit,
            user_id or self.alice,
            SignInMethod.PASSKEY,
            now,
            random_bytes=self.rng.randbytes,
            expires_at=expires_at,
            agent="Mozilla/5.0\x1b[2J" + "x" * 1000,
            source="192.0.2.1",
        )


@pytest.fixture
def house() -> House:
    return House()


def test_secret_finds_its_session_and_is_not_kept(house: House) -> None:
    text, session = house.start()
    assert sessions.find(house.edit, text, NOON) == session
    assert len(text) == sessions.TEXT_LENGTH
    assert text not in repr(house.edit.sessions)
    for wrong in ("", text[:-1], text + "A", text.swapcase(), session.secret_hash, "\0" * 43):
        assert sessions.find(house.edit, wrong, NOON) is None


def test_what_a_browser_says_is_bounded(house: House) -> None:
    _, session = house.start()
    assert len(session.agent) <= sessions.MAX_AGENT_CHARS
    assert session.agent.isprintable()


@pytest.mark.parametrize(
    ("asked", "given"),
    [(None, timedelta(days=7)), (timedelta(hours=1), timedelta(hours=1)), (timedelta(days=90), timedelta(days=7))],
)  # fmt: skip
def test_it_ends_by_our_limit_or_the_providers(
    house: House, asked: timedelta | None, given: timedelta
) -> None:
    text, session = house.start(expires_at=None if asked is None else NOON + asked)
    assert session.expires_at == NOON + given
    now = NOON
    while now < session.expires_at:
        assert sessions.find(house.edit, text, now) is not None
        sessions.touch(house.edit, session.id, now)
        now += timedelta(minutes=30)
    assert sessions.find(house.edit, text, session.expires_at) is None


def test_it_ends_when_it_is_not_used(house: House) -> None:
    text, session = house.start()
    assert sessions.find(house.edit, text, NOON + sessions.IDLE_LIMIT) is None
    sessions.touch(house.edit, session.id, NOON + timedelta(hours=20))
    assert sessions.find(house.edit, text, NOON + timedelta(hours=43)) is not None


def test_use_is_noted_now_and_then_only(house: House) -> None:
    _, session = house.start()
    sessions.touch(house.edit, session.id, NOON + timedelta(minutes=9))
    assert house.edit.sessions[session.id].last_used_at == NOON
    sessions.touch(house.edit, session.id, NOON + timedelta(minutes=10))
    assert house.edit.sessions[session.id].last_used_at == NOON + timedelta(minutes=10)
    sessions.touch(house.edit, SessionID(99), NOON)


def test_ended_ones_are_gone_at_once(house: House) -> None:
    text, session = house.start()
    sessions.end(house.edit, session.id)
    assert sessions.find(house.edit, text, NOON) is None
    with pytest.raises(NotFound):
        sessions.end(house.edit, session.id)


def test_all_of_a_user_end_but_this_one(house: House) -> None:
    kept, mine = house.start()
    house.start()
    other, _ = house.start(house.bob)
    assert sessions.end_all(house.edit, house.alice, besides=mine.id) == 1
    assert sessions.find(house.edit, kept, NOON) is not None
    assert sessions.find(house.edit, other, NOON) is not None


def test_their_number_is_bounded_and_what_has_run_out_is_forgotten(house: House) -> None:
    first, _ = house.start()
    for _ in range(sessions.MAX_SESSIONS):
        house.start(now=NOON + timedelta(minutes=1))
    assert len(house.edit.sessions) == sessions.MAX_SESSIONS
    assert sessions.find(house.edit, first, NOON + timedelta(minutes=1)) is None
    house.start(house.bob, now=NOON + timedelta(days=8))
    assert len(house.edit.sessions) == 1


def test_user_who_is_deleted_is_signed_out(house: House) -> None:
    carol = users.create(house.edit, "carol", NOON)
    text, _ = house.start(carol.id)
    users.destroy(house.edit, carol.id)
    assert sessions.find(house.edit, text, NOON) is None
    with pytest.raises(NotFound):
        house.start(carol.id)
