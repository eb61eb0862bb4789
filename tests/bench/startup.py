"""How long it takes until something answers: the command line, dev, a server with many nodes."""

from __future__ import annotations

import resource
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from tests.bench.serving import fill, serve
from tests.bench.table import Figure

MANY = 5_000
COMMAND = [sys.executable, "-m", "appliance"]


def help_text(repeats: int) -> Figure:
    """Measure ``headwater --help``."""
    values = []
    for _ in range(repeats):
        before = _children_s()
        subprocess.run([*COMMAND, "--help"], check=True, stdout=subprocess.DEVNULL)
        values.append(_children_s() - before)
    return Figure("startup", "headwater --help: CPU", "s", tuple(values), 0.15)


def dev(repeats: int) -> list[Figure]:
    """Measure ``headwater dev`` in a new directory, until it says that it accepts clients."""
    walls, costs = [], []
    for _ in range(repeats):
        with tempfile.TemporaryDirectory(prefix="headwater-bench-") as directory:
            before, began = _children_s(), time.monotonic()
            command = [*COMMAND, "dev", "--dir", directory, "-o", "json"]
            with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
                assert process.stdout is not None
                assert process.stdout.readline().startswith(b"{"), "dev did not start"
                walls.append(time.monotonic() - began)
                process.send_signal(signal.SIGTERM)
            costs.append(_children_s() - before)
    return [
        Figure("startup", "headwater dev accepts clients after (wall)", "s", tuple(walls), 3),
        Figure("startup", "headwater dev: CPU, start and stop", "s", tuple(costs)),
    ]


def restart(repeats: int, nodes: int = MANY) -> list[Figure]:
    """Measure the start over a database with many nodes."""
    walls, costs = [], []
    with tempfile.TemporaryDirectory(prefix="headwater-bench-") as directory:
        filled = fill(Path(directory), nodes)
        for _ in range(repeats):
            began = time.monotonic()
            with serve(filled) as serving:
                walls.append(time.monotonic() - began)
                costs.append(serving.cpu_s)
    return [
        Figure("startup", f"restart with {nodes} nodes: accepts after (wall)", "s", tuple(walls)),
        Figure("startup", f"restart with {nodes} nodes: CPU", "s", tuple(costs)),
    ]


def _children_s() -> float:
    usage = resource.getrusage(resource.RUSAGE_CHILDREN)
    return usage.ru_utime + usage.ru_stime


def run(repeats: int) -> list[Figure]:
    """Measure everything of this file."""
    return [help_text(repeats), *dev(repeats), *restart(repeats)]
