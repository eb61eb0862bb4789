"""SSH check mode: who may ask, how long a request waits, and what the node is told to do."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from random import Random
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.control.exchange import Exchange
from appliance.control.sshcheck import MAX_LOCAL_USER_CHARS, SSHActions
from appliance.identity.principals import SYSTEM
from appliance.identity.sshchecks import (
    LIFETIME,
    MAX_CHECKS_PER_NODE,
    SSHCheck,
    SSHChecks,
    Verdict,
)
from appliance.live import LiveTailnet, LiveTailnets
from appliance.policy.answers.admission import admit
from appliance.records import NodeID
from appliance.tailnet import nodes, policies, users
from appliance.tailnet.snapshot import Sequences
from appliance.wire import tailcfg
from tests.control.recorder import Recorder
from tests.control.tailnets import MemoryStore
from tests.support.builder import build, machine_key, sequences_after
from tests.support.clock import Clock
from tests.support.polling import until

CHECK = {"action": "check", "src": ["autogroup:member"], "dst": ["tag:web"], "users": ["root"]}
LAPTOP, PHONE, SRV = NodeID(1), NodeID(2), NodeID(3)


class Lab:
    """A tailnet with a policy, and its SSH servers' side of the door."""

    def __init__(self, *, hold_s: float = 30) -> None:
        snapshot = build("alice: laptop; bob: phone; tag:web: srv")
        ids: Sequences = sequences_after(snapshot)
        self.clock = Clock()
        self.live = LiveTailnet(snapshot, MemoryStore(), ids, clock=self.clock)
        self.checks = SSHChecks(Random(5).randbytes)
        self.actions = SSHActions(LiveTailnets([self.live]), self.checks, hold_s=hold_s)

    async def rule(self, *rules: dict[str, Any]) -> None:
        tags = {"tag:web": ["alice@"], "tag:other": ["alice@"]}
        text = json.dumps({"tagOwners": tags, "acls": [], "ssh": list(rules)})
        async with self.live.edit(by=SYSTEM, act="test.change") as edit:
            admitted = admit(text, edit.users, edit.nodes, policies.background(edit))
            policies.replace_policy(edit, admitted, self.clock(), source="database", by="test")

    def exchange(
        self, target: str, *, asker: str = "srv", method: str = "GET"
    ) -> tuple[Recorder, Exchange]:
        recorder = Recorder(machine_key(asker))
        return recorder, recorder.request(target, b"", method)

    async def raw(self, target: str, **options: str) -> Recorder:
        recorder, exchange = self.exchange(target, **options)
        await self.actions.answer(exchange)
        return recorder

    async def ask(
        self, source: int = LAPTOP, *, user: str = "root", rest: str = "", asker: str = "srv"
    ) -> tailcfg.SSHAction:
        """Ask as the destination does, about a login from ``source``."""
        target = f"/machine/ssh/action/{source}/to/{SRV}?local_user={user}{rest}"
        recorder = await self.raw(target, asker=asker)
        assert recorder.status == 200
        assert recorder.vouched
        action = tailcfg.decode_ssh_action(recorder.body)
        assert sum((action.accept, action.reject, bool(action.hold_and_delegate))) == 1
        return action

    async def follow(self, action: tailcfg.SSHAction, source: int = LAPTOP) -> tailcfg.SSHAction:
        """Go where a hold sends the node, as the client's own code does."""
        target = (
            action.hold_and_delegate.removeprefix("https://unused")
            .replace("$SRC_NODE_ID", str(source))
            .replace("$DST_NODE_ID", str(SRV))
            .replace("$LOCAL_USER", "root")
        )
        return tailcfg.decode_ssh_action((await self.raw(target)).body)

    def waiting(self) -> list[SSHCheck]:
        return self.checks.pending(self.live.id, self.clock())

    def decide(self, verdict: Verdict, check: SSHCheck | None = None) -> None:
        chosen = check or self.waiting()[0]
        self.checks.decide(self.live.id, chosen.id, verdict, self.clock())


def is_waited_for(check: SSHCheck) -> bool:
    return bool(check.decided._waiters)


@asynccontextmanager
async def lab(*rules: dict[str, Any], hold_s: float = 30) -> AsyncIterator[Lab]:
    made = Lab(hold_s=hold_s)
    running = asyncio.create_task(made.live.run())
    try:
        await made.rule(*(rules or (CHECK,)))
        yield made
    finally:
        running.cancel()
        await asyncio.gather(running, return_exceptions=True)


