"""How slow this machine is at this moment, so that no verdict depends on its speed.

A bound in seconds is meant for the quiet build machine. ``patience`` stretches it by what a fixed
piece of work takes here and now, so that a busy machine is waited for and a hang is still one.
"""

from __future__ import annotations

import hashlib
import time

WORK_S = 0.025
"""What ``_work`` takes on the quiet build machine."""
ROUNDS = 5


def _work() -> None:
    data = bytes(1024)
    for _ in range(8_000):
        data = hashlib.blake2s(data).digest() * 32


def patience(seconds: float) -> float:
    """Return the bound for this moment: never below ``seconds``."""
    taken = []
    for _ in range(ROUNDS):
        began = time.monotonic()
        _work()
        taken.append(time.monotonic() - began)
    # The slowest round: a scheduler on a full machine gives turns, and a short look may miss them.
    return seconds * max(1.0, max(taken) / WORK_S)
