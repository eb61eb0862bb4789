"""Requests to the API over the network with an API key: the list of 1,000 nodes, and one node."""

from __future__ import annotations

import http.client
import statistics
import tempfile
import time
from pathlib import Path

from tests.bench.serving import Serving, fill, serve
from tests.bench.table import Figure

NODES = 1_000
REQUESTS = 200
"""Of one key: it may ask 400 times at once."""


def run(repeats: int) -> list[Figure]:
    """Measure everything of this file."""
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as directory:
        filled = fill(Path(directory), NODES)
        with serve(filled, tls=False) as serving:
            serving.wait_idle()
            return [
                *_rates(serving, repeats, "/api/v1/node", "list of 1,000 nodes", target=150),
                *_rates(serving, repeats, "/api/v1/node/500", "one node", offset=repeats),
            ]


def _rates(
    serving: Serving,
    repeats: int,
    path: str,
    name: str,
    *,
    target: float | None = None,
    offset: int = 0,
) -> list[Figure]:
    """Measure how many a CPU second of the server, and how long the slowest hundredth waits."""
    rates, slowest = [], []
    for number in range(repeats):
        headers = {"Authorization": f"Bearer {serving.filled.api_keys[offset + number]}"}
        connection = http.client.HTTPConnection("127.0.0.1", serving.port)
        before, times = serving.cpu_s, []
        for _ in range(REQUESTS):
            began = time.perf_counter()
            connection.request("GET", path, headers=headers)
            response = connection.getresponse()
            response.read()
            times.append(1000 * (time.perf_counter() - began))
            if response.status != 200:
                raise RuntimeError(f"{path}: {response.status}")
        rates.append(REQUESTS / (serving.cpu_s - before))
        slowest.append(statistics.quantiles(times, n=100)[98])
        connection.close()
    title = f"API over the network, {name}"
    return [
        Figure("api", f"{title}, per CPU second", "/s", tuple(rates), target, at_least=True),
        Figure("api", f"{title}, 99th percentile", "ms", tuple(slowest)),
    ]
