"""Registrations with an auth key, each over a connection of its own, each on disk when answered."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench.serving import fill, serve
from tests.bench.simulators import simulate
from tests.bench.table import Figure

COUNT = 1_500
PARALLEL = 64


def rate(repeats: int, *, tls: bool, target: float | None, http2: str = "auto") -> list[Figure]:
    """Measure how many a CPU second of the server, and how many a second with all that takes part.

    The second depends on the clients, which need as much of the machine as the server does.
    """
    rates, costs = [], []
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as directory:
        filled = fill(Path(directory), 0)
        with (
            serve(filled, tls=tls, http2=http2) as serving,
            simulate(serving, tls=tls) as simulators,
        ):
            for number in range(repeats):
                nodes, key = (number * COUNT, (number + 1) * COUNT), filled.auth_key
                simulators.parts(*nodes, do="prepare", auth_key=key)
                before = serving.cpu_s
                answers = simulators.parts(*nodes, do="register", parallel=PARALLEL, auth_key=key)
                took = max(a["ended"] for a in answers) - min(a["began"] for a in answers)
                costs.append(1000 * (serving.cpu_s - before) / COUNT)
                rates.append(COUNT / took)
                serving.wait_idle()
    name = f"registrations, durable, {'TLS' if tls else 'plain'}, {http2}"
    per_second = tuple(1000 / cost for cost in costs)
    return [
        Figure("registrations", f"{name}, per CPU second", "/s", per_second, target, at_least=True),
        Figure("registrations", f"{name}, wall clock", "/s", tuple(rates)),
    ]


def run(repeats: int) -> list[Figure]:
    """Measure everything of this file."""
    return [
        *rate(repeats, tls=True, target=1_000),
        *rate(repeats, tls=True, target=None, http2="h2"),
        *rate(repeats, tls=False, target=1_000),
    ]
