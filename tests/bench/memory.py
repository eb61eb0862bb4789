"""Memory of a connected node: the growth from 100 to 1,000 open map sessions over TLS."""

from __future__ import annotations

from tests.bench import fanout
from tests.bench.table import Figure

FIRST = 100


def connected(repeats: int, nodes: int = fanout.PEERS) -> Figure:
    """Measure resident memory per node beyond the first ones, all in a map session."""
    values = []
    for _ in range(repeats):
        with fanout.fleet(nodes, watch=0) as (serving, simulators):
            simulators.parts(0, FIRST, do="connect", parallel=fanout.PARALLEL)
            serving.wait_idle(quiet_s=fanout.QUIET_S)
            before = serving.resident_bytes
            simulators.parts(FIRST, nodes, do="connect", parallel=fanout.PARALLEL)
            serving.wait_idle(quiet_s=fanout.QUIET_S)
            values.append((serving.resident_bytes - before) / (nodes - FIRST) / 1000)
    return Figure("memory", f"connected node beyond the first {FIRST}", "KB", tuple(values), 120)


def run(repeats: int) -> list[Figure]:
    """Measure everything of this file."""
    return [connected(min(repeats, 3))]
