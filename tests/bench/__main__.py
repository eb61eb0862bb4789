"""``python -m tests.bench [NAME …] [--repeats N] [--json FILE]``: measure, print, write.

Without names everything is measured, which takes some minutes.
"""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Callable
from importlib import import_module
from importlib.util import find_spec
from pathlib import Path
from typing import cast

from tests.bench.table import Figure, show, write

BENCHES = (
    "policy",
    "startup",
    "handshake",
    "hellos",
    "registrations",
    "api",
    "memory",
    "fanout",
    "storm",
    "relay",
    "converge",
)
TARGET = Path("build/bench.json")


def main() -> int:
    """Run the named benches; exit with 1 if a target was missed."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--repeats", type=int, default=5, help="measurements per figure")
    parser.add_argument("--json", type=Path, default=TARGET, help="where to write the figures")
    options = parser.parse_args()
    unknown = set(options.names) - set(BENCHES)
    if unknown:
        parser.error(f"no such bench: {', '.join(sorted(unknown))}; there are {', '.join(BENCHES)}")
    figures: list[Figure] = []
    for name in options.names or BENCHES:
        print(f"{name} …", file=sys.stderr, flush=True)
        began = time.monotonic()
        if find_spec(f"tests.bench.{name}") is None:
            print(f"SKIPPED: there is no tests/bench/{name} here", file=sys.stderr, flush=True)
            continue
        run = cast(Callable[[int], list[Figure]], import_module(f"tests.bench.{name}").run)
        figures += run(options.repeats)
        print(f"{name}: {time.monotonic() - began:.0f} s", file=sys.stderr, flush=True)
        write(figures, options.json)
    print(show(figures))
    return int(any(figure.is_met is False for figure in figures))


if __name__ == "__main__":
    sys.exit(main())
