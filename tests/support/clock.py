"""A clock that stands still until it is told otherwise, and a random source that repeats itself."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from random import Random

NOON = datetime(2030, 1, 1, 12, tzinfo=UTC)
"""When tests begin: a round time in a year that nobody confuses with today."""


class Clock:
    """Callable like the real one; ``advance`` lets time pass."""

    def __init__(self, now: datetime = NOON) -> None:
        self.now = now

    def __call__(self) -> datetime:
        return self.now

    def advance(
        self, seconds: float = 0, *, minutes: float = 0, hours: float = 0, days: float = 0
    ) -> datetime:
        """Let time pass; give the new time."""
        self.now += timedelta(days=days, hours=hours, minutes=minutes, seconds=seconds)
        return self.now


def fixed_rng(seed: int = 1) -> Random:
    """Give a random source that says the same in every run."""
    return Random(seed)
