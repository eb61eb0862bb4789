"""Registrations with an auth key, each over a connection of its own, each on disk when answered."""

from __future__ import annotations

import tempfile
from pathlib import Path

from tests.bench.serving import fill, serve
from tests.bench.simulators import simulate
from tests.bench.table import Figure

COUNT = 1_500
PARALLEL = 64


def rate(repeats: int, *, tls: bool, target: float | None, http2: str = "h2") -> list[Figure]:
    """Measure how many a second, end to end, the clients on the same machine."""
    rates, costs = [], []
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as directory:
        filled = fill(Path(directory), 0)
        with (
            serve(filled, tls=tls, http2=http2) as serving,
            simulate(serving, tls=tls) as simulators,
        ):
            for number in range(repeats):
                first = number * COUNT
                before = serving.cpu_s
                answers = simulators.parts(
                    first,
                    first + COUNT,
                    do="register",
                    parallel=PARALLEL,
                    auth_key=filled.auth_key,
                )
                took = max(a["ended"] for a in answers) - min(a["began"] for a in answers)
                costs.append(1000 * (serving.cpu_s - before) / COUNT)
                rates.append(COUNT / took)
                serving.wait_idle()
    name = f"registrations, durable, {'TLS' if tls else 'plain'}, {http2}"
    return [
        Figure("registrations", name, "1/s", tuple(rates), target, at_least=True),
        Figure("registrations", f"{name}: CPU", "ms each", tuple(costs)),
    ]


def run(repeats: int) -> list[Figure]:
    """Measure everything of this file."""
    return [
        *rate(repeats, tls=True, target=800),
        *rate(repeats, tls=True, target=800, http2="ngh2"),
        *rate(repeats, tls=False, target=800),
    ]
