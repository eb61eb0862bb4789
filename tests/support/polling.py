"""Waiting in tests: until something holds, with a deadline, never for a fixed time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

NEVER_S = 60.0
"""After so long something never happens: far more than a busy machine needs."""
TURNS = 500
"""Turns of the loop before others get the processor: most conditions hold after a few."""


async def until(condition: Callable[[], bool], timeout_s: float = NEVER_S) -> None:
    """Let the loop run until ``condition`` holds; TimeoutError when it never does."""
    async with asyncio.timeout(timeout_s):
        turns = 0
        while not condition():  # the condition is of other people's making
            turns += 1
            await asyncio.sleep(0 if turns < TURNS else 0.001)
