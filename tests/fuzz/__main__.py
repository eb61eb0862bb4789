"""``python -m tests.fuzz NAME --seconds N``: one target, for as long as one likes.

NAME is the target's without ``fuzz_``; without a name all targets run in turn.
"""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

from tests.fuzz.harness import main

TARGETS = sorted(
    path.stem.removeprefix("fuzz_") for path in Path(__file__).parent.glob("fuzz_*.py")
)


def run() -> None:
    """Run the target that the command line names."""
    if len(sys.argv) > 1 and not sys.argv[1].startswith("-"):
        name = sys.argv.pop(1)
        if name not in TARGETS:
            raise SystemExit(f"there is no target {name!r}; there are: {' '.join(TARGETS)}")
        main(importlib.import_module(f"tests.fuzz.fuzz_{name}").case)
        return
    for name in TARGETS:
        print(name, end=": ", flush=True)
        main(importlib.import_module(f"tests.fuzz.fuzz_{name}").case)


if __name__ == "__main__":
    run()
