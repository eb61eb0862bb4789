"""The keeper of a tailnet's policy: what it lets in, what it keeps, what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from appliance.errors import Conflict, Forbidden
from appliance.governing import PolicyKeeper, PolicySource
from appliance.identity.principals import LOCAL
from appliance.live import CommitFailed
from appliance.policy.admission import TestsFailed
from appliance.policy.mistakes import PolicyError
from tests.support.livehouse import House

CLOSED = '{"acls": []}'
OPEN = '{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}'
FAILING = '{"acls": [], "tests": [{"src": "alice@", "accept": ["100.64.0.2:22"]}]}'


@pytest.fixture
async def house() -> AsyncIterator[House]:
    house = House()
    house.task = asyncio.create_task(house.live.run())
    yield house
    house.task.cancel()
    await asyncio.gather(house.task, return_exceptions=True)


async def test_nobody_wrote_a_policy(house: House) -> None:
    status = PolicyKeeper(house.live, PolicySource()).status
    assert (status.source, status.in_force, status.since) == ("database", None, None)
    assert (status.trouble, status.denies_all) == ("", False)


async def test_a_good_text_is_put_in_force(house: House, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level("INFO")
    keeper = PolicyKeeper(house.live, PolicySource())
    record = await keeper.replace(CLOSED, LOCAL)
    assert (record.text, record.source, record.created_by) == (CLOSED, "database", "local:socket")
    assert keeper.status.in_force == record == house.snapshot.policy_text
    assert keeper.status.since == house.clock()
    assert house.snapshot.policy.acls == ()
    assert house.store.batches[-1][0].puts == (record,)
    (line,) = [each for each in caplog.records if each.message == "policy set"]
    assert (line.by, line.source) == ("local:socket", "database")  # type: ignore[attr-defined]


@pytest.mark.parametrize(
    ("text", "kind"), [("{", PolicyError), ('{"acl": []}', PolicyError), (FAILING, TestsFailed)]
)
async def test_a_bad_text_changes_nothing(house: House, text: str, kind: type[Exception]) -> None:
    keeper = PolicyKeeper(house.live, PolicySource())
    good = await keeper.replace(CLOSED, LOCAL)
    before = house.snapshot
    with pytest.raises(kind):
        await keeper.check(text)
    with pytest.raises(kind):
        await keeper.replace(text, LOCAL)
    assert house.snapshot is before
    assert keeper.status.in_force == good


async def test_a_check_changes_nothing(house: House) -> None:
    before = house.snapshot
    admitted = await PolicyKeeper(house.live, PolicySource()).check(CLOSED)
    assert admitted.policy.acls == ()
    assert house.snapshot is before


async def test_a_text_that_was_written_over_another_one_is_refused(house: House) -> None:
    keeper = PolicyKeeper(house.live, PolicySource())
    first = await keeper.replace(CLOSED, LOCAL)
    second = await keeper.replace(OPEN, LOCAL, over=first.id)
    with pytest.raises(Conflict, match="meanwhile"):
        await keeper.replace(CLOSED, LOCAL, over=first.id)
    assert keeper.status.in_force == second


@pytest.mark.parametrize(
    ("source", "words"),
    [
        (
            PolicySource("file", Path("/etc/headwater/policy.hujson")),
            "/etc/headwater/policy.hujson",
        ),
        (PolicySource("settings", text=CLOSED), "tailnet.policy"),
    ],
)
async def test_a_policy_from_elsewhere_cannot_be_replaced(
    house: House, source: PolicySource, words: str
) -> None:
    with pytest.raises(Forbidden, match=words) as refusal:
        await PolicyKeeper(house.live, source).replace(CLOSED, LOCAL)
    assert refusal.value.code == "policy-read-only"


async def test_a_policy_that_is_not_written_is_not_in_force(house: House) -> None:
    keeper = PolicyKeeper(house.live, PolicySource())
    before = house.snapshot
    house.store.refuse = lambda _batch: True
    with pytest.raises(CommitFailed):
        await keeper.replace(CLOSED, LOCAL)
    assert house.snapshot.policy is before.policy
    assert keeper.status.in_force is None


async def test_concurrent_texts_are_put_in_force_one_after_the_other(house: House) -> None:
    keeper = PolicyKeeper(house.live, PolicySource())
    records = await asyncio.gather(
        *(keeper.replace(f"{CLOSED}// {n}", LOCAL) for n in range(5)),
    )
    assert [record.id for record in records] == sorted({record.id for record in records})
    assert keeper.status.in_force == records[-1]
