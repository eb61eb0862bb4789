"""Cancel a piece of work at each of its awaits, one await a trial.

A client may go away while its request waits for anything at all, and the task that serves it is
cancelled there. What was counted before must be given back whatever the place. ``at_every_await``
repeats a trial with the cancellation at the first await, the second, and so on until the work ends
before its turn comes; the trial asserts what must hold afterwards.

Not for threads and not for time limits: it acts between two steps of one coroutine.
"""

from __future__ import annotations

import asyncio
import gc
import warnings
from collections.abc import Awaitable, Callable, Coroutine, Generator
from enum import StrEnum
from typing import Any, TypeVar

T = TypeVar("T")

MOST_AWAITS = 300
"""No request waits so often; a piece of work that does is not coming to its end."""


class Moment(StrEnum):
    """When the cancellation comes, seen from the await that it interrupts."""

    WAITING = "while it waits"
    WAKING = "after what it waits for has come, before it goes on"


class Interruption:
    """Calls ``act`` at one await of the work that is wrapped with it.

    Number 0 is before the first step. ``act`` is what ends the work in real life: the task's own
    ``cancel``, a reset stream, a closed connection.
    """

    def __init__(self, number: int, moment: Moment) -> None:
        self.number = number
        self.moment = moment
        self.act: Callable[[], object] = _nobody
        self.is_reached = False
        self._seen = 0

    def __call__(self, work: Coroutine[Any, Any, T]) -> Coroutine[Any, Any, T]:
        """Watch the awaits of ``work``; what is returned is a coroutine in its place."""
        if self.is_reached:
            return work
        if self.number == 0:
            # Not wrapped: whether the work itself is ever started is what this trial is about.
            self._fire()
            return work
        return self._watched(work)

    async def _watched(self, work: Coroutine[Any, Any, T]) -> T:
        return await _Steps(work, self._note)

    def _note(self, waited: object) -> None:
        self._seen += 1
        if self.is_reached or self._seen != self.number:
            return
        if self.moment is Moment.WAKING and isinstance(waited, asyncio.Future):
            self.is_reached = True
            # Added before the task's own callback, so it runs before the task wakes.
            waited.add_done_callback(lambda _future: self.act())
        else:
            self._fire()

    def _fire(self) -> None:
        self.is_reached = True
        asyncio.get_running_loop().call_soon(self._act)

    def _act(self) -> None:
        self.act()


class _Steps(Awaitable[T]):
    """Awaits something step by step, and shows what each step waits for."""

    def __init__(self, work: Awaitable[T], note: Callable[[object], None]) -> None:
        self._work = work
        self._note = note

    def __await__(self) -> Generator[Any, Any, T]:
        steps = self._work.__await__()
        error: BaseException | None = None
        while True:
            try:
                waited = next(steps) if error is None else _throw(steps, error)
            except StopIteration as end:
                return end.value  # type: ignore[no-any-return]  # an iterator says nothing of its value
            self._note(waited)
            try:
                yield waited
                error = None
            except BaseException as thrown:  # noqa: BLE001  # passed on into the work
                error = thrown


def _throw(steps: Generator[Any, Any, T], error: BaseException) -> object:
    return steps.throw(error)


Trial = Callable[[Interruption], Coroutine[Any, Any, None]]


async def at_every_await(trial: Trial, *, moments: tuple[Moment, ...] = tuple(Moment)) -> int:
    """Run ``trial`` once for each await of its work and each moment; return how often.

    After each trial no task of it may be left and no coroutine that was never awaited.
    """
    gc.collect()
    gc.freeze()  # each trial collects its garbage, and must not go through that of all others
    try:
        return sum([await _trials(trial, moment) for moment in moments])
    finally:
        gc.unfreeze()


async def _trials(trial: Trial, moment: Moment) -> int:
    for number in range(MOST_AWAITS):
        interruption = Interruption(number, moment)
        await _checked(trial, interruption)
        if not interruption.is_reached:
            return number + 1
    raise AssertionError(f"the work still waits after {MOST_AWAITS} awaits")


async def _checked(trial: Trial, interruption: Interruption) -> None:
    before = asyncio.all_tasks()
    where = f"interrupted at await {interruption.number}, {interruption.moment}"
    with warnings.catch_warnings(record=True) as said:
        warnings.simplefilter("always")
        try:
            await trial(interruption)
        except BaseException as error:
            error.add_note(where)
            raise
        interruption.act = _nobody  # it holds all that the trial made
        await asyncio.sleep(0)
        gc.collect()  # a coroutine that was never awaited says so when it is collected
    left = asyncio.all_tasks() - before
    assert not left, f"{where}: tasks are left: {sorted(task.get_name() for task in left)}"
    never = [str(one.message) for one in said if "never awaited" in str(one.message)]
    assert not never, f"{where}: {never}"


def _nobody() -> None:
    raise AssertionError("the trial did not say how its work is interrupted")
