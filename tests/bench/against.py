"""``python -m tests.bench.against CHECKOUT [NAME …] [--rounds N]``: this program beside another state of it.

CHECKOUT is another working tree with a virtual environment of its own. Each round runs each bench once
there and once here, each by the code of its own tree, so that a machine that is busy now and idle then
disturbs both alike; what counts is the quotient of the medians. Quotients of CPU time hold to a few per
cent on a shared machine; those of wall clocks and tail latencies do not.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from tests.bench.__main__ import BENCHES
from tests.bench.table import Figure, number

HERE = Path(__file__).parents[2]
RENAMED = {", auto": ", h2"}
"""What a figure of ours is compared with where the other tree has none of its name."""

Rounds = dict[str, list[Figure]]


def measure(tree: Path, bench: str) -> list[Figure]:
    """Run one bench once by the code of a tree; nothing if it has no such bench, or it fails."""
    with tempfile.TemporaryDirectory() as directory:
        target = Path(directory) / "figures.json"
        python = os.environ.get("HEADWATER_BENCH_PYTHON", str(tree / ".venv/bin/python"))
        command = [python, "-m", "tests.bench", bench, "--repeats", "1", "--json", str(target)]
        path = os.pathsep.join((str(tree), *(e for e in sys.path if "site-packages" in e)))
        environment = {**os.environ, "PYTHONPATH": path}
        done = subprocess.run(  # noqa: PLW1510 its exit code tells of missed targets
            command, cwd=tree, env=environment, capture_output=True, text=True
        )
        if not target.exists():
            print(f"{bench} failed in {tree}: {done.stderr[-500:]}", file=sys.stderr)
            return []
        found = json.loads(target.read_text())["figures"]
    return [
        Figure(f["bench"], f["name"], f["unit"], tuple(f["values"]), f["target"], f["at_least"])
        for f in found
    ]


def collect(rounds: Rounds, figures: Sequence[Figure]) -> None:
    """Add the figures of a round."""
    for figure in figures:
        rounds.setdefault(figure.name, []).append(figure)


def table(there: Rounds, here: Rounds) -> str:
    """Give the rows as Markdown; a quotient above 1 is better than there."""
    lines = ["| figure | unit | there | here | better by |", "|---|---|---|---|---|"]
    for name, mine in here.items():
        others = there.get(name) or there.get(_older(name))
        now = _median(mine)
        if not others:
            lines.append(f"| {name} | {mine[0].unit} | | {number(now)} | |")
            continue
        was = _median(others)
        quotient = _quotient(was, now, at_least=mine[0].at_least or mine[0].unit in {"/s", "x"})
        lines.append(f"| {name} | {mine[0].unit} | {number(was)} | {number(now)} | {quotient} |")
    return "\n".join(lines)


def _older(name: str) -> str:
    for now, was in RENAMED.items():
        name = name.replace(now, was)
    return name


def _median(figures: Sequence[Figure]) -> float:
    return statistics.median(value for figure in figures for value in figure.values)


def _quotient(was: float, now: float, *, at_least: bool) -> str:
    if not was or not now:
        return ""
    return f"{now / was if at_least else was / now:.2f}"


def main() -> None:
    """Measure turn about, and print the table after each bench."""
    parser = argparse.ArgumentParser(prog="python -m tests.bench.against")
    parser.add_argument("checkout", type=Path, help="another working tree with its .venv")
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(BENCHES))
    parser.add_argument("--rounds", type=int, default=5, help="runs of each bench in each tree")
    options = parser.parse_args()
    for bench in options.names or BENCHES:
        there: Rounds = {}
        here: Rounds = {}
        for _ in range(options.rounds):
            collect(there, measure(options.checkout, bench))
            collect(here, measure(HERE, bench))
        print(table(there, here), flush=True)


if __name__ == "__main__":
    main()
