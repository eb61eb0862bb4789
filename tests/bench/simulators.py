"""Processes full of simulated nodes, and the side that commands them.

A worker (``python -m tests.bench.simulators``) reads commands as JSON lines and answers each with
one line. Workers are several because one process cannot press a server to its limit; their CPU is
not counted. Times are those of the monotonic clock, which all processes of a machine share.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import subprocess
import sys
import time
from collections.abc import Callable, Coroutine, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from typing import Any

from appliance.wire.keys import MachineKey
from tests.bench.serving import Serving
from tests.bench.simclient import Server, SimulatedNode, identity, tls_context

Answer = dict[str, Any]
Nodes = dict[int, SimulatedNode]

RETRY_FIRST_S = 0.2
RETRY_LAST_S = 5.0
"""A node that fails to connect tries again after a pause that doubles; stock clients do alike."""
POLL_S = 0.1


# ── the commanding side ──────────────────────────────────────────────────────────────────────


class Simulators:
    """Some worker processes, each with its part of the nodes."""

    def __init__(self, workers: Sequence[subprocess.Popen[bytes]]) -> None:
        self._workers = workers

    def everywhere(self, **command: object) -> list[Answer]:
        """Give all workers the same command; wait for all answers."""
        for worker in self._workers:
            self._tell(worker, command)
        return [self._hear(worker) for worker in self._workers]

    def one(self, index: int, **command: object) -> Answer:
        """Give one worker a command."""
        self._tell(self._workers[index], command)
        return self._hear(self._workers[index])

    def parts(self, first: int, after: int, **command: object) -> list[Answer]:
        """Split the nodes from ``first`` to before ``after`` among the workers."""
        count = len(self._workers)
        for index, worker in enumerate(self._workers):
            numbers = list(range(first + index, after, count))
            self._tell(worker, {**command, "numbers": numbers})
        return [self._hear(worker) for worker in self._workers]

    def settled(self, is_settled: Callable[[list[Answer]], bool], limit_s: float) -> list[Answer]:
        """Ask for reports until they satisfy. Raises TimeoutError with the last ones."""
        deadline = time.monotonic() + limit_s
        while True:
            reports = self.everywhere(do="report")
            if is_settled(reports):
                return reports
            if time.monotonic() > deadline:
                raise TimeoutError(f"the simulated nodes did not settle: {reports}")
            time.sleep(POLL_S)

    @staticmethod
    def _tell(worker: subprocess.Popen[bytes], command: dict[str, object]) -> None:
        assert worker.stdin is not None
        worker.stdin.write(json.dumps(command).encode() + b"\n")
        worker.stdin.flush()

    @staticmethod
    def _hear(worker: subprocess.Popen[bytes]) -> Answer:
        assert worker.stdout is not None
        line = worker.stdout.readline()
        if not line:
            raise RuntimeError("a simulator has died")
        answer: Answer = json.loads(line)
        if "failed" in answer:
            raise RuntimeError(f"a simulator failed: {answer['failed']}")
        return answer


@contextmanager
def simulate(
    serving: Serving, *, workers: int = 2, tls: bool = True, watch: int = 1
) -> Iterator[Simulators]:
    """Start workers for a server. Every ``watch``-th node reads its maps, the others only count."""
    command = [sys.executable, "-m", "tests.bench.simulators"]
    command += [str(serving.port), str(serving.filled.machine_key), "--watch", str(watch)]
    command += ["--tls"] if tls else []
    with ExitStack() as stack:
        processes = []
        for _ in range(workers):
            process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            stack.enter_context(process)
            stack.callback(process.kill)
            processes.append(process)
        yield Simulators(processes)


# ── a worker ─────────────────────────────────────────────────────────────────────────────────


class Worker:
    """The commands, each a method ``do_…`` that gives its answer."""

    def __init__(self, server: Server, watch: int) -> None:
        self._server = server
        self._watch = watch
        self._nodes: Nodes = {}

    async def obey(self, command: dict[str, Any]) -> Answer:
        """Carry out one command."""
        do: Callable[..., Coroutine[Any, Any, Answer]] = getattr(self, "do_" + command.pop("do"))
        try:
            return await do(**command)
        except Exception as error:  # noqa: BLE001 the commander decides what it means
            return {"failed": f"{type(error).__name__}: {error}"}

    async def do_connect(self, numbers: list[int], parallel: int, port: int = 0) -> Answer:
        """Connect these nodes and open their polls; answer when all have their first map.

        With a port they also tell their endpoints, as after a change of network.
        """

        async def one(number: int) -> None:
            node = self._node(number)
            await _persistently(lambda: self._join(node, port))

        began = time.monotonic()
        await _some_at_once([lambda n=n: one(n) for n in numbers], parallel)  # type: ignore[misc]
        return {"began": began, "ended": time.monotonic()}

    async def do_again(self, parallel: int, port: int) -> Answer:
        """Reconnect all nodes that this worker knows, at other endpoints."""
        return await self.do_connect(list(self._nodes), parallel, port)

    async def do_prepare(self, numbers: list[int], auth_key: str) -> Answer:
        """Make the keys and first messages of nodes that will enrol, before time is taken."""
        for number in numbers:
            self._node(number).prepare_registration(auth_key)
        return {}

    async def do_register(self, numbers: list[int], parallel: int, auth_key: str) -> Answer:
        """Enrol these new nodes, each over a connection of its own; no polls."""

        async def one(number: int) -> None:
            node = self._node(number)
            await node.connect()
            response = await node.register(auth_key)
            if not response.machine_authorized:
                raise PermissionError(response.error)
            node.drop()

        began = time.monotonic()
        await _some_at_once([lambda n=n: one(n) for n in numbers], parallel)  # type: ignore[misc]
        return {"began": began, "ended": time.monotonic()}

    async def do_update(self, number: int, port: int) -> Answer:
        """Let a node tell other endpoints; answer when the server has answered."""
        began = time.monotonic()
        await self._nodes[number].update(port)
        return {"began": began, "ended": time.monotonic()}

    async def do_drop(self) -> Answer:
        """Cut all connections."""
        for node in self._nodes.values():
            node.drop()
        await asyncio.sleep(0)
        return {}

    async def do_report(self) -> Answer:
        """Tell what the nodes have heard."""
        nodes = list(self._nodes.values())
        heard = [node.heard for node in nodes]
        watching = [node.heard for node in nodes if node.watch]
        return {
            "connected": sum(node.is_connected for node in nodes),
            "messages": sum(one.messages for one in heard),
            "most_messages": max((one.messages for one in heard), default=0),
            "size": sum(one.size for one in heard),
            "last_at": max((one.last_at for one in heard), default=0.0),
            "peers": sorted({len(one.online) for one in watching}),
            "online": sorted({sum(one.online.values()) for one in watching}),
            "ports": sorted({port for one in watching for port in one.ports.values()}),
            "lost": sum(node.lost_times for node in nodes),
        }

    def _node(self, number: int) -> SimulatedNode:
        node = self._nodes.get(number)
        if node is None:
            watch = bool(self._watch) and len(self._nodes) % self._watch == 0
            node = SimulatedNode(self._server, identity(number), watch=watch)
            self._nodes[number] = node
        return node

    @staticmethod
    async def _join(node: SimulatedNode, port: int) -> None:
        await node.connect()
        await node.poll()
        if port:
            await node.update(port)


async def _persistently(work: Callable[[], Coroutine[Any, Any, None]]) -> None:
    pause = RETRY_FIRST_S
    while True:
        try:
            await work()
        except OSError:
            await asyncio.sleep(pause)
            pause = min(2 * pause, RETRY_LAST_S)
        else:
            return


async def _some_at_once(
    works: Sequence[Callable[[], Coroutine[Any, Any, None]]], parallel: int
) -> None:
    left = iter(works)

    async def work_off() -> None:
        for work in left:
            await work()

    async with asyncio.TaskGroup() as tasks:
        for _ in range(parallel):
            tasks.create_task(work_off())


async def _obey_stdin(worker: Worker) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 24)
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    while line := await reader.readline():
        answer = await worker.obey(json.loads(line))
        print(json.dumps(answer), flush=True)


def main() -> None:
    """Obey the commands on standard input until it ends."""
    import uvloop

    parser = argparse.ArgumentParser()
    parser.add_argument("port", type=int)
    parser.add_argument("key", type=MachineKey.parse)
    parser.add_argument("--watch", type=int, default=1)
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    server = Server(options.port, options.key, tls_context() if options.tls else None)
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(_obey_stdin(Worker(server, options.watch)))


if __name__ == "__main__":
    main()
