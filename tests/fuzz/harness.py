"""Fuzzing without tools: a target is a module ``fuzz_*.py`` with one function ``case(rng)``.

``case`` makes hostile input from the given random source, feeds it to the code and lets every
exception out that the code may not raise. pytest runs a small budget of every target;
``python -m tests.fuzz derp --seconds 600`` runs one for long and names the seed that broke.
"""

from __future__ import annotations

import argparse
import itertools
import random
import sys
import time
from collections.abc import Callable

Case = Callable[[random.Random], None]

INTERESTING = (0, 1, 2, 4, 5, 0x7F, 0x80, 0xFF)


def mutate(rng: random.Random, data: bytes) -> bytes:
    """Damage bytes as networks and attackers do: flip, cut, repeat, insert, or replace all."""
    out = bytearray(data)
    for _ in range(rng.randint(1, 4)):
        at = rng.randrange(len(out) + 1)
        match rng.randrange(6):
            case 0 if at < len(out):
                out[at] ^= 1 << rng.randrange(8)
            case 1 if at < len(out):
                out[at] = rng.choice(INTERESTING)
            case 2:
                del out[at : at + rng.randint(1, 16)]
            case 3:
                out[at:at] = rng.randbytes(rng.randint(1, 16))
            case 4:
                out[at:at] = out[at : at + rng.randint(1, 64)]
            case _:
                del out[at:]
    return bytes(out)


def pieces(rng: random.Random, data: bytes) -> list[bytes]:
    """Cut data at random places, sometimes into single bytes."""
    if rng.random() < 0.1 and len(data) < 2000:
        return [data[i : i + 1] for i in range(len(data))]
    cuts = sorted(rng.randrange(len(data) + 1) for _ in range(rng.randint(0, 5)))
    bounds = [0, *cuts, len(data)]
    return [data[a:b] for a, b in itertools.pairwise(bounds)]


def main(case: Case) -> None:
    """Run one target from the command line."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, help="run this one seed")
    chosen = parser.parse_args()
    if chosen.seed is not None:
        case(random.Random(chosen.seed))
        return
    seed = start = random.SystemRandom().randrange(1 << 48)
    until = time.monotonic() + chosen.seconds
    while time.monotonic() < until:
        seed += 1
        try:
            case(random.Random(seed))
        except BaseException:
            print(f"broke with --seed {seed}", file=sys.stderr)
            raise
    print(f"{seed - start} cases, all well")
