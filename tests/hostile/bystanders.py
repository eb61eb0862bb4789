"""Well-behaved clients in a process of their own: nodes with map polls, and a pair on the relay.

They live a normal life and keep account of it: one node tells new endpoints twice a second and the
others must hear of it, two clients of the relay exchange packets, and somebody asks for the key now
and then. As a program it obeys ``mark`` and ``report`` on standard input; ``Bystanders`` is the
commanding side. Not for attacks.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field

import msgspec

from appliance.wire.keys import MachineKey
from tests.bench.simclient import Server, SimulatedNode, tls_context
from tests.hostile.raw import RelayLine, Target, member, open_relay, open_tls, request

NODES = 12
CHANGE_EVERY_S = 0.5
PACKET_EVERY_S = 0.05
ASK_EVERY_S = 1.0
GIVE_UP_S = 20.0
PACKET_BYTES = 600
FIRST_PORT = 20_000


@dataclass
class Life:
    """What the bystanders have seen since the last mark."""

    changes: int = 0
    slowest_change_s: float = 0.0
    unheard: int = 0
    """Changes that somebody did not hear of in GIVE_UP_S."""
    sessions_lost: int = 0
    packets: int = 0
    packets_lost: int = 0
    slowest_packet_s: float = 0.0
    relay_lost: int = 0
    answers: int = 0
    slowest_answer_s: float = 0.0
    failures: list[str] = field(default_factory=list)


class Listener:
    """A node, and the endpoint text that it waits for."""

    def __init__(self, server: Server, number: int) -> None:
        self.wanted = b"-"
        self.heard = asyncio.Event()
        self.node = SimulatedNode(server, member(number), on_message=self._look)

    def _look(self, text: bytes) -> None:
        if self.wanted in text:
            self.heard.set()


class Crowd:
    """All bystanders."""

    def __init__(self, target: Target) -> None:
        self.life = Life()
        self._target = target
        self._server = Server(
            target.port, MachineKey.parse(target.machine_key), tls_context(), target.host
        )
        self._nodes = [Listener(self._server, number) for number in range(NODES)]
        self._port = FIRST_PORT

    async def arrive(self) -> None:
        """Enrol, open the polls, log in at the relay."""
        for each in self._nodes:
            await each.node.connect()
            response = await each.node.register(self._target.auth_key)
            assert response.machine_authorized, response.error
            await each.node.poll()

    async def live(self) -> None:
        """Do all of it for ever."""
        async with asyncio.TaskGroup() as tasks:
            tasks.create_task(self._change_forever())
            tasks.create_task(self._ask_forever())
            tasks.create_task(self._send_forever())

    async def _change_forever(self) -> None:
        while True:
            try:
                await self._change()
            except (OSError, TimeoutError) as error:
                self._note(f"change: {error!r}")
            await asyncio.sleep(CHANGE_EVERY_S)
            await self._come_back()

    async def _change(self) -> None:
        """Let the first node tell another port; wait until all others have heard of it."""
        self._port = FIRST_PORT + (self._port + 1 - FIRST_PORT) % 30_000
        first, others = self._nodes[0], self._nodes[1:]
        for each in others:
            each.wanted = b":%d" % self._port
            each.heard.clear()
        began = time.monotonic()
        life = self.life
        async with asyncio.timeout(GIVE_UP_S):
            await first.node.update(self._port)
        try:
            async with asyncio.timeout(GIVE_UP_S):
                for each in others:
                    await each.heard.wait()
        except TimeoutError:
            life.unheard += 1
        life.changes += 1
        life.slowest_change_s = max(life.slowest_change_s, time.monotonic() - began)

    async def _come_back(self) -> None:
        for each in self._nodes:
            if not each.node.is_connected:
                self.life.sessions_lost += 1
                try:
                    await each.node.connect()
                    await each.node.poll()
                except (OSError, TimeoutError) as error:
                    self._note(f"back: {error!r}")

    async def _ask_forever(self) -> None:
        """Be somebody new: a connection, TLS, one question."""
        while True:
            began = time.monotonic()
            try:
                async with asyncio.timeout(GIVE_UP_S):
                    line = await open_tls(self._target)
                    line.send(request("GET", "/key?v=130", close=True))
                    answer = await line.rest(GIVE_UP_S)
                    line.close()
                if not answer.startswith(b"HTTP/1.1 200 "):
                    self._note(f"asked, and heard {answer[:80]!r}")
            except (OSError, TimeoutError) as error:
                self._note(f"ask: {error!r}")
            self.life.answers += 1
            self.life.slowest_answer_s = max(self.life.slowest_answer_s, time.monotonic() - began)
            await asyncio.sleep(ASK_EVERY_S)

    async def _send_forever(self) -> None:
        while True:
            try:
                await self._send_while_connected()
            except (OSError, TimeoutError, EOFError) as error:
                self.life.relay_lost += 1
                self._note(f"relay: {error!r}")
                await asyncio.sleep(0.5)

    async def _send_while_connected(self) -> None:
        one = await open_relay(self._target, key_number=0)
        two = await open_relay(self._target, key_number=1)
        try:
            while True:
                await self._exchange(one, two)
                await asyncio.sleep(PACKET_EVERY_S)
        finally:
            one.close()
            two.close()

    async def _exchange(self, one: RelayLine, two: RelayLine) -> None:
        for sender, receiver in ((one, two), (two, one)):
            data = os.urandom(PACKET_BYTES)
            began = time.monotonic()
            sender.send_packet(receiver.key, data)
            self.life.packets += 1
            try:
                async with asyncio.timeout(GIVE_UP_S / 4):
                    while (await receiver.packet())[1] != data:
                        pass  # one that was given up earlier, or somebody else's
            except TimeoutError:
                self.life.packets_lost += 1
            self.life.slowest_packet_s = max(self.life.slowest_packet_s, time.monotonic() - began)

    def _note(self, text: str) -> None:
        if len(self.life.failures) < 20:
            self.life.failures.append(text)


async def _run(target: Target) -> None:
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader()
    await loop.connect_read_pipe(lambda: asyncio.StreamReaderProtocol(reader), sys.stdin)
    crowd = Crowd(target)
    await crowd.arrive()
    print(json.dumps({"ready": True}), flush=True)
    living = asyncio.create_task(crowd.live())
    while line := await reader.readline():
        if living.done():
            living.result()
        before, command = crowd.life, line.strip()
        if command == b"mark":
            crowd.life = Life()
        print(json.dumps(asdict(before)), flush=True)
    living.cancel()


class Bystanders:
    """The commanding side."""

    def __init__(self, target: Target) -> None:
        command = [sys.executable, "-m", "tests.hostile.bystanders", target.text()]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE)
        self._hear()

    def mark(self) -> None:
        """Begin a new account."""
        self._tell("mark")

    def report(self) -> Life:
        """Give the account since the mark."""
        return msgspec.convert(self._tell("report"), Life)

    def report_of_life(self, least: int) -> Life:
        """Give the account once it has this many changes and answers, however bad."""
        deadline = time.monotonic() + GIVE_UP_S
        life = self.report()
        while min(life.changes, life.answers) < least and time.monotonic() < deadline:
            time.sleep(0.1)
            life = self.report()
        return life

    def leave(self) -> None:
        """End them."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        self._process.stdout.close()

    def _tell(self, command: str) -> dict[str, object]:
        assert self._process.stdin is not None
        self._process.stdin.write(command.encode() + b"\n")
        self._process.stdin.flush()
        return self._hear()

    def _hear(self) -> dict[str, object]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, "the bystanders have died"
        heard: dict[str, object] = json.loads(line)
        return heard


def main() -> None:
    """Live until standard input ends."""
    parser = argparse.ArgumentParser()
    parser.add_argument("target", type=json.loads)
    options = parser.parse_args()
    asyncio.run(_run(Target(**options.target)))


if __name__ == "__main__":
    main()