async def test_a_login_is_held_with_words_and_let_in_when_somebody_approves() -> None:
    async with lab() as house:
        held = await house.ask()
        [check] = house.waiting()
        assert f"headwater ssh approve {check.id}" in held.message
        following = asyncio.create_task(house.follow(held))
        await until(lambda: is_waited_for(check))
        assert not following.done()
        house.decide(Verdict.APPROVED)
        action = await following
        assert action.accept
        assert action.allow_agent_forwarding
        assert action.allow_local_port_forwarding
        assert action.allow_remote_port_forwarding
        # The recorders of the rule that made it ask are not overruled.
        assert not action.recorders
        assert action.on_recording_failure is None


async def test_a_verdict_that_came_before_the_node_asked_again_counts() -> None:
    async with lab() as house:
        held = await house.ask()
        house.decide(Verdict.APPROVED)
        assert (await house.follow(held)).accept


async def test_denied() -> None:
    async with lab() as house:
        held = await house.ask()
        house.decide(Verdict.DENIED)
        action = await house.follow(held)
        assert action.reject
        assert "denied" in action.message
        assert (await house.ask()).hold_and_delegate  # and nothing is remembered


async def test_nobody_approves_in_time() -> None:
    async with lab(hold_s=0) as house:
        held = await house.ask()
        again = await house.follow(held)
        assert again.hold_and_delegate == held.hold_and_delegate
        assert again.message == ""  # said once is enough
        check = house.waiting()[0]

        async def pass_time() -> None:
            house.clock.now += LIFETIME

        waiting = asyncio.create_task(house.follow(held))
        await asyncio.gather(waiting, pass_time())
        assert house.waiting() == []
        assert waiting.result().reject
        assert "in time" in waiting.result().message
        assert house.checks.get(check.id, house.clock()) is None


async def test_a_second_session_within_the_period_passes_silently_and_a_later_one_is_asked() -> (
    None
):
    async with lab({**CHECK, "checkPeriod": "1h"}) as house:
        await house.ask()
        house.decide(Verdict.APPROVED)
        house.clock.advance(minutes=59)
        assert (await house.ask()).accept
        house.clock.advance(minutes=1)
        assert (await house.ask()).hold_and_delegate


async def test_without_a_period_half_a_day_counts() -> None:
    async with lab() as house:
        await house.ask()
        house.decide(Verdict.APPROVED)
        house.clock.advance(hours=11.9)
        assert (await house.ask()).accept
        house.clock.advance(hours=0.1)
        assert (await house.ask()).hold_and_delegate


async def test_always_means_every_login() -> None:
    async with lab({**CHECK, "checkPeriod": "always"}) as house:
        first, second = await house.ask(), await house.ask()
        one, two = house.waiting()
        house.decide(Verdict.APPROVED, one)
        assert (await house.follow(first)).accept
        house.decide(Verdict.DENIED, two)
        assert (await house.follow(second)).reject
        assert (await house.ask()).hold_and_delegate


async def test_an_approval_is_for_one_source_owner_destination_and_user() -> None:
    async with lab({**CHECK, "users": ["root", "web"]}) as house:
        await house.ask()
        house.decide(Verdict.APPROVED)
        assert (await house.ask()).accept
        assert (await house.ask(user="web")).hold_and_delegate
        assert (await house.ask(PHONE)).hold_and_delegate
        async with house.live.edit(by=SYSTEM, act="test.change") as edit:
            nodes.move(edit, LAPTOP, users.find_one(edit, name="bob").id)
        assert (await house.ask()).hold_and_delegate


async def test_a_check_of_another_login_is_worth_nothing() -> None:
    async with lab() as house:
        await house.ask()
        [check] = house.waiting()
        house.decide(Verdict.APPROVED)
        action = await house.ask(PHONE, rest=f"&check={check.id}")
        assert action.hold_and_delegate
        assert check.id not in action.hold_and_delegate


async def test_after_a_restart_the_node_is_held_anew() -> None:
    async with lab() as house:
        action = await house.ask(rest="&check=23456789ab")
        assert action.hold_and_delegate
        assert house.waiting()[0].id in action.message


async def test_two_sessions_of_one_login_are_one_question() -> None:
    async with lab() as house:
        held = [await house.ask() for _ in range(3)]
        assert len(house.waiting()) == 1
        following = [asyncio.create_task(house.follow(each)) for each in held]
        house.decide(Verdict.APPROVED)
        assert all(action.accept for action in await asyncio.gather(*following))


