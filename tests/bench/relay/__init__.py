"""The relay's speed and memory, beside the official relay in the same run.

All relays run at once as processes of their own; one Go load generator on the official client
package drives them in turn, in short rounds, so that a busy machine disturbs all alike. What counts
is CPU time of the server process (schedstat over all its threads) per delivered packet, and its
ratio to the official relay's.

Two official releases are compared: the one that all live tests of this project pin, which the
targets are about, and the newest one, for information. ``HEADWATER_BENCH_PYTHON`` names another
interpreter for our relay (a distribution's own is built with more optimization than most others).
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path

from tests.bench.table import Figure
from tests.interop import build
from tests.relay import gotool
from tests.support.certificates import self_signed_pem

BENCH = "relay"
SECONDS = 1.5
"""Of each round: a few hundred thousand packets."""
IDLE_CLIENTS = 2000
WARM_CLIENTS = 50
CONNECTS = 400

OURS = "ours"


@dataclass(frozen=True)
class Load:
    """One way to load a relay, and how much cheaper than the official one ours must be."""

    name: str
    tls: bool
    flags: tuple[str, ...]
    target: float | None


LOADS = (
    Load("TLS, 20 pairs saturated", True, ("-window", "8"), 1.3),
    Load("TLS, one packet per wake", True, ("-burst", "1"), 0.9),
    Load("TLS, 32 packets per wake", True, ("-burst", "32"), None),
    Load("plaintext, 20 pairs saturated", False, ("-window", "8"), 1.5),
)
PACED = Load("TLS, 20 pairs, 500 packets/s each", True, ("-rate", "500"), None)


@dataclass
class Relay:
    """One relay under test: a process, its ports."""

    name: str
    process: subprocess.Popen[str]
    ports: dict[bool, int] = field(default_factory=dict)

    def cpu_s(self) -> float:
        """Read the CPU time of all its threads."""
        total = 0
        for task in Path(f"/proc/{self.process.pid}/task").iterdir():
            total += int((task / "schedstat").read_text().split()[0])
        return total / 1e9

    def resident_kb(self) -> float:
        """Read its resident memory."""
        pages = int(Path(f"/proc/{self.process.pid}/statm").read_text().split()[1])
        return pages * resource.getpagesize() / 1024


def run(repeats: int) -> list[Figure]:
    """Measure everything; nothing where the official packages cannot be had."""
    try:
        gotool.binary(gotool.PINNED)
        gotool.binary(gotool.NEWEST)
    except build.Unavailable as reason:
        print(f"bench relay: SKIPPED, no official relay: {reason}", file=sys.stderr)
        return []
    with tempfile.TemporaryDirectory() as directory:
        pem = Path(directory) / "relay.pem"
        pem.write_bytes(self_signed_pem())
        return [*_throughput(pem, repeats), *_idle(pem, min(repeats, 3)), *_connects(pem, repeats)]


# -- servers and load --


@contextlib.contextmanager
def _ours(pem: Path) -> Iterator[Relay]:
    with contextlib.ExitStack() as stack:
        python = os.environ.get("HEADWATER_BENCH_PYTHON", sys.executable)
        process = _start(stack, [python, "-m", "tests.bench.relay.server", str(pem)])
        assert process.stdout is not None
        plain, tls = process.stdout.readline().split()[1:]
        yield Relay(OURS, process, {False: int(plain), True: int(tls)})


@contextlib.contextmanager
def _official(release: str, pem: Path, *, tls: bool) -> Iterator[Relay]:
    with contextlib.ExitStack() as stack:
        command = [str(gotool.binary(release)), "serve", *(("-pem", str(pem)) if tls else ())]
        process = _start(stack, command)
        assert process.stdout is not None
        address = process.stdout.readline().split()[1]
        yield Relay(release, process, {tls: int(address.rpartition(":")[2])})


@contextlib.contextmanager
def _any(name: str, pem: Path, *, tls: bool) -> Iterator[Relay]:
    with _ours(pem) if name == OURS else _official(name, pem, tls=tls) as relay:
        yield relay


def _start(stack: contextlib.ExitStack, command: list[str]) -> subprocess.Popen[str]:
    # The libraries, but not the standard library, which is each interpreter's own.
    path = os.pathsep.join((str(build.ROOT), *(e for e in sys.path if "site-packages" in e)))
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        env={**os.environ, "PYTHONPATH": path},
    )

    def end() -> None:
        with contextlib.suppress(BrokenPipeError):
            process.communicate(timeout=30)

    stack.callback(end)
    return process


@dataclass(frozen=True)
class Round:
    """What one round cost and delivered."""

    cpu_s: float
    delivered: int
    p50_us: float
    p99_us: float
    connected: int


def _load(relay: Relay, *flags: str, tls: bool) -> Round:
    with contextlib.ExitStack() as stack:
        command = [str(gotool.binary(gotool.NEWEST)), "load", "-a", f"127.0.0.1:{relay.ports[tls]}"]
        process = _start(stack, [*command, *(("-tls",) if tls else ()), *flags])
        assert process.stdin is not None
        assert process.stdout is not None
        assert process.stdout.readline().startswith("ready")
        before = relay.cpu_s()
        process.stdin.write("go\n")
        process.stdin.flush()
        told = json.loads(process.stdout.readline())
        spent = relay.cpu_s() - before
    assert told["wrong"] == 0, f"{relay.name} delivered wrong packets: {told}"
    return Round(spent, told["delivered"], told["p50_us"], told["p99_us"], told["connected"])


# -- figures --


def _throughput(pem: Path, repeats: int) -> list[Figure]:
    names = (gotool.PINNED, gotool.NEWEST, OURS)
    costs: dict[tuple[str, str], list[float]] = {}
    latencies: dict[str, list[Round]] = {}
    with contextlib.ExitStack() as stack:
        ours = stack.enter_context(_ours(pem))
        relays = {
            (name, tls): ours
            if name == OURS
            else stack.enter_context(_official(name, pem, tls=tls))
            for name in names
            for tls in (True, False)
        }
        for _ in range(repeats):
            for load in LOADS:
                for name in names:
                    relay = relays[name, load.tls]
                    done = _load(relay, *load.flags, "-seconds", str(SECONDS), tls=load.tls)
                    cost = done.cpu_s / max(done.delivered, 1) * 1e6
                    costs.setdefault((load.name, name), []).append(cost)
            for name in names:
                done = _load(relays[name, True], *PACED.flags, "-seconds", "1", tls=True)
                latencies.setdefault(name, []).append(done)
    return [*_ratios(names, costs), *_latency(latencies)]


def _ratios(names: tuple[str, ...], costs: dict[tuple[str, str], list[float]]) -> list[Figure]:
    figures: list[Figure] = []
    for load in LOADS:
        ours = statistics.median(costs[load.name, OURS])
        figures.append(
            Figure(BENCH, f"relay {load.name}: ours", "µs/packet", tuple(costs[load.name, OURS]))
        )
        for name in names[:-1]:
            theirs = tuple(costs[load.name, name])
            figures.append(
                Figure(BENCH, f"relay {load.name}: official {name}", "µs/packet", theirs)
            )
            figures.append(
                Figure(
                    BENCH,
                    f"relay {load.name}: packets per CPU second against {name}",
                    "x",
                    (statistics.median(theirs) / ours,),
                    load.target if name == gotool.PINNED else None,
                    at_least=True,
                )
            )
    return figures


def _latency(rounds: dict[str, list[Round]]) -> list[Figure]:
    return [
        Figure(BENCH, f"relay {PACED.name}: {name}, {label}", "µs", values)
        for name, done in rounds.items()
        for label, values in (
            ("median latency", tuple(each.p50_us for each in done)),
            ("99th percentile", tuple(each.p99_us for each in done)),
        )
    ]


def _idle(pem: Path, repeats: int) -> list[Figure]:
    """Measure the growth of resident memory per idle TLS client, in fresh processes."""
    figures = []
    for name in (OURS, gotool.PINNED):
        values = []
        for _ in range(repeats):
            with _any(name, pem, tls=True) as relay, contextlib.ExitStack() as stack:
                _hold(stack, relay, WARM_CLIENTS)
                before = relay.resident_kb()
                _hold(stack, relay, IDLE_CLIENTS)
                values.append((relay.resident_kb() - before) / IDLE_CLIENTS)
        target = 28.0 if name == OURS else None
        figures.append(
            Figure(BENCH, f"relay, idle TLS client: {name}", "KB", tuple(values), target)
        )
    return figures


def _hold(stack: contextlib.ExitStack, relay: Relay, count: int) -> None:
    command = [str(gotool.binary(gotool.NEWEST)), "load", "-tls", "-idle", str(count)]
    process = _start(stack, [*command, "-a", f"127.0.0.1:{relay.ports[True]}"])
    assert process.stdout is not None
    assert process.stdout.readline().split() == ["ready", str(count)]
    time.sleep(0.5)


def _connects(pem: Path, repeats: int) -> list[Figure]:
    """Measure the CPU time of TCP, TLS, HTTP and login together."""
    values: dict[str, list[float]] = {}
    with (
        _ours(pem) as ours,
        _official(gotool.PINNED, pem, tls=True) as pinned,
    ):
        for _ in range(repeats):
            for relay in (ours, pinned):
                done = _load(relay, "-connects", str(CONNECTS), tls=True)
                assert done.connected == CONNECTS
                values.setdefault(relay.name, []).append(done.cpu_s / CONNECTS * 1e3)
    return [
        Figure(BENCH, f"relay, connect and log in over TLS: {name}", "ms", tuple(each))
        for name, each in values.items()
    ]
