"""What the log says of registrations: one line of news each, and a refusal that repeats once."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from random import Random

import pytest

from appliance.control.register import Registrations
from appliance.identity.principals import SYSTEM
from appliance.live import LiveTailnet, LiveTailnets
from appliance.repeats import QUIET_S
from appliance.tailnet import keys, users
from appliance.wire import tailcfg
from appliance.wire.keys import NodeKey
from tests.control.recorder import Recorder
from tests.control.tailnets import machine_key, node_key
from tests.support.builder import build, sequences_after
from tests.support.clock import Clock
from tests.support.livehouse import FakeStore
from tests.support.waitinglogins import logins_of

LONG_AGO = datetime(1970, 1, 1, 0, 2, 3, tzinfo=UTC)
"""What clients send to log out."""


class Lab:
    def __init__(self) -> None:
        self.clock = Clock()
        self.now = 0.0
        snapshot = build("alice: laptop; tag:web: srv")
        self.live = LiveTailnet(snapshot, FakeStore(), sequences_after(snapshot), clock=self.clock)
        tailnets = LiveTailnets([self.live])
        self.logins = logins_of(tailnets)
        self.door = Registrations(tailnets, self.logins, Random(1), now=lambda: self.now)

    async def key(self, *tags: str, ephemeral: bool = False) -> str:
        async with self.live.edit(by=SYSTEM, act="test.change") as edit:
            (alice,) = users.find(edit, name="alice")
            _record, text = keys.create_auth_key(
                edit,
                user_id=alice.id,
                tags=tags,
                reusable=True,
                ephemeral=ephemeral,
                now=self.clock(),
                random_bytes=Random(edit.ids.auth_key).randbytes,
            )
        return text

    async def ask(
        self,
        key: int,
        auth_key: str = "",
        *,
        old: int | None = None,
        expiry: datetime | None = None,
        machine: int = 50,
    ) -> tailcfg.RegisterResponse:
        request = tailcfg.RegisterRequest(
            version=130,
            node_key=node_key(key),
            old_node_key=NodeKey.zero() if old is None else node_key(old),
            auth=tailcfg.RegisterResponseAuth(auth_key=auth_key) if auth_key else None,
            hostinfo=tailcfg.Hostinfo(hostname="Desk"),
            expiry=expiry,
        )
        recorder = Recorder(machine_key(machine))
        exchange = recorder.request("/machine/register", tailcfg.encode(request))
        await self.door.answer(exchange)
        return tailcfg.decode_register_response(recorder.body)


@asynccontextmanager
async def running() -> AsyncIterator[Lab]:
    lab = Lab()
    task = asyncio.create_task(lab.live.run())
    try:
        yield lab
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)


def news(caplog: pytest.LogCaptureFixture) -> list[tuple[object, ...]]:
    """Return message, node and user of the lines since the last call."""
    found = [
        (one.getMessage(), *(one.__dict__.get(name) for name in ("node", "user", "tailnet")))
        for one in caplog.records
    ]
    caplog.clear()
    return found


async def test_each_change_is_one_line_with_node_user_and_tailnet(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """B5 and real clients 4."""
    async with running() as lab:
        caplog.set_level(logging.INFO, "appliance.control")
        desk = ("desk", "alice", lab.live.snapshot.tailnet.name)
        key = await lab.key()
        await lab.ask(1, key)
        (line,) = caplog.records
        assert line.by == f"node:{machine_key(50).short}"  # type: ignore[attr-defined]  # by extra
        assert line.source == f"auth key {key.split('-')[2]}"  # type: ignore[attr-defined]  # by extra
        assert key.split("-")[3] not in str(line.__dict__), "only the public half"
        assert news(caplog) == [("node enrolled", *desk)]
        await lab.ask(1, key)
        assert news(caplog) == [], "a daemon that restarts is no news"
        await lab.ask(2, key, old=1)
        assert news(caplog) == [("node key rotated", *desk)]
        await lab.ask(2, expiry=LONG_AGO)
        assert news(caplog) == [("node logged out", *desk)]
        await lab.ask(2, expiry=LONG_AGO)
        await lab.ask(2, key)
        assert news(caplog) == []
        await lab.ask(3, key, old=2)
        assert news(caplog) == [("node re-enrolled", *desk)]
        await lab.ask(3, await lab.key("tag:web"))
        assert news(caplog) == [("node re-enrolled", "desk", "tag:web", desk[2])]


async def test_ephemeral_node_that_logs_out_is_news(caplog: pytest.LogCaptureFixture) -> None:
    async with running() as lab:
        caplog.set_level(logging.INFO)
        await lab.ask(1, await lab.key(ephemeral=True))
        caplog.clear()
        await lab.ask(1, expiry=LONG_AGO)
        await lab.ask(1, expiry=LONG_AGO)
        ((message, node, user, _),) = news(caplog)
        assert (message, node, user) == ("ephemeral node logged out", "desk", "alice")


async def test_refusal_that_repeats_is_written_once_for_each_reason(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """B5 and real clients 11: a client with a refused key asks every half minute, for days."""
    async with running() as lab:
        caplog.set_level(logging.INFO)
        for _ in range(40):
            assert (await lab.ask(1, "hskey-auth-abcdefghijkl-" + "x" * 64)).error
            lab.now += 30
        assert (await lab.ask(1, "tskey-auth-x")).error
        said = [(one.__dict__["reason"], one.__dict__["repeated"]) for one in caplog.records]
        assert said == [("auth-key-unknown", 0), ("auth-key-foreign", 0)]
        caplog.clear()
        lab.now += QUIET_S
        await lab.ask(1, "hskey-auth-abcdefghijkl-" + "x" * 64)
        (again,) = caplog.records
        assert again.repeated == 39  # type: ignore[attr-defined]  # by extra


async def test_client_that_is_too_old_is_refused_in_the_log_too(
    caplog: pytest.LogCaptureFixture,
) -> None:
    async with running() as lab:
        caplog.set_level(logging.INFO)
        request = tailcfg.RegisterRequest(version=40, node_key=node_key(1))
        recorder = Recorder(machine_key(50))
        await lab.door.answer(recorder.request("/machine/register", tailcfg.encode(request)))
        assert "too old" in tailcfg.decode_register_response(recorder.body).error
        assert [one.__dict__["reason"] for one in caplog.records] == ["client-too-old"]
