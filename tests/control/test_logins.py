"""Machines without a key: the link, the held follow-up, and who wakes it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from random import Random

import pytest

from appliance.control import register
from appliance.control.machine import MachineDoor
from appliance.control.mapsession import MapSessions
from appliance.errors import Conflict, NotFound
from appliance.identity.principals import LOCAL
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnet, LiveTailnets
from appliance.netmap.encoded import Encoder
from appliance.records import RegisterMethod
from appliance.tailnet import logins, nodes, users
from appliance.tailnet.enrolment import LoginGrant
from appliance.wire import tailcfg
from appliance.wire.keys import NodeKey
from tests.control.recorder import Recorder
from tests.control.tailnets import machine_key, node_key
from tests.support.builder import build, sequences_after
from tests.support.cancelling import Interruption, at_every_await
from tests.support.clock import Clock
from tests.support.livehouse import FakeStore
from tests.support.polling import until
from tests.support.waitinglogins import logins_of


class Lab:
    def __init__(self) -> None:
        self.clock = Clock()
        self.store = FakeStore()
        snapshot = build("alice: phone; bob: desk")
        self.live = LiveTailnet(snapshot, self.store, sequences_after(snapshot), clock=self.clock)
        tailnets = LiveTailnets([self.live])
        encoder = Encoder()
        sessions = MapSessions(self.live, encoder, clock=lambda: 0.0, jitter=lambda: 0.0)
        self.logins = logins_of(tailnets)
        self.door = MachineDoor(
            tailnets,
            {self.live.id: sessions},
            {self.live.id: encoder},
            SSHChecks(Random(2).randbytes),
            self.logins,
            rng=Random(1),
        )
        self.tasks: list[asyncio.Task[None]] = []

    def start(
        self,
        key: int,
        *,
        machine: int = 50,
        followup: str = "",
        old: int | None = None,
        version: int = 130,
        tags: tuple[str, ...] = (),
    ) -> tuple[Recorder, asyncio.Task[None]]:
        """Begin a request, and let it run until it waits or is answered."""
        request = tailcfg.RegisterRequest(
            version=version,
            node_key=node_key(key),
            old_node_key=NodeKey.zero() if old is None else node_key(old),
            followup=followup,
            hostinfo=tailcfg.Hostinfo(hostname="laptop", os="linux", request_tags=tags),
        )
        recorder = Recorder(machine_key(machine), version=version)
        exchange = recorder.request("/machine/register", tailcfg.encode(request))
        answering = self.door.handle(exchange)
        assert answering is not None
        task = asyncio.create_task(answering)
        self.tasks.append(task)
        return recorder, task

    async def ask(self, key: int, **fields: object) -> tailcfg.RegisterResponse:
        recorder, task = self.start(key, **fields)  # type: ignore[arg-type]  # passed on
        async with asyncio.timeout(10):
            await task
        assert recorder.status == 200
        return tailcfg.decode_register_response(recorder.body)

    async def held(
        self, key: int, url: str, **fields: object
    ) -> tuple[Recorder, asyncio.Task[None]]:
        """Follow up a link, and see that the request is held."""
        before = self.logins.waiting
        recorder, task = self.start(key, followup=url, **fields)  # type: ignore[arg-type]  # passed on
        await until(lambda: self.logins.waiting > before)
        assert not task.done()
        return recorder, task

    def grant(self, name: str) -> LoginGrant:
        return LoginGrant(users.find_one(self.live.snapshot, name=name).id, RegisterMethod.CLI)

    async def approve(self, url: str, name: str = "alice") -> None:
        await self.logins.approve(self.live, url, self.grant(name), by=LOCAL)


@asynccontextmanager
async def running() -> AsyncIterator[Lab]:
    lab = Lab()
    task = asyncio.create_task(lab.live.run())
    try:
        yield lab
    finally:
        for each in (*lab.tasks, task):
            each.cancel()
        await asyncio.gather(*lab.tasks, task, return_exceptions=True)


async def answered(recorder: Recorder, task: asyncio.Task[None]) -> tailcfg.RegisterResponse:
    async with asyncio.timeout(10):
        await task
    assert recorder.status == 200
    return tailcfg.decode_register_response(recorder.body)


async def test_approval_that_is_cancelled_leaves_nobody_waiting() -> None:
    """A browser that goes away while the disk is asked: the machine is in, and must learn it."""

    async def trial(interruption: Interruption) -> None:
        async with running() as lab:
            url = (await lab.ask(1)).auth_url
            recorder, task = await lab.held(1, url)
            approving = asyncio.create_task(interruption(lab.approve(url)))
            interruption.act = approving.cancel
            await asyncio.gather(approving, return_exceptions=True)
            async with lab.live.edit(by=LOCAL, act="test.change"):
                pass  # whatever was drafted before is decided now
            if lab.live.snapshot.by_node_key.get(node_key(1)) is None:
                await until(lambda: lab.logins.waiting == 1)
                assert [each.url for each in lab.logins.pending()] == [url]
                return
            assert (await answered(recorder, task)).machine_authorized
            assert not lab.logins.pending()

    assert await at_every_await(trial) > 4


async def test_approval_answers_the_held_request(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as lab:
        caplog.set_level("INFO")
        url = (await lab.ask(1)).auth_url
        assert url.startswith("https://control.example/register/hskey-authreq-")
        recorder, task = await lab.held(1, url)
        before = recorder.vouched
        await lab.approve(url)
        answer = await answered(recorder, task)
        assert (answer.machine_authorized, answer.auth_url, answer.error) == (True, "", "")
        assert answer.login.login_name == "alice"
        assert (before, recorder.vouched) == (False, True), "a link alone makes nobody known"
        assert lab.logins.waiting == 0
        (line,) = [each for each in caplog.records if each.getMessage() == "login approved"]
        assert line.__dict__["by"] == "local:socket"
        entries = [entry for _, entry in lab.store.audit if entry.act == "node.register"]
        rows = [entry for batch in lab.store.batches for rows in batch for entry in rows.audit]
        (entry,) = [each for each in (*entries, *rows) if each.act == "node.register"]
        assert (entry.door, entry.by) == ("local", "socket")
        assert "login of alice, by cli" in entry.reason


async def test_rejection_answers_it_too() -> None:
    async with running() as lab:
        url = (await lab.ask(1)).auth_url
        recorder, task = await lab.held(1, url)
        lab.logins.reject(url, by=LOCAL)
        assert "rejected" in (await answered(recorder, task)).error
        assert "rejected" in (await lab.ask(1, followup=url)).error, "however often it asks"
        with pytest.raises(NotFound):
            await lab.approve(url)
        assert lab.logins.rejected == 1


async def test_link_that_runs_out_while_it_is_followed_is_replaced() -> None:
    async with running() as lab:
        url = (await lab.ask(1)).auth_url
        lab.clock.advance(seconds=logins.LIFETIME.total_seconds() - 0.01)
        recorder, task = lab.start(1, followup=url)
        await asyncio.sleep(0)
        lab.clock.advance(seconds=1)
        answer = await answered(recorder, task)
        assert answer.auth_url not in ("", url)


async def test_unknown_link_is_replaced_at_once() -> None:
    """After a restart of the server, say: the client shows the new one."""
    async with running() as lab:
        first = (await lab.ask(1, followup="https://control.example/register/old")).auth_url
        assert first
        assert (await lab.ask(1)).auth_url == first, "asked for again, it is the same"


async def test_newer_request_of_a_machine_takes_the_place_of_the_older() -> None:
    """A connection that was lost unseen: the machine asks again, and only the newest is held."""
    async with running() as lab:
        url = (await lab.ask(1)).auth_url
        old, old_task = await lab.held(1, url)
        new, new_task = lab.start(1, followup=url)
        assert (await answered(old, old_task)).auth_url == url
        assert lab.logins.waiting == 1
        await lab.approve(url)
        assert (await answered(new, new_task)).machine_authorized


async def test_machine_that_goes_away_leaves_nothing_behind() -> None:
    async with running() as lab:
        url = (await lab.ask(1)).auth_url
        _, task = await lab.held(1, url)
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        assert lab.logins.waiting == 0
        await lab.approve(url)
        assert (await lab.ask(1, followup=url)).machine_authorized, "and may come back"


async def test_many_held_requests_are_none_under_way(monkeypatch: pytest.MonkeyPatch) -> None:
    """The valve against storms counts work, and nothing is done for who waits."""
    monkeypatch.setattr(register, "MAX_HELD", 3)
    async with running() as lab:
        urls = [(await lab.ask(n, machine=50 + n)).auth_url for n in range(4)]
        for n in range(3):
            await lab.held(n, urls[n], machine=50 + n)
        assert lab.door.registering.waiting == 0
        assert (await lab.ask(3, machine=53, followup=urls[3])).auth_url == urls[3]


async def test_expired_node_keeps_its_id_and_other_user_gets_another() -> None:
    async with running() as lab:
        url = (await lab.ask(1)).auth_url
        await lab.approve(url)
        (first,) = [n for n in lab.live.snapshot.nodes.values() if n.name == "laptop"]
        async with lab.live.edit(by=LOCAL, act="test.change") as edit:
            nodes.expire(edit, first.id, lab.clock())
        assert (await lab.ask(1)).node_key_expired
        url = (await lab.ask(2, old=1)).auth_url
        await lab.approve(url)
        again = lab.live.snapshot.nodes[first.id]
        assert (again.node_key, again.addresses) == (node_key(2), first.addresses)
        url = (await lab.ask(3, old=2)).auth_url
        await lab.approve(url, "bob")
        assert lab.live.snapshot.nodes[first.id].node_key == node_key(2)
        assert lab.live.snapshot.node_of(node_key(3)) is not None


async def test_tags_that_are_not_the_users_are_refused_and_the_login_waits_on() -> None:
    async with running() as lab:
        url = (await lab.ask(1, tags=("tag:web",))).auth_url
        recorder, task = await lab.held(1, url, tags=("tag:web",))
        with pytest.raises(Exception, match="not permitted"):
            await lab.approve(url)
        assert not task.done()
        del recorder


async def test_commit_that_fails_leaves_the_login_waiting() -> None:
    async with running() as lab:
        url = (await lab.ask(1)).auth_url
        _, task = await lab.held(1, url)
        lab.store.refuse = lambda _batch: True
        with pytest.raises(Exception, match="did not take"):
            await lab.approve(url)
        assert not task.done()
        lab.store.refuse = lambda _batch: False
        await lab.approve(url)
        async with asyncio.timeout(10):
            await task


async def test_two_approvals_at_once_make_one_node() -> None:
    async with running() as lab:
        url = (await lab.ask(1)).auth_url
        results = await asyncio.gather(
            lab.approve(url), lab.approve(url, "bob"), return_exceptions=True
        )
        assert sum(each is None for each in results) == 1
        assert any(isinstance(each, Conflict | NotFound) for each in results)
        assert sum(n.name == "laptop" for n in lab.live.snapshot.nodes.values()) == 1
