"""A reconnect storm: all nodes lose their connections at once, and all come back, at new endpoints.

So each of them gets a full map, and every change of endpoints must reach everybody.
"""

from __future__ import annotations

import time

from tests.bench import fanout
from tests.bench.table import Figure

STORM_S = 600.0
WATCHED_OF_MANY = 50
"""With thousands of nodes only every 50th reads its maps; reading them all takes the simulators
longer than the server needs to send them."""


def storm(repeats: int, nodes: int, *, watch: int, http2: str = "auto") -> list[Figure]:
    """Measure storms of so many nodes, until all are online and have converged."""
    cpu, wall, messages = [], [], []
    with fanout.fleet(nodes, http2=http2, watch=watch) as (serving, simulators):
        fanout.join(serving, simulators, nodes)
        for port in range(1000, 1000 + repeats):
            before, began = serving.cpu_s, time.monotonic()
            simulators.everywhere(do="drop")
            simulators.everywhere(do="again", parallel=nodes, port=port)
            reports = simulators.settled(
                lambda reports, port=port: (  # type: ignore[misc]
                    fanout.is_converged(reports, nodes)
                    and all(report["ports"] == [str(port)] for report in reports)
                ),
                STORM_S,
            )
            wall.append(max(report["last_at"] for report in reports) - began)
            serving.wait_idle(quiet_s=fanout.QUIET_S)
            cpu.append(serving.cpu_s - before)
            reports = simulators.everywhere(do="report")
            messages.append(float(max(report["most_messages"] for report in reports)))
        peak = serving.peak_bytes
    name = f"reconnect storm, {nodes} nodes, {http2}"
    small = nodes <= fanout.PEERS
    return [
        Figure("storm", f"{name}: CPU", "s", tuple(cpu), 5.0 if small else None),
        Figure("storm", f"{name}: all converged after (wall)", "s", tuple(wall)),
        Figure(
            "storm",
            f"{name}: most messages of a session",
            "",
            tuple(messages),
            20 if small else None,
        ),
        Figure("storm", f"{name}: peak memory", "MB", (peak / 1e6,), None if small else 1200),
    ]


def run(repeats: int) -> list[Figure]:
    """Measure everything of this file."""
    return [
        *storm(repeats, 1_000, watch=1),
        *storm(1, 5_000, watch=WATCHED_OF_MANY),
    ]
