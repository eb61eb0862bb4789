"""Nodes that are no longer there: their last map, and what a later poll is answered."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest

from appliance.control.gone import COME_AGAIN_S, HOLD_S, GonePolls
from appliance.identity.principals import SYSTEM
from appliance.netmap import gone
from appliance.records import NodeID
from appliance.repeats import QUIET_S
from appliance.wire import tailcfg
from tests.control.recorder import Recorder
from tests.control.tailnets import machine_key, make_node, node_key
from tests.control.test_mapsession import running as running_sessions
from tests.support.complaints import complaints
from tests.support.memorystream import Alarms
from tests.support.polling import until

REQUEST = tailcfg.MapRequest(version=130, stream=True, node_key=node_key(9))


class Lab:
    def __init__(self, max_held: int = 3) -> None:
        self.alarms = Alarms()
        self.now = 0.0
        self.polls = GonePolls(
            call_later=self.alarms.call_later, now=lambda: self.now, max_held=max_held
        )

    def ask(self, machine: int = 9, *, has_node: bool = False, **fields: object) -> Recorder:
        recorder = Recorder(machine_key(machine))
        request = tailcfg.MapRequest(
            **{"version": 130, "stream": True, "node_key": node_key(9), **fields}  # type: ignore[arg-type]  # field names
        )
        self.polls.answer(recorder.request("/machine/map"), request, has_node=has_node)
        return recorder


def has_ended(recorder: Recorder) -> bool:
    return recorder.out is not None and (recorder.out.ending or recorder.out.closed)


def told_expired(message: tailcfg.MapResponse, number: int) -> None:
    """Assert what makes a stock client say that it is logged out."""
    assert message.node is not None
    assert message.node.key == node_key(number)
    assert message.node.expired
    assert message.node.key_expiry == gone.ENDED_AT
    assert message.node.machine_authorized, "else it would wait for an approval"
    assert not message.peers


async def test_deleted_node_is_told_so_by_its_last_map() -> None:
    """B9: the session ends with the node's own key expired."""
    async with running_sessions(2) as lab:
        recorder = await lab.poll(1)
        await lab.until(lambda: lab.sessions.counters.rounds)
        recorder.messages()
        async with lab.live.edit(by=SYSTEM, act="test.change") as edit:
            edit.drop(make_node(1))
        await until(lambda: has_ended(recorder))
        (last,) = recorder.messages()
        told_expired(last, 1)
        assert last.node is not None
        assert (last.node.id, last.node.stable_id) == (1, "n1"), "the same node as before"
        assert not complaints(last)


async def test_deleted_node_that_reads_slowly_is_told_when_it_reads() -> None:
    async with running_sessions(2) as lab:
        recorder = await lab.poll(1)
        await lab.until(lambda: lab.sessions.counters.rounds)
        recorder.messages()
        recorder.window = 0
        await lab.change(2, home_derp=3)
        assert recorder.out is not None
        await until(lambda: recorder.out is not None and recorder.out.backlog > 0)
        async with lab.live.edit(by=SYSTEM, act="test.change") as edit:
            edit.drop(make_node(1))
        rounds = lab.sessions.counters.rounds
        await until(lambda: lab.sessions.counters.rounds > rounds)
        assert not has_ended(recorder)
        recorder.take(recorder.out, 1 << 20)
        assert has_ended(recorder)
        told_expired(recorder.messages()[-1], 1)


@pytest.mark.parametrize("compress", ["zstd", ""])
def test_later_poll_is_told_the_same_and_kept_waiting(compress: str) -> None:
    """B9: an answer of 404 is repeated for ever; a stream that ends is opened again at once."""
    lab = Lab()
    recorder = lab.ask(compress=compress)
    (told,) = recorder.messages()
    told_expired(told, 9)
    lab.alarms.advance(HOLD_S - 1)
    assert not has_ended(recorder)
    lab.alarms.advance(1)
    assert has_ended(recorder)
    assert len(lab.polls) == 0
    assert not recorder.vouched, "the link stays a stranger's"


def test_answer_says_nothing_that_the_asker_did_not_say() -> None:
    """Keys cannot be probed: a foreign key and an unknown one are told the same."""
    told = tailcfg.encode(gone.unknown(machine_key(9), node_key(1)))
    decoded = tailcfg.decode_map_response(told)
    assert decoded.node is not None
    assert not decoded.node.addresses
    assert not decoded.domain
    assert decoded.node.machine == machine_key(9)


def test_stable_ids_of_two_keys_differ() -> None:
    """Clients take two profiles with one stable id for the same, and forget one of them."""
    ids = {gone.unknown(machine_key(9), node_key(n)).node.stable_id for n in range(50)}  # type: ignore[union-attr]  # always a node
    assert len(ids) == 50


@pytest.mark.parametrize(("has_node", "status"), [(False, 200), (True, 404)])
def test_report_of_a_gone_node_is_taken_once_and_one_with_an_old_key_is_sent_again(
    *, has_node: bool, status: int
) -> None:
    lab = Lab()
    recorder = lab.ask(has_node=has_node, stream=False, omit_peers=True)
    assert recorder.status == status
    assert len(lab.polls) == 0
    assert recorder.out is None or has_ended(recorder)


def _lose(recorder: Recorder) -> None:
    assert recorder.out is not None
    recorder.out.lose()


def _replace(recorder: Recorder) -> None:
    del recorder


@pytest.mark.parametrize("end", [_lose, _replace])
def test_held_polls_are_bounded_and_one_for_each_machine(end: Callable[[Recorder], None]) -> None:
    lab = Lab(max_held=3)
    held = [lab.ask(machine) for machine in (1, 2, 3)]
    late = lab.ask(4)
    assert late.status == 429
    assert late.headers[b"retry-after"] == b"%d" % COME_AGAIN_S
    end(held[0])
    again = lab.ask(1)
    assert again.status == 200
    assert len(lab.polls) == 3
    assert has_ended(held[0])
    for recorder in (again, *held[1:]):
        _lose(recorder)
    assert len(lab.polls) == 0
    assert all(alarm.cancelled for alarm in lab.alarms._set)


def test_refusals_of_one_key_are_written_once_and_counted(
    caplog: pytest.LogCaptureFixture,
) -> None:
    """B5: a deleted node asks for as long as it runs."""
    lab = Lab()
    with caplog.at_level(logging.INFO):
        for _ in range(50):
            lab.ask()
            lab.now += 30
        lab.ask(5)
        assert [one.repeated for one in caplog.records] == [0, 0]  # type: ignore[attr-defined]  # by extra
        lab.now += QUIET_S
        lab.ask()
    assert [one.repeated for one in caplog.records] == [0, 0, 49]  # type: ignore[attr-defined]  # by extra
    assert {one.getMessage() for one in caplog.records} == {"map refused"}


async def test_door_answers_a_deleted_node(caplog: pytest.LogCaptureFixture) -> None:
    from tests.control.test_machine import map_request, running

    async with running() as lab:
        async with lab.live.edit(by=SYSTEM, act="test.change") as edit:
            edit.drop(edit.nodes[NodeID(1)])
        for _ in range(3):
            recorder = await lab.ask(1, "/machine/map", map_request(1, stream=True))
            assert recorder.status == 200
            told_expired(recorder.messages()[0], 1)
            recorder = await lab.ask(2, "/machine/map", map_request(1, stream=True))
            told_expired(recorder.messages()[0], 1)
        assert [one.levelno for one in caplog.records if one.levelno > logging.INFO] == []