async def test_the_policy_that_counts_is_the_one_after_the_wait() -> None:
    async with lab() as house:
        held = await house.ask()
        following = asyncio.create_task(house.follow(held))
        await until(lambda: is_waited_for(house.waiting()[0]))
        await house.rule({**CHECK, "users": ["web"]})
        house.decide(Verdict.APPROVED)
        action = await following
        assert action.reject
        assert "policy" in action.message
        assert (await house.ask()).reject


@pytest.mark.parametrize("what", ["gone", "expired"])
async def test_a_source_that_left_while_it_waited_is_turned_away(what: str) -> None:
    async with lab() as house:
        held = await house.ask()
        house.decide(Verdict.APPROVED)
        async with house.live.edit(by=SYSTEM, act="test.change") as edit:
            if what == "gone":
                nodes.delete(edit, LAPTOP)
            else:
                nodes.expire(edit, LAPTOP, house.clock())
        for action in (await house.follow(held), await house.ask()):
            assert action.reject
            assert "no longer in this tailnet" in action.message


async def test_logins_that_no_check_covers_are_turned_away() -> None:
    accept = {**CHECK, "action": "accept", "users": ["web"]}
    async with lab(CHECK, accept) as house:
        for action in (await house.ask(user="web"), await house.ask(user="daemon")):
            assert action.reject
    async with lab(accept) as house:
        assert (await house.ask()).reject


async def test_only_the_destination_itself_may_ask() -> None:
    async with lab() as house:
        target = f"/machine/ssh/action/{LAPTOP}/to/{SRV}?local_user=root"
        for asker in ("laptop", "phone", "stranger"):
            recorder = await house.raw(target, asker=asker)
            assert (recorder.status, recorder.vouched) == (404, False)
        unknown = await house.raw("/machine/ssh/action/1/to/99?local_user=root")
        assert (unknown.status, unknown.body) == (404, recorder.body)
        async with house.live.edit(by=SYSTEM, act="test.change") as edit:
            edit.put(replace(edit.nodes[SRV], expires_at=house.clock()))
        assert (await house.raw(target)).status == 404
        assert house.waiting() == []


@pytest.mark.parametrize(
    "target",
    [
        "1/to/3",
        "1/to/3?local_user=",
        "1/to/3?local_user=a%00b",
        "1/to/3?local_user=" + "x" * (MAX_LOCAL_USER_CHARS + 1),
        "1/to/3?" + "&".join(f"f{n}=1" for n in range(50)) + "&local_user=root",
        "1/to/x?local_user=root",
        "1/to/3/more?local_user=root",
        "\u0661/to/3?local_user=root",  # a digit, but not one of ours
        "99999999999999999999/to/3?local_user=root",
    ],
)
async def test_what_is_no_question_is_a_bad_request(target: str) -> None:
    async with lab() as house:
        assert (await house.raw(f"/machine/ssh/action/{target}")).status == 400
        assert house.waiting() == []


async def test_only_get() -> None:
    async with lab() as house:
        target = f"/machine/ssh/action/{LAPTOP}/to/{SRV}?local_user=root"
        assert (await house.raw(target, method="POST")).status == 405


async def test_no_node_fills_the_table() -> None:
    async with lab({**CHECK, "checkPeriod": "always"}) as house:
        for _ in range(MAX_CHECKS_PER_NODE):
            assert (await house.ask()).hold_and_delegate
        action = await house.ask()
        assert action.reject
        assert "too many" in action.message
        house.decide(Verdict.DENIED)
        assert (await house.ask()).hold_and_delegate


async def test_a_client_that_goes_away_frees_its_request() -> None:
    async with lab() as house:
        held = await house.ask()
        [check] = house.waiting()
        following = asyncio.create_task(house.follow(held))
        await until(lambda: is_waited_for(check))
        following.cancel()
        with pytest.raises(asyncio.CancelledError):
            await following
        assert not is_waited_for(check)


@given(
    st.lists(
        st.one_of(
            st.sampled_from(["/machine/ssh/action/", "1", "3", "/to/", "?", "&", "=", "%", "$"]),
            st.sampled_from(["local_user=root", "check=", "&check=23456789ab", "local_user=%ff"]),
            st.text(max_size=6),
        ),
        max_size=10,
    ).map("".join)
)
async def test_whatever_is_asked_is_answered(target: str) -> None:
    async with lab(hold_s=0) as house:
        for path in (
            target,
            f"/machine/ssh/action/{target}",
            f"/machine/ssh/action/1/to/3{target}",
        ):
            recorder, exchange = house.exchange(path)
            await house.actions.answer(exchange)
            assert recorder.status in (200, 400, 404)
            assert recorder.body
