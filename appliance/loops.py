"""Background loops, by name: what a part wants to have done again and again.

A part offers its loops; ``serve`` runs them under its supervisor, which retries, counts and reports
what fails. Not for what a loop does, nor for tasks that belong to one connection. Knows asyncio only.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from datetime import datetime
from typing import NamedTuple

MAX_BACKOFF_S = 60.0
"""Longest pause of a loop that keeps failing: what it waits for is noticed within a minute."""


class Loop(NamedTuple):
    """A step, and the pause between two of them. A step may also run until it is cancelled.

    ``name`` is the kind of the loop, one of a closed set (it labels a metric); ``about`` tells loops
    of one kind apart, such as the name of a tailnet. With ``repeats`` false, a step that returns has
    done its work. A step that fails is tried again, after pauses that grow up to ``max_backoff_s``.
    """

    name: str
    step: Callable[[], Awaitable[object] | None]
    pause_s: float = 0.0
    about: str = ""
    repeats: bool = True
    max_backoff_s: float = MAX_BACKOFF_S


class Failing(NamedTuple):
    """A loop that fails, for the health check."""

    name: str
    about: str
    since: datetime
    failures: int
    reason: str


async def take_step(loop: Loop) -> None:
    """Take one step, whether it waits or not."""
    waiting = loop.step()
    if waiting is not None:
        await waiting


async def run_all(loops: Iterable[Loop]) -> None:
    """Run loops until one fails or all are done: without a supervisor, as tests want it."""
    async with asyncio.TaskGroup() as tasks:
        for loop in loops:
            tasks.create_task(_repeat(loop), name=loop.name)


async def _repeat(loop: Loop) -> None:
    while True:
        await take_step(loop)
        if not loop.repeats:
            return
        await asyncio.sleep(loop.pause_s)
