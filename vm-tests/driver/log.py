"""What a story writes while it runs: steps with their times. Not for what machines write."""

from __future__ import annotations

import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager

# A step's words on one line.
WIDTH = 200


class Log:
    """One story's log, on standard output."""

    def __init__(self) -> None:
        self._began = time.monotonic()
        self._depth = 0

    def say(self, who: str, text: str) -> None:
        """Write one line, or a block."""
        stamp = f"[{time.monotonic() - self._began:7.2f}] {'  ' * self._depth}"
        print(f"{stamp}{who + ': ' if who else ''}{text}", flush=True, file=sys.stdout)

    @contextmanager
    def step(self, who: str, text: str) -> Iterator[None]:
        """Write what begins, and how long it took if it was long."""
        first = text.strip().splitlines()[0][:WIDTH]
        self.say(who, first)
        self._depth += 1
        began = time.monotonic()
        try:
            yield
        finally:
            self._depth -= 1
            took = time.monotonic() - began
            if took > 1:
                self.say(who, f"({took:.2f} s: {first[:60]})")
