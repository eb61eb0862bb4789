"""The list of attacks, and the process that carries one out.

``python -m tests.hostile.attacks NAME TARGET --seconds N`` attacks a server on this machine and
prints what it saw as one JSON line. Each attack is a coroutine in one of the ``attacks_*`` modules,
named by ``@attack``. Not for judging the outcome: the tests do that, from the server's side.
"""

from __future__ import annotations

import argparse
import asyncio
import importlib
import json
import os
import random
import ssl
import sys
import time
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

from tests.hostile.victim import Target, allow_open_files

MODULES = ("wire", "http", "noise", "http2", "members", "websocket", "derp", "local")
LEAST_LOOKS = 40
"""So that each of the twenty or thirty that attack at once does something."""
NICENESS = 10
"""Attackers elsewhere would not take the processor from the server; here they come last."""


@dataclass
class Battle:
    """What an attack gets, and where it notes what it saw."""

    target: Target
    rng: random.Random
    seconds: float
    seen: Counter[str] = field(default_factory=Counter)
    began: float = field(default_factory=time.monotonic)
    looks: int = 0

    @property
    def is_on(self) -> bool:
        """Tell whether there is time left; there is for the first LEAST_LOOKS questions.

        On a busy machine the time can be over before the first connection stands.
        """
        self.looks += 1
        return self.looks <= LEAST_LOOKS or time.monotonic() - self.began < self.seconds

    async def many(self, count: int, one: Callable[[int], Awaitable[None]]) -> None:
        """Run this many at once; count what the server makes of them."""

        async def guarded(number: int) -> None:
            try:
                await one(number)
            except (OSError, EOFError, ssl.SSLError) as error:
                self.seen[f"cut: {type(error).__name__}"] += 1

        await asyncio.gather(*(guarded(number) for number in range(count)))

    async def again(self, count: int, one: Callable[[], Awaitable[None]]) -> None:
        """Run this many at once, each again and again until time is over."""

        async def repeat(_number: int) -> None:
            while self.is_on:
                self.seen["tries"] += 1
                try:
                    await one()
                except (OSError, EOFError, ssl.SSLError) as error:
                    self.seen[f"cut: {type(error).__name__}"] += 1
                    await asyncio.sleep(0)

        await self.many(count, repeat)


Run = Callable[[Battle], Awaitable[None]]


@dataclass(frozen=True)
class Attack:
    """One attack: what to run, for how long, and which of the server's counters must grow."""

    name: str
    run: Run
    seconds: float
    counted: tuple[str, ...]
    """At least one of these, ``name:label`` or a prefix of it, must have grown."""


ATTACKS: dict[str, Attack] = {}


def attack(*counted: str, seconds: float = 2.0) -> Callable[[Run], Run]:
    """Put a coroutine on the list, under its own name."""

    def enter(run: Run) -> Run:
        name = run.__name__
        ATTACKS[name] = Attack(name, run, seconds, counted)
        return run

    return enter


def load() -> dict[str, Attack]:
    """Give all attacks by name."""
    for name in MODULES:
        importlib.import_module(f"tests.hostile.attacks_{name}")
    return ATTACKS


def main() -> None:
    """Carry out one attack."""
    # Run as a program this module is called __main__; the list is in the one that others import.
    attacks = importlib.import_module("tests.hostile.attacks").load()
    parser = argparse.ArgumentParser()
    parser.add_argument("name", choices=sorted(attacks))
    parser.add_argument("target", type=json.loads)
    parser.add_argument("--seconds", type=float)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    os.nice(NICENESS)
    allow_open_files()
    chosen = attacks[options.name]
    seconds = chosen.seconds if options.seconds is None else options.seconds
    battle = Battle(Target(**options.target), random.Random(options.seed), seconds)

    async def run() -> None:
        asyncio.get_running_loop().set_exception_handler(lambda _loop, _context: None)
        await chosen.run(battle)

    asyncio.run(run())
    print(json.dumps(battle.seen))
    sys.stdout.flush()
    os._exit(0)  # connections in all states: leave them to the kernel, as a crash would


if __name__ == "__main__":
    main()
