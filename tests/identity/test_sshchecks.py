"""SSH checks: bounds, time, ids, and what a verdict does."""

from __future__ import annotations

from datetime import timedelta
from random import Random

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.errors import NotFound, TooMany
from appliance.identity import sshchecks
from appliance.identity.sshchecks import (
    DELIVERY,
    ID_LENGTH,
    ID_LETTERS,
    LIFETIME,
    SSHChecks,
    SSHLogin,
    Verdict,
)
from appliance.records import NodeID, TailnetID, UserID
from tests.support.clock import NOON

HERE, THERE = TailnetID(1), TailnetID(2)
HOUR = timedelta(hours=1)


def login(source: int = 1, destination: int = 9, tailnet: TailnetID = HERE) -> SSHLogin:
    return SSHLogin(tailnet, NodeID(source), UserID(1), NodeID(destination), "root")


@pytest.fixture
def checks() -> SSHChecks:
    return SSHChecks(Random(3).randbytes)


def test_ids_are_easy_to_type_and_taken_in_any_case(checks: SSHChecks) -> None:
    check = checks.ask(login(), NOON, once=False)
    assert len(check.id) == ID_LENGTH
    assert set(check.id) <= set(ID_LETTERS)
    assert checks.decide(HERE, f" {check.id.upper()} ", Verdict.APPROVED, NOON) is check


def test_a_check_is_decided_once_and_by_its_own_tailnet(checks: SSHChecks) -> None:
    check = checks.ask(login(), NOON, once=False)
    for tailnet, check_id in ((THERE, check.id), (HERE, "nonsense"), (HERE, "")):
        with pytest.raises(NotFound) as caught:
            checks.decide(tailnet, check_id, Verdict.APPROVED, NOON)
        assert caught.value.code == "ssh-check-unknown"
    checks.decide(HERE, check.id, Verdict.DENIED, NOON)
    with pytest.raises(NotFound):
        checks.decide(HERE, check.id, Verdict.APPROVED, NOON)
    assert check.verdict is Verdict.DENIED
    assert not checks.is_approved(login(), HOUR, NOON)


def test_pending_is_what_waits_in_one_tailnet(checks: SSHChecks) -> None:
    first = checks.ask(login(1), NOON, once=False)
    second = checks.ask(login(2), NOON + HOUR / 60, once=False)
    other = checks.ask(login(3, tailnet=THERE), NOON, once=False)
    assert checks.pending(HERE, NOON) == [first, second]
    assert checks.pending(THERE, NOON) == [other]
    checks.decide(HERE, first.id, Verdict.APPROVED, NOON)
    assert checks.pending(HERE, NOON) == [second]
    assert checks.pending(HERE, NOON + LIFETIME) == [second]
    assert checks.pending(HERE, second.expires_at) == []


def test_a_verdict_waits_a_while_for_the_node(checks: SSHChecks) -> None:
    check = checks.ask(login(), NOON, once=False)
    later = NOON + LIFETIME - timedelta(seconds=1)
    checks.decide(HERE, check.id, Verdict.APPROVED, later)
    assert checks.get(check.id, later + DELIVERY - timedelta(seconds=1)) is check
    assert checks.get(check.id, later + DELIVERY) is None


def test_a_decided_check_is_no_answer_to_the_next_login(checks: SSHChecks) -> None:
    check = checks.ask(login(), NOON, once=False)
    checks.decide(HERE, check.id, Verdict.DENIED, NOON)
    assert checks.ask(login(), NOON, once=False) is not check


def test_a_denial_takes_an_approval_back(checks: SSHChecks) -> None:
    for verdict in (Verdict.APPROVED, Verdict.DENIED):
        checks.decide(HERE, checks.ask(login(), NOON, once=False).id, verdict, NOON)
        assert checks.is_approved(login(), HOUR, NOON) == (verdict is Verdict.APPROVED)


def test_an_approval_of_one_login_is_for_that_one(checks: SSHChecks) -> None:
    once = checks.ask(login(), NOON, once=True)
    assert checks.ask(login(), NOON, once=False) is not once
    checks.decide(HERE, once.id, Verdict.APPROVED, NOON)
    assert not checks.is_approved(login(), HOUR, NOON)


def test_a_clock_that_was_set_back_proves_nothing(checks: SSHChecks) -> None:
    checks.decide(HERE, checks.ask(login(), NOON, once=False).id, Verdict.APPROVED, NOON)
    assert checks.is_approved(login(), HOUR, NOON)
    assert not checks.is_approved(login(), HOUR, NOON - HOUR)


def test_the_whole_table_is_bounded(checks: SSHChecks, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sshchecks, "MAX_CHECKS", 8)
    for destination in range(8):
        checks.ask(login(destination=destination), NOON, once=False)
    with pytest.raises(TooMany) as caught:
        checks.ask(login(destination=99), NOON, once=False)
    assert "headwater ssh pending" in caught.value.sentence
    checks.ask(login(destination=99), NOON + LIFETIME, once=False)


def test_the_oldest_approval_is_forgotten_first(
    checks: SSHChecks, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sshchecks, "MAX_APPROVALS", 2)
    for source in (1, 2, 1, 3):
        check = checks.ask(login(source), NOON, once=False)
        checks.decide(HERE, check.id, Verdict.APPROVED, NOON)
    assert [checks.is_approved(login(n), HOUR, NOON) for n in (1, 2, 3)] == [True, False, True]


@given(
    st.lists(
        st.tuples(
            st.integers(1, 3),  # source
            st.integers(1, 2),  # destination
            st.booleans(),  # once
            st.sampled_from([None, Verdict.APPROVED, Verdict.DENIED]),
            st.integers(0, 400),  # seconds that pass
        ),
        max_size=60,
    )
)
def test_nobody_gets_in_without_an_approval_of_their_own(
    steps: list[tuple[int, int, bool, Verdict | None, int]],
) -> None:
    checks, now = SSHChecks(Random(4).randbytes), NOON
    approved = dict.fromkeys([login(s, d) for s in (1, 2, 3) for d in (1, 2)], NOON - HOUR)
    for source, destination, once, verdict, seconds in steps:
        now += timedelta(seconds=seconds)
        wanted = login(source, destination)
        try:
            check = checks.ask(wanted, now, once=once)
        except TooMany:
            assert len(checks.pending(HERE, now)) >= sshchecks.MAX_CHECKS_PER_NODE
            continue
        assert check.login == wanted
        assert check.verdict is None
        if verdict is not None:
            checks.decide(HERE, check.id, verdict, now)
            if verdict is Verdict.DENIED or not once:
                approved[wanted] = now if verdict is Verdict.APPROVED else NOON - HOUR
        period = timedelta(minutes=10)
        for each, at in approved.items():
            assert checks.is_approved(each, period, now) == (now - at < period)
