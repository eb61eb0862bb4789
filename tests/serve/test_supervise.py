"""The supervisor: what fails is logged, counted, reported and tried again; only Fatal ends all."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable

import pytest

from appliance.errors import Fatal
from appliance.loops import Loop
from appliance.serve.supervise import STEADY_S, Supervisor
from tests.support.polling import until


class Time:
    """A clock that sleeps move, and a list of the pauses that were asked for."""

    def __init__(self) -> None:
        self.now = 0.0
        self.pauses: list[float] = []

    def __call__(self) -> float:
        return self.now

    async def sleep(self, seconds: float) -> None:
        self.pauses.append(seconds)
        self.now += seconds
        await asyncio.sleep(0)


@pytest.fixture
def time() -> Time:
    return Time()


@pytest.fixture
def supervisor(time: Time) -> Supervisor:
    return Supervisor(sleep=time.sleep, clock=time)


def failing(times: int, error: Callable[[], BaseException]) -> tuple[Loop, list[int]]:
    """Give a loop whose first steps fail, and the count of its steps."""
    steps = [0]

    async def step() -> None:
        steps[0] += 1
        if steps[0] <= times:
            raise error()

    return Loop("test", step, 0.5, about="default"), steps


async def test_a_failing_loop_is_retried_ever_more_slowly_and_harms_no_other(
    supervisor: Supervisor, time: Time, caplog: pytest.LogCaptureFixture
) -> None:
    """D2: one exception ended control, relay, API and all tailnets."""
    caplog.set_level(logging.INFO, "appliance")
    loop, steps = failing(9, lambda: KeyError("no such viewer"))
    other = [0]

    def count() -> None:
        other[0] += 1

    async with supervisor:
        supervisor.start(loop, Loop("other", count))
        await until(lambda: steps[0] == 2)
        (now,) = supervisor.failing
        assert (now.name, now.about) == ("test", "default")
        assert now.failures >= 1
        assert now.reason == "'no such viewer'"
        before = other[0]
        await until(lambda: steps[0] > 9)
        assert other[0] > before
        assert supervisor.failing == ()
    assert [each for each in time.pauses if each][:9] == [1, 2, 4, 8, 16, 32, 60, 60, 60]
    assert supervisor.failures == {"test": 9, "other": 0}
    failed = [r for r in caplog.records if r.message.startswith("background loop failed")]
    assert len(failed) == 1, "once, with its traceback; the repeats are counted"
    assert failed[0].exc_info is not None
    assert "background loop works again" in caplog.text


async def test_what_is_wrong_with_the_world_is_said_without_a_traceback(
    supervisor: Supervisor, caplog: pytest.LogCaptureFixture
) -> None:
    loop, steps = failing(1, lambda: OSError(28, "No space left on device"))
    async with supervisor:
        supervisor.start(loop)
        await until(lambda: steps[0] > 1)
    (record,) = (r for r in caplog.records if r.message.startswith("background loop failed"))
    assert record.levelno == logging.WARNING
    assert record.exc_info is None
    assert "No space left on device" in str(vars(record)["reason"])


@pytest.mark.parametrize(
    "error",
    [
        lambda: Fatal("the database belongs to somebody else"),
        lambda: ExceptionGroup("inside", [Fatal("the database belongs to somebody else")]),
    ],
)
async def test_fatal_ends_everything(
    supervisor: Supervisor, error: Callable[[], BaseException]
) -> None:
    loop, _ = failing(1, error)
    other = Loop("other", asyncio.Event().wait)

    async def serve() -> None:
        async with asyncio.timeout(10), supervisor:
            supervisor.start(other, loop)
            await asyncio.Event().wait()

    with pytest.raises(BaseExceptionGroup) as failure:
        await serve()
    assert failure.value.subgroup(Fatal) is not None


async def test_a_cancellation_that_leaks_into_a_loop_is_a_failure_and_no_end(
    supervisor: Supervisor,
) -> None:
    loop, steps = failing(2, asyncio.CancelledError)
    async with supervisor:
        supervisor.start(loop)
        await until(lambda: steps[0] > 2)
    assert supervisor.failures["test"] == 2


async def test_a_loop_that_runs_on_has_recovered_after_a_while(
    supervisor: Supervisor, time: Time
) -> None:
    """Most loops never return, so nothing tells that they work but time."""
    begun = [0]

    async def run() -> None:
        begun[0] += 1
        if begun[0] == 1:
            raise KeyError
        await asyncio.Event().wait()

    async with supervisor:
        supervisor.start(Loop("test", run))
        await until(lambda: begun[0] == 2)
        assert [each.reason for each in supervisor.failing] == ["KeyError"]
        time.now += STEADY_S
        assert supervisor.failing == ()


async def test_a_loop_that_does_not_repeat_ends_when_it_is_done(supervisor: Supervisor) -> None:
    loop, steps = failing(2, KeyError)
    async with supervisor:
        supervisor.start(loop._replace(repeats=False))
        await until(lambda: steps[0] == 3)
        for _ in range(5):
            await asyncio.sleep(0)
        assert steps[0] == 3


async def test_leaving_the_block_cancels_the_loops(supervisor: Supervisor) -> None:
    is_ended = False

    async def run() -> None:
        nonlocal is_ended
        try:
            await asyncio.Event().wait()
        finally:
            is_ended = True

    async with supervisor:
        supervisor.start(Loop("test", run))
        await asyncio.sleep(0)
    assert is_ended
