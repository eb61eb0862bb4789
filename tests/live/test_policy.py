"""The keeper of a tailnet's policy: what it lets in, what it keeps, what it says."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from ipaddress import IPv4Network
from pathlib import Path

import pytest

from appliance.errors import Conflict, Forbidden
from appliance.identity.principals import LOCAL
from appliance.live import CommitFailed, LiveTailnet
from appliance.live.policy import NOT_WRITTEN, RETRY_S, PolicyKeeper, PolicySource, restore
from appliance.policy.answers.admission import TestsFailed
from appliance.policy.text.language import UNWRITTEN
from appliance.policy.text.mistakes import PolicyError
from appliance.records import Role
from appliance.tailnet import attributes, nodes, policies, users
from appliance.tailnet.policies import DENYING
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg
from tests.support.builder import node_named, sequences_after
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
    first = await keeper.replace(CLOSED, LOCAL, over=NOT_WRITTEN)
    with pytest.raises(Conflict, match="meanwhile"):
        await keeper.replace(OPEN, LOCAL, over=NOT_WRITTEN)
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


# ── files and settings ───────────────────────────────────────────────────────────────────────


def from_file(house: House, path: Path) -> PolicyKeeper:
    """Make a keeper for a server that starts for the first time, with a policy file."""
    source = PolicySource("file", path)
    snapshot, trouble = restore(house.snapshot, source)
    house.live.snapshot = house.live._tip = snapshot
    return PolicyKeeper(house.live, source, trouble=trouble)


async def test_a_file_is_put_in_force_and_followed(house: House, tmp_path: Path) -> None:
    path = tmp_path / "policy.hujson"
    path.write_text(CLOSED)
    keeper = from_file(house, path)
    await keeper.look()
    status = keeper.status
    assert status.in_force is not None
    assert (status.in_force.text, status.in_force.source) == (CLOSED, "file")
    assert (status.source, status.path, status.trouble) == ("file", path, "")
    written = len(house.store.batches)
    await keeper.look()
    assert len(house.store.batches) == written
    path.write_text(OPEN)
    await keeper.look()
    assert house.snapshot.policy_text is not None
    assert house.snapshot.policy_text.text == OPEN


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ('{"acls": [}', "line 1, column 11"),
        ('{"acl": []}', 'did you mean "acls"'),
        (FAILING, "expected ALLOWED, got DENIED"),
        ("", "is empty"),
    ],
)
async def test_a_bad_file_leaves_the_last_good_one(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture, bad: str, words: str
) -> None:
    path = tmp_path / "policy.hujson"
    path.write_text(OPEN)
    keeper = from_file(house, path)
    await keeper.look()
    good = keeper.status.in_force
    path.write_text(bad)
    house.clock.advance(hours=1)
    for _ in range(3):
        await keeper.look()
    status = keeper.status
    assert (status.in_force, status.trouble_since) == (good, house.clock())
    assert words in status.trouble
    assert str(path) in status.trouble
    assert keeper.refused == 1
    (line,) = [each for each in caplog.records if each.levelname == "WARNING"]
    assert line.message == "policy refused, the one in force stays"
    assert words in line.reason  # type: ignore[attr-defined]
    path.write_text(OPEN)
    await keeper.look()
    assert (keeper.status.trouble, keeper.status.in_force) == ("", good)


async def test_without_a_first_policy_nothing_is_let_through(
    house: House, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    path = tmp_path / "policy.hujson"
    keeper = from_file(house, path)
    await keeper.look()
    status = keeper.status
    assert (status.in_force, status.denies_all) == (None, True)
    assert "there is no such file" in status.trouble
    assert "no policy can be used: everything is denied" in caplog.text
    assert house.snapshot.policy.acls == ()
    path.write_text(OPEN)
    await keeper.look()
    assert (keeper.status.denies_all, keeper.status.trouble) == (False, "")


async def test_a_text_of_the_settings_is_put_in_force(house: House) -> None:
    keeper = PolicyKeeper(house.live, PolicySource("settings", text=CLOSED))
    await keeper.look()
    record = house.snapshot.policy_text
    assert record is not None
    assert (record.text, record.source, record.created_by) == (
        CLOSED,
        "settings",
        "system:headwater",
    )
    await keeper.take_over(PolicySource("settings", text="{"))
    assert "the settings of the server (tailnet.policy):\nline 1" in keeper.status.trouble
    assert house.snapshot.policy_text is record
    await keeper.take_over(PolicySource("settings", text=OPEN))
    assert house.snapshot.policy_text is not None
    assert (house.snapshot.policy_text.text, keeper.status.trouble) == (OPEN, "")


async def test_another_source_goes_on_with_what_is_in_force(house: House, tmp_path: Path) -> None:
    keeper = PolicyKeeper(house.live, PolicySource("settings", text=CLOSED))
    await keeper.look()
    await keeper.take_over(PolicySource())
    assert house.snapshot.policy_text is not None
    assert house.snapshot.policy_text.source == "settings"
    changed = await keeper.replace(OPEN, LOCAL)
    path = tmp_path / "policy"
    path.write_text(OPEN)
    await keeper.take_over(PolicySource("file", path))
    now = house.snapshot.policy_text
    assert (now.text, now.source) == (OPEN, "file")
    assert now.id > changed.id


async def test_a_source_without_a_text_may_be_given_up(house: House, tmp_path: Path) -> None:
    keeper = from_file(house, tmp_path / "nothing")
    await keeper.look()
    await keeper.take_over(PolicySource())
    status = keeper.status
    assert (status.denies_all, status.in_force, status.trouble) == (False, None, "")
    assert house.snapshot.policy is UNWRITTEN


async def test_a_source_that_appears_while_running_and_has_no_text_changes_nothing(
    house: House, tmp_path: Path
) -> None:
    keeper = PolicyKeeper(house.live, PolicySource())
    await keeper.take_over(PolicySource("file", tmp_path / "nothing"))
    assert "no such file" in keeper.status.trouble
    assert not keeper.status.denies_all


async def test_failed_tests_are_tried_again_when_their_users_come(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        '{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}],'
        ' "tests": [{"src": "autogroup:auditor", "accept": ["alice@:22"]}]}'
    )
    clock = [0.0]
    monkeypatch.setattr("appliance.live.policy._now", lambda: clock[0])
    keeper = PolicyKeeper(house.live, PolicySource("settings", text=text))
    await keeper.look()
    assert 'source "autogroup:auditor"' in keeper.status.trouble
    clock[0] += RETRY_S
    await keeper.look()
    assert keeper.refused == 1
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        users.create(edit, "bob", house.clock(), role=Role.AUDITOR)
    await keeper.look()
    assert keeper.status.trouble == ""
    assert house.snapshot.policy_text is not None


async def test_failed_tests_are_tried_again_when_a_device_becomes_another(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    text = (
        '{"postures": {"posture:high": ["custom:level > 2"]},'
        ' "acls": [{"action": "accept", "src": ["alice@"], "dst": ["*:*"],'
        ' "srcPosture": ["posture:high"]}],'
        ' "tests": [{"src": "alice@", "accept": ["10.0.0.1:22"]}]}'
    )
    clock = [0.0]
    monkeypatch.setattr("appliance.live.policy._now", lambda: clock[0])
    keeper = PolicyKeeper(house.live, PolicySource("settings", text=text))
    await keeper.look()
    assert "alice@ -> 10.0.0.1:22: expected ALLOWED" in keeper.status.trouble
    await house.rename("laptop", "tablet")
    clock[0] += RETRY_S
    await keeper.look()
    assert keeper.refused == 1
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        for node in list(edit.nodes.values()):
            attributes.put(edit, node.id, "custom:level", 3, house.clock())
    await keeper.look()
    assert keeper.status.trouble == ""
    assert house.snapshot.policy_text is not None


async def test_a_commit_that_fails_is_tried_again(house: House, tmp_path: Path) -> None:
    path = tmp_path / "policy"
    path.write_text(CLOSED)
    keeper = from_file(house, path)
    house.store.refuse = lambda _batch: True
    await keeper.look()
    assert "the database did not take the change; it is tried again" in keeper.status.trouble
    house.store.refuse = lambda _batch: False
    await keeper.look()
    assert keeper.status.trouble == ""
    assert house.snapshot.policy_text is not None


async def test_a_domain_that_leaves_is_noticed_before_the_next_start(house: House) -> None:
    text = '{"acls": [{"action": "accept", "src": ["user:*@example.com"], "dst": ["*:*"]}]}'
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        edit.set_settings(replace(edit.settings, email_domains=frozenset({"example.com"})))
    source = PolicySource("settings", text=text)
    keeper = PolicyKeeper(house.live, source)
    await keeper.look()
    assert keeper.status.trouble == ""
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        edit.set_settings(replace(edit.settings, email_domains=frozenset()))
    await keeper.take_over(source)
    assert "example.com" in keeper.status.trouble
    # What the next start would do, and what mends it.
    assert house.snapshot.policy_text is not None
    restored, trouble = restore(house.snapshot, source)
    assert restored.policy is DENYING
    assert "example.com" in trouble
    house.live.snapshot = house.live._tip = restored
    again = PolicyKeeper(house.live, PolicySource(), trouble=trouble)
    assert again.status.denies_all
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        edit.set_settings(replace(edit.settings, email_domains=frozenset({"example.com"})))
    await again.take_over(PolicySource())
    assert (again.status.denies_all, again.status.trouble) == (False, "")
    assert again.status.in_force == house.snapshot.policy_text


async def test_the_loop_goes_on_while_a_text_is_judged(house: House) -> None:
    keeper = PolicyKeeper(house.live, PolicySource())
    groups = ",".join(f'"group:g{n}": ["alice@"]' for n in range(3000))
    judging = asyncio.create_task(keeper.check(f'{{"groups": {{{groups}}}, "acls": []}}'))
    turns = 0
    while not judging.done():
        await asyncio.sleep(0)
        turns += 1
    assert (await judging).policy.groups
    assert turns > 10


async def test_routes_that_the_policy_approves_are_compiled_before_the_draft(house: House) -> None:
    """Compiling them inside the draft held everybody up: half a second at 5,000 nodes."""
    offered = tailcfg.Hostinfo(routable_ips=(IPv4Network("10.1.0.0/16"),))
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        edit.put(replace(node_named(edit, "laptop"), hostinfo=offered))
    keeper = PolicyKeeper(house.live, PolicySource())
    text = '{"acls": [], "autoApprovers": {"routes": {"10.0.0.0/8": ["alice@"]}}}'
    admitted = await keeper._judge(text, is_wanted=True)
    assert not node_named(house.snapshot, "laptop").approved_routes
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        policies.replace_policy(edit, admitted, house.clock(), source="database", by="me")
    assert node_named(house.snapshot, "laptop").approved_routes == offered.routable_ips
    assert house.snapshot.compiled is admitted.compiled
    scratch = await keeper.check(text)
    state, expected = house.snapshot.compiled.state, scratch.compiled.state
    assert state is not None
    assert expected is not None
    assert state.matches.keys() == expected.matches.keys()


async def test_a_bug_while_looking_is_trouble_and_left_to_the_supervisor(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    keeper = PolicyKeeper(house.live, PolicySource("settings", text=CLOSED))
    monkeypatch.setattr(keeper, "_news", _broken)
    with pytest.raises(RuntimeError, match="a bug"):
        await keeper.look()
    assert "RuntimeError('a bug')" in keeper.status.trouble


async def test_a_policy_that_the_compiler_cannot_take_denies_everything_and_is_tried_again() -> (
    None
):
    """D2: at publish. The commit is kept, the tailnet goes on, and a later compilation may work."""
    house, faults = House(), [KeyError("a bug of the compiler")]

    def settle(old: Snapshot, new: Snapshot) -> Snapshot:
        if faults and new.policy is not DENYING and new.policy is not UNWRITTEN:
            raise faults[0]
        return policies.settle(old, new)

    live = LiveTailnet(house.snapshot, house.store, sequences_after(house.snapshot), settle=settle)
    keeper = PolicyKeeper(live, PolicySource())
    running = asyncio.create_task(live.run())
    try:
        await keeper.replace(CLOSED, LOCAL)
        assert keeper.status.denies_all
        assert "KeyError('a bug of the compiler')" in keeper.status.trouble
        assert live.snapshot.policy_text is not None, "it is stored, and so it is known"
        async with live.edit(by=LOCAL, act="test.change") as edit:
            nodes.rename(edit, node_named(edit, "phone").id, "mobile")
        assert "mobile" in live.snapshot.by_name, "the tailnet lives on"
        faults.clear()
        await keeper.look()
        status = keeper.status
        assert (status.denies_all, status.trouble) == (False, "")
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_stored_policy_that_the_compiler_cannot_take_denies_everything() -> None:
    """D2: at load. The tailnet comes to be all the same, and the server starts."""
    house = House()

    def settle(old: Snapshot, new: Snapshot) -> Snapshot:
        if new.policy is not DENYING:
            raise KeyError("a bug of the compiler")
        return policies.settle(old, new)

    live = LiveTailnet(house.snapshot, house.store, sequences_after(house.snapshot), settle=settle)
    status = PolicyKeeper(live, PolicySource()).status
    assert status.denies_all
    assert "a bug of the compiler" in status.trouble
    assert status.trouble_since is not None


async def _broken() -> str:
    raise RuntimeError("a bug")
