"""Waiting in tests: until something holds, with a deadline, never for a fixed time."""

from __future__ import annotations

import asyncio
from collections.abc import Callable


async def until(condition: Callable[[], bool], timeout_s: float = 10.0) -> None:
    """Let the loop run until ``condition`` holds; TimeoutError when it never does."""
    async with asyncio.timeout(timeout_s):
        while not condition():  # the condition is of other people's making
            await asyncio.sleep(0)
