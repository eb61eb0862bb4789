"""Waiting until clients in other processes show what is expected of them."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable
from typing import Any

POLL_S = 0.05


async def until(ask: Callable[[], Awaitable[Any]], timeout_s: float = 10.0) -> float:
    """Ask until the answer is true; give how long it took."""
    began = time.monotonic()
    while not await ask():
        if time.monotonic() - began > timeout_s:
            raise TimeoutError(f"not true after {timeout_s} s")
        await asyncio.sleep(POLL_S)
    return time.monotonic() - began
