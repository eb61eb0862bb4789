"""Whom a relay that runs alone lets in, with a control server that answers and without one."""

from __future__ import annotations

from pathlib import Path

import pytest
from aiohttp import web

from appliance.relay.admission import ALLOWED_FOR_S, KNOWN_FOR_S, REFUSED_FOR_S, Verifier
from appliance.relay.counters import Refusal
from appliance.relay.door import RelayDoor
from appliance.wire.keys import NodeKey
from tests.relay.controls import allow, control
from tests.relay.test_alone import relay, settings
from tests.relay.wireclient import SocketClient, login_frame
from tests.support.polling import until

NODE, OTHER = NodeKey(b"k" * 32), NodeKey(b"o" * 32)
NOWHERE = "http://127.0.0.1:1/verify"


class Clock:
    """Seconds that pass when a test says so."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


async def test_verifier_asks_once_and_remembers(tmp_path: Path) -> None:
    async with control([allow(True), allow(False)], tmp_path / "s") as url:
        verifier = Verifier(url, socket_path=str(tmp_path / "s"))
        assert await verifier.admit(NODE, "192.0.2.1")
        assert await verifier.admit(NODE, "192.0.2.1")
        assert await verifier.admit(OTHER, "") is False
        assert await verifier.admit(OTHER, "") is False
        await verifier.close()


async def test_strangers_do_not_push_out_what_is_known_of_nodes() -> None:
    async with control([allow(True), *(allow(False) for _ in range(10))]) as url:
        verifier = Verifier(url, max_remembered=3)
        assert await verifier.admit(NODE, "")
        for number in range(10):
            assert await verifier.admit(NodeKey(bytes([number]) * 32), "") is False
        assert await verifier.admit(NODE, "")
        assert verifier.counters.allowed == 1
        await verifier.close()


@pytest.mark.parametrize(
    "answer",
    [
        web.Response(status=500),
        web.Response(status=502, text="<html>"),
        web.Response(status=302, headers={"Location": "/elsewhere"}),
        web.Response(status=404),
        web.Response(text="{"),
        web.Response(text="[" * 4000),
        web.Response(text="[]"),
        web.Response(text="{}"),
        allow("yes"),
        allow(None),
    ],
    ids=lambda each: f"{each.status}-{each.text[:5] if each.text else None}",
)
async def test_strange_answer_is_neither_yes_nor_no(answer: web.Response) -> None:
    """S5: a proxy before a control server that is away answers in its place."""
    clock = Clock()
    async with control([allow(True), allow(False)]) as url:
        verifier = Verifier(url, clock=clock)
        assert await verifier.admit(NODE, "")
        assert await verifier.admit(OTHER, "") is False
        clock.now += max(ALLOWED_FOR_S, REFUSED_FOR_S)
        assert await verifier.admit(NODE, "") is True
        assert await verifier.admit(OTHER, "") is None
        assert verifier.counters.unanswered == 2
        await verifier.close()
    async with control([answer]) as url:
        verifier = Verifier(url)
        assert await verifier.admit(NODE, "") is None
        await verifier.close()


@pytest.mark.parametrize("fail_open", [True, False])
async def test_node_comes_back_on_an_older_yes_for_a_day(fail_open: bool) -> None:
    """S5: the control server is away; members come back, by setting; strangers never do."""
    clock = Clock()
    async with control([allow(True)]) as url:
        verifier = Verifier(url, fail_open=fail_open, clock=clock)
        assert await verifier.admit(NODE, "")
    clock.now += KNOWN_FOR_S - 1
    assert await verifier.admit(NODE, "") is (True if fail_open else None)
    assert await verifier.admit(OTHER, "") is None
    assert verifier.silent_for_s == 0
    clock.now += 1
    assert await verifier.admit(NODE, "") is None
    assert verifier.silent_for_s == 1
    await verifier.close()


async def test_outage_is_one_line_and_so_is_its_end(caplog: pytest.LogCaptureFixture) -> None:
    clock = Clock()
    async with control([allow(True)]) as url:
        good, verifier = url, Verifier(NOWHERE, clock=clock)
        for number in range(20):
            assert await verifier.admit(NodeKey(bytes([number]) * 32), "") is None
        verifier._url = good
        clock.now += 90
        with caplog.at_level("INFO"):
            assert await verifier.admit(NODE, "")
        await verifier.close()
    lines = [record for record in caplog.records if record.name == "appliance.relay.admission"]
    assert [line.getMessage() for line in lines] == [
        "admission cannot be asked",
        "admission answers again",
    ]
    assert vars(lines[1])["duration_ms"] == 90_000


async def test_no_after_a_yes_is_a_no_also_in_an_outage() -> None:
    clock = Clock()
    async with control([allow(True), allow(False)]) as url:
        verifier = Verifier(url, clock=clock)
        assert await verifier.admit(NODE, "")
        clock.now += ALLOWED_FOR_S
        assert await verifier.admit(NODE, "") is False
    clock.now += REFUSED_FOR_S
    assert await verifier.admit(NODE, "") is None
    await verifier.close()


async def test_connected_client_stays_while_nobody_can_be_asked() -> None:
    """S5: the look at every client some minutes later finds no control server, then a no."""
    answers: list[bool | None] = [True, None, False]

    def admit(_key: NodeKey, _source: str) -> bool | None:
        return answers.pop(0)

    async with relay(settings(), admit=admit) as running:
        client = await SocketClient().connect(running.listeners[0].port)
        await until(lambda: running.door.counters.clients == 1)
        recheck(running.door)
        assert running.door.counters.clients == 1
        recheck(running.door)
        await client.gone()
        assert running.door.counters.refused[Refusal.REVOKED] == 1
        assert not answers


def recheck(door: RelayDoor) -> None:
    """Do what the wheel does once in some minutes."""
    for link in list(door.server.links()):
        door.check_again(link)


async def test_stranger_is_refused_while_nobody_can_be_asked() -> None:
    async with relay(settings(verify_url=NOWHERE)) as running:
        stranger = await SocketClient().connect(running.listeners[0].port, login=False)
        stranger.stream.write(login_frame(stranger.own, stranger.server_raw))
        await stranger.gone()
        assert running.door.counters.refused[Refusal.UNVERIFIED] == 1
