"""Full maps to clients that connect, and one change told to all that are connected."""

from __future__ import annotations

import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.bench.serving import Serving, fill, serve
from tests.bench.simulators import Answer, Simulators, simulate
from tests.bench.table import Figure

PEERS = 1_000
CONNECTING = 100
"""Clients that connect in one measurement of full maps, out of ``PEERS``."""
PARALLEL = 8
QUIET_S = 1.5
"""Longer than the longest pause between two distributions."""
SETTLE_S = 120.0


@contextmanager
def fleet(
    nodes: int, *, http2: str = "h2", sights: str = "open", watch: int = 1
) -> Iterator[tuple[Serving, Simulators]]:
    """Run a server for that many nodes, and simulators for them."""
    with (
        tempfile.TemporaryDirectory(prefix="headwater-bench-") as directory,
        serve(fill(Path(directory), nodes), http2=http2, sights=sights) as serving,
        simulate(serving, watch=watch) as simulators,
    ):
        serving.wait_idle()
        yield serving, simulators


def full_maps(repeats: int, sights: str, target: float, nodes: int = PEERS) -> Figure:
    """Measure: connect, TLS, Noise, HTTP/2, full map, write; per client.

    The same clients come again within their grace time, so nobody else is told about it.
    """
    values = []
    with fleet(nodes, sights=sights) as (serving, simulators):
        for round_number in range(repeats + 1):
            before = serving.cpu_s
            simulators.parts(0, CONNECTING, do="connect", parallel=PARALLEL)
            serving.wait_idle(quiet_s=0.2)
            if round_number:  # the first fills the caches, and tells that they are online
                values.append(1000 * (serving.cpu_s - before) / CONNECTING)
            simulators.everywhere(do="drop")
            serving.wait_idle(quiet_s=QUIET_S)
    seen = "all see the same" if sights == "open" else "each sees another set"
    return Figure(
        "fanout", f"full map, {nodes} peers, TLS, {seen}", "ms/client", tuple(values), target
    )


def changes(repeats: int, http2: str, target: float, nodes: int = PEERS) -> list[Figure]:
    """Measure: one node tells another endpoint, all others hear of it."""
    costs, delays = [], []
    with fleet(nodes, http2=http2, watch=20) as (serving, simulators):
        join(serving, simulators, nodes)
        for port in range(1000, 1000 + repeats):
            heard = _messages(simulators.everywhere(do="report"))
            before = serving.cpu_s
            told = simulators.one(0, do="update", number=0, port=port)
            reports = simulators.settled(
                lambda reports, heard=heard: _messages(reports) >= heard + nodes - 1,  # type: ignore[misc]
                SETTLE_S,
            )
            costs.append(1e6 * (serving.cpu_s - before) / (nodes - 1))
            delays.append(max(report["last_at"] for report in reports) - told["began"])
            serving.wait_idle(quiet_s=QUIET_S)
    name = f"one endpoint change to {nodes} clients, {http2}"
    return [
        Figure("fanout", name, "µs/client", tuple(costs), target),
        Figure("fanout", f"{name}: last one hears after", "s", tuple(delays), 0.3),
    ]


def join(serving: Serving, simulators: Simulators, nodes: int) -> None:
    """Connect all nodes and wait until everybody sees everybody online."""
    simulators.parts(0, nodes, do="connect", parallel=PARALLEL)
    simulators.settled(lambda reports: is_converged(reports, nodes), SETTLE_S)
    serving.wait_idle(quiet_s=QUIET_S)


def is_converged(reports: list[Answer], nodes: int) -> bool:
    """Tell whether all are connected, and all that watch see all others online."""
    connected = sum(report["connected"] for report in reports)
    return connected == nodes and all(
        report["online"] == report["peers"] == [nodes - 1] for report in reports
    )


def _messages(reports: list[Answer]) -> int:
    return int(sum(report["messages"] for report in reports))


def run(repeats: int) -> list[Figure]:
    """Measure everything of this file."""
    return [
        full_maps(repeats, "open", 2.2),
        full_maps(repeats, "distinct", 5.5),
        *changes(repeats, "h2", 30),
        *changes(repeats, "ngh2", 22),
    ]
