"""``python -m tests.bench.relay [--repeats N] [--json FILE]``: the relay's figures alone."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path

from tests.bench.relay import run
from tests.bench.table import show, write

if __name__ == "__main__":
    parser = argparse.ArgumentParser(prog="python -m tests.bench.relay")
    parser.add_argument("--repeats", type=int, default=5, help="measurements per figure")
    parser.add_argument("--json", type=Path, default=Path("build/bench.json"))
    options = parser.parse_args()
    figures = run(options.repeats)
    write(figures, options.json)
    print(show(figures))
    sys.exit(int(any(figure.is_met is False for figure in figures)))
