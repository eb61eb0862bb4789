"""Every background loop of a process: one that fails is logged, counted, reported and tried again.

A bug in one loop ends neither the process nor any other loop. Only ``Fatal`` does: then going on
would be wrong. Not for what loops do, nor for tasks that belong to one connection.
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from types import TracebackType

from appliance.errors import Fatal
from appliance.loops import Failing, Loop, take_step
from appliance.repeats import Repeats

log = logging.getLogger(__name__)

FIRST_BACKOFF_S = 1.0
"""The pause after a first failure; each further one is twice as long."""
STEADY_S = 120.0
"""A step that has run this long without failing has recovered: twice the longest usual pause."""


class _Watched:
    """What is known of one running loop."""

    __slots__ = ("began_at", "failing_since", "failures", "is_waiting", "loop", "reason")

    def __init__(self, loop: Loop) -> None:
        self.loop = loop
        self.began_at = 0.0
        self.is_waiting = False
        self.failing_since: datetime | None = None
        self.failures = 0
        self.reason = ""


class Supervisor:
    """Runs loops for as long as its block lasts; leaving the block cancels them.

    Raises an exception group with the ``Fatal`` that a loop raised. ``expected`` are the failures
    that say in words what is wrong with the world: they are logged without a traceback.
    """

    def __init__(
        self,
        *,
        expected: tuple[type[Exception], ...] = (OSError,),
        sleep: Callable[[float], Awaitable[None]] = asyncio.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.failures: Counter[str] = Counter()
        """Failed steps since the start, by the name of the loop."""
        self._expected = expected
        self._sleep = sleep
        self._clock = clock
        self._group = asyncio.TaskGroup()
        self._watched: dict[asyncio.Task[None], _Watched] = {}
        self._repeats = Repeats()

    async def __aenter__(self) -> Supervisor:
        """Begin; ``start`` may be called from now on."""
        await self._group.__aenter__()
        return self

    async def __aexit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        """Cancel all loops and wait for them."""
        for task in tuple(self._watched):
            task.cancel()
        await self._group.__aexit__(kind, error, trace)

    def start(self, *loops: Loop) -> None:
        """Run these loops from now on."""
        for loop in loops:
            watched = _Watched(loop)
            task = self._group.create_task(self._run(watched), name=f"{loop.name} {loop.about}")
            self._watched[task] = watched
            task.add_done_callback(self._watched.pop)
            self.failures[loop.name] += 0

    @property
    def failing(self) -> tuple[Failing, ...]:
        """The loops that fail now, the one that has failed longest first."""
        found = [
            Failing(each.loop.name, each.loop.about, since, each.failures, each.reason)
            for each in self._watched.values()
            if (since := each.failing_since) is not None and not self._is_steady(each)
        ]
        return tuple(sorted(found, key=lambda failing: failing.since))

    async def _run(self, watched: _Watched) -> None:
        loop = watched.loop
        while True:
            watched.began_at = self._clock()
            try:
                await take_step(loop)
            except asyncio.CancelledError as error:
                task = asyncio.current_task()
                if task is not None and task.cancelling():
                    raise
                await self._back_off(watched, error)  # somebody else's cancellation leaked
            except Exception as error:  # noqa: BLE001  # logged once, and counted, in _back_off
                await self._back_off(watched, error)
            else:
                self._recover(watched)
                if not loop.repeats:
                    return
                await self._sleep(loop.pause_s)

    async def _back_off(self, watched: _Watched, error: BaseException) -> None:
        """Report a failure and wait; raises it again if it is fatal."""
        _raise_fatal(error)
        loop = watched.loop
        if watched.failing_since is None or self._is_steady(watched):
            watched.failing_since, watched.failures = datetime.now(UTC), 0
        watched.failures += 1
        watched.reason = str(error) or type(error).__name__
        self.failures[loop.name] += 1
        repeated = self._repeats.note((loop.name, loop.about, *_place(error)), self._clock())
        if repeated is not None:
            is_expected = isinstance(error, self._expected)
            log.log(
                logging.WARNING if is_expected else logging.ERROR,
                "background loop failed and is tried again",
                exc_info=None if is_expected else error,
                extra={
                    "loop": f"{loop.name} {loop.about}".strip(),
                    "reason": watched.reason,
                    "repeated": repeated,
                },
            )
        pause_s = min(FIRST_BACKOFF_S * 2 ** min(watched.failures - 1, 30), loop.max_backoff_s)
        watched.is_waiting = True
        try:
            await self._sleep(pause_s)
        finally:
            watched.is_waiting = False

    def _recover(self, watched: _Watched) -> None:
        if watched.failing_since is None:
            return
        loop = watched.loop
        log.info(
            "background loop works again",
            extra={"loop": f"{loop.name} {loop.about}".strip(), "repeated": watched.failures},
        )
        watched.failing_since, watched.failures = None, 0

    def _is_steady(self, watched: _Watched) -> bool:
        return not watched.is_waiting and self._clock() - watched.began_at >= STEADY_S


def _raise_fatal(error: BaseException) -> None:
    """Raise the ``Fatal`` that this failure is, or that its group contains."""
    if isinstance(error, Fatal):
        raise error
    if isinstance(error, BaseExceptionGroup):
        fatal = error.subgroup(Fatal)
        if fatal is not None:
            raise fatal


def _place(error: BaseException) -> tuple[object, ...]:
    """Return what two failures of the same cause share: the kind, and where in the code."""
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    if trace is None:
        return (type(error),)
    return type(error), trace.tb_frame.f_code.co_filename, trace.tb_lineno
