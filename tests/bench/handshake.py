"""Connections and their transport alone: no tailnet, no store, a handler that answers at once.

How much of the server's CPU a new connection takes (TLS, upgrade, Noise, HTTP/2, one small
request), a small frame to every open stream, a large one, a small request on an open connection;
and the memory of an idle link. What the real server adds on top is in the other benches.
"""

from __future__ import annotations

import argparse
import asyncio
import gc
import importlib.util
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from appliance.control.exchange import Exchange, OutStream
from appliance.control.http2 import engine
from appliance.control.ts2021 import Ts2021
from appliance.front.dispatch import Front
from appliance.front.stream import listen
from appliance.tls.certificates import server_context
from appliance.tls.localca import LocalCa
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey, PrivateKey
from tests.bench import simclient
from tests.bench.table import Figure

NODES = 400
PARALLEL = 20
ROUNDS = 20
SMALL = [b"\xf6\0\0\0" + os.urandom(246)]
LARGE = [(8 * 65_536 - 4).to_bytes(4, "little"), os.urandom(8 * 65_536 - 4)]
REQUESTS = 20


class Serving:
    """The server process: obeys one word a line, answers with one JSON line."""

    def __init__(self, process: subprocess.Popen[str]) -> None:
        self._process = process
        hello = self.hear()
        self.port = int(hello["port"])
        self.key = MachineKey.parse(str(hello["key"]))

    def hear(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        answer: dict[str, Any] = json.loads(self._process.stdout.readline())
        return answer

    async def ask(self, word: str) -> dict[str, Any]:
        """Send a word and wait for its answer without stopping the simulated nodes."""
        assert self._process.stdin is not None
        self._process.stdin.write(word + "\n")
        self._process.stdin.flush()
        return await asyncio.to_thread(self.hear)


@contextmanager
def serve(http2: str) -> Iterator[Serving]:
    command = [sys.executable, "-m", "tests.bench.handshake", "--http2", http2]
    with subprocess.Popen(
        command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    ) as process:
        try:
            yield Serving(process)
        finally:
            process.kill()


async def measure(serving: Serving) -> dict[str, float]:
    """Connect, ask, poll, listen; give what each cost the server."""
    server = simclient.Server(serving.port, serving.key, simclient.tls_context())
    found: dict[str, float] = {}
    nodes = [
        simclient.SimulatedNode(server, simclient.identity(number), watch=False)
        for number in range(2 * NODES)
    ]

    async def fresh(node: simclient.SimulatedNode) -> None:
        await node.connect()
        await node.register("key")

    await _spread(nodes[:20], fresh)
    start, began = await serving.ask("usage"), time.monotonic()
    await _spread(nodes[20:NODES], fresh)
    end = await serving.ask("usage")
    count = NODES - 20
    found["connect"] = 1e6 * (end["cpu"] - start["cpu"]) / count
    found["rate"] = count / (time.monotonic() - began)
    await _spread(nodes[NODES:], fresh)
    after = await serving.ask("usage")
    found["memory"] = (after["resident"] - end["resident"]) / NODES / 1000

    async def again(node: simclient.SimulatedNode) -> None:
        for _ in range(REQUESTS):
            await node.register("key")

    start = await serving.ask("usage")
    await _spread(nodes[:50], again)
    end = await serving.ask("usage")
    found["request"] = 1e6 * (end["cpu"] - start["cpu"]) / (50 * REQUESTS)
    await _spread(nodes[:NODES], lambda node: node.poll())
    found["small"] = (await serving.ask("small"))["each"]
    found["large"] = (await serving.ask("large"))["each"]
    for node in nodes:
        node.drop()
    return found


async def _spread(nodes: list[simclient.SimulatedNode], work: Any) -> None:
    left = iter(nodes)

    async def work_off() -> None:
        for node in left:
            await work(node)

    async with asyncio.TaskGroup() as tasks:
        for _ in range(PARALLEL):
            tasks.create_task(work_off())


def run(repeats: int) -> list[Figure]:
    """Measure with every engine that is installed."""
    import uvloop

    figures = []
    for name in ("h2", "ngh2") if importlib.util.find_spec("ngh2") else ("h2",):
        rounds: list[dict[str, float]] = []
        for _ in range(min(repeats, 3)):
            with serve(name) as serving, asyncio.Runner(loop_factory=uvloop.new_event_loop) as loop:
                rounds.append(loop.run(measure(serving)))

        def figure(
            key: str,
            text: str,
            unit: str,
            target: float | None = None,
            of: Any = rounds,
            by: str = name,
        ) -> Figure:
            values = tuple(one[key] for one in of)
            return Figure("handshake", f"{text}, {by}", unit, values, target)

        figures += [
            figure("connect", "connect, TLS, Noise, one request", "µs"),
            figure("rate", "connections, both ends on this machine", "/s"),
            figure("memory", "idle link over TLS", "KB", 60),
            figure("request", "small request on an open connection", "µs"),
            figure("small", "250 bytes to each open stream", "µs", 22 if name == "ngh2" else 30),
            figure("large", "512 KiB to each open stream", "µs"),
        ]
    return figures


# ── the server process ───────────────────────────────────────────────────────────────────────


class Door:
    """A handler that answers at once and keeps the polls' streams."""

    def __init__(self) -> None:
        self.outs: list[OutStream] = []
        self._registered = tailcfg.encode(tailcfg.RegisterResponse(machine_authorized=True))

    def handle(self, exchange: Exchange) -> None:
        exchange.vouch()
        if exchange.path == "/machine/map":
            out = exchange.open_stream()
            self.outs.append(out)
            out.write(SMALL)
        else:
            exchange.respond(200, self._registered)

    async def tell(self, parts: list[bytes], rounds: int) -> float:
        """Write to every stream so many times; give µs of CPU each, draining included."""
        await asyncio.sleep(0.2)
        began = time.process_time()
        for _ in range(rounds):
            for out in self.outs:
                out.write(parts)
            await asyncio.sleep(0)
            while any(out.backlog for out in self.outs):
                await asyncio.sleep(0.001)
        await asyncio.sleep(0.2)
        return 1e6 * (time.process_time() - began) / rounds / len(self.outs)


async def _serve(http2: str) -> None:
    key = PrivateKey.generate(os.urandom)
    door = Door()
    ts2021 = Ts2021(key, door.handle, http2=engine(http2))
    front = Front({"/ts2021": ts2021.open})
    with tempfile.TemporaryDirectory() as directory:
        context = server_context(LocalCa(Path(directory)).ensure(["127.0.0.1"]).path)
    listener = await listen(front.sink, "127.0.0.1", 0, tls=lambda: context)
    gc.freeze()
    _say({"port": listener.port, "key": str(MachineKey(key.public_raw))})
    while word := (await asyncio.to_thread(sys.stdin.readline)).strip():
        if word == "usage":
            _say({"cpu": time.process_time(), "resident": _resident()})
        else:
            parts, rounds = (SMALL, ROUNDS) if word == "small" else (LARGE, 2)
            _say({"each": await door.tell(parts, rounds)})


def _say(answer: dict[str, object]) -> None:
    print(json.dumps(answer), flush=True)


def _resident() -> int:
    pages = Path("/proc/self/statm").read_text().split()[1]
    return int(pages) * os.sysconf("SC_PAGE_SIZE")


if __name__ == "__main__":
    import uvloop

    parser = argparse.ArgumentParser()
    parser.add_argument("--http2", default="h2")
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_serve(parser.parse_args().http2))
