"""One stock client under test: our node program, driven over JSON lines.

For: starting a client on some host, asking it things, waiting for what it noticed. Not for: the
network around it (`netns.py`) or what it should see (the tests). The program on the other side is
`node/protocol.go`.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import time
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

# One answer can carry a whole status or the client's log.
MAX_LINE_BYTES = 8 << 20

# A client of a busy two-core machine; what takes longer than this hangs.
CALL_TIMEOUT_S = 30.0

# One packet that comes back at all comes back within this.
ONE_PING_S = 2.0

# Between two pings that look for a direct path.
PING_EVERY_S = 0.2

# Records of a stream that are no accident.
STREAM_PROGRESS = 10

Event = dict[str, Any]


LAST_WORDS_CHARS = 4_000


class NodeError(Exception):
    """The client answered with an error; the text is the client's own."""


class NodeGone(Exception):
    """The client program ended while somebody waited for it."""


@dataclass(frozen=True, slots=True)
class Ping:
    """What a ping said about the path."""

    endpoint: str
    region: int
    seconds: float

    @property
    def direct(self) -> bool:
        """Whether the packet went straight to the peer."""
        return bool(self.endpoint)


class Node:
    """A running client program. Made by `Node.start`."""

    def __init__(self, name: str, directory: Path, process: asyncio.subprocess.Process) -> None:
        self.name = name
        self.directory = directory
        self.events: list[Event] = []
        self._process = process
        self._ids = itertools.count(1)
        self._waiting: dict[int, asyncio.Future[Any]] = {}
        self._news = asyncio.Condition()
        self._reader = asyncio.create_task(self._read(), name=f"node {name}")

    @classmethod
    async def start(
        cls,
        binary: Path,
        name: str,
        directory: Path,
        *,
        prefix: Sequence[str] = (),
        env: Mapping[str, str] | None = None,
    ) -> Node:
        """Start the program; it is not on a tailnet before `up`."""
        with _open_log(directory) as errors:
            process = await asyncio.create_subprocess_exec(
                *prefix,
                str(binary),
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=errors,
                limit=MAX_LINE_BYTES,
                env={
                    "PATH": os.environ.get("PATH", "/usr/sbin:/usr/bin"),
                    "HOME": str(directory),
                    # Nothing of a test leaves the machine.
                    "TS_NO_LOGS_NO_SUPPORT": "true",
                    **(env or {}),
                },
            )
        node = cls(name, directory, process)
        await node.event("ready")
        return node

    @property
    def pid(self) -> int:
        """The program's process."""
        return self._process.pid

    async def _read(self) -> None:
        assert self._process.stdout is not None
        while line := await self._process.stdout.readline():
            message = json.loads(line)
            waiting = self._waiting.pop(message.get("id", 0), None)
            if waiting is not None and not waiting.done():
                if "error" in message:
                    waiting.set_exception(NodeError(f"{self.name}: {message['error']}"))
                else:
                    waiting.set_result(message.get("result"))
            elif "event" in message:
                async with self._news:
                    self.events.append(message)
                    self._news.notify_all()
        for left in self._waiting.values():
            if not left.done():
                left.set_exception(NodeGone(f"{self.name}; its last words: {self._last_words()}"))

    def _last_words(self) -> str:
        """Give what the program wrote to its error stream: a crash leaves its stack there."""
        with suppress(OSError):
            text = (self.directory / "stderr.log").read_text(errors="replace")
            crash = max(text.rfind("\npanic: "), text.rfind("\nfatal error: "))
            return (
                text[crash : crash + LAST_WORDS_CHARS] if crash >= 0 else text[-LAST_WORDS_CHARS:]
            )
        return "none"

    async def call(
        self, command: str, *, timeout_s: float = CALL_TIMEOUT_S, **arguments: Any
    ) -> Any:
        """Send one command and wait for its answer. Raises NodeError, NodeGone, TimeoutError."""
        assert self._process.stdin is not None
        number = next(self._ids)
        future: asyncio.Future[Any] = asyncio.get_running_loop().create_future()
        self._waiting[number] = future
        request = {"id": number, "cmd": command, "timeout_s": timeout_s, **arguments}
        try:
            self._process.stdin.write(json.dumps(request).encode() + b"\n")
            await self._process.stdin.drain()
        except ConnectionError as error:
            raise NodeGone(self.name) from error
        # The program enforces the limit and says more about it; ours is only a backstop.
        async with asyncio.timeout(timeout_s + 5):
            return await future

    async def event(
        self,
        kind: str,
        matches: Callable[[Event], bool] = lambda _: True,
        *,
        since: float = 0.0,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Event:
        """Return the first event of this kind that matches, already seen or still to come."""
        looked = 0
        try:
            async with asyncio.timeout(timeout_s), self._news:
                while True:
                    for event in self.events[looked:]:
                        if event["event"] == kind and event["at"] >= since and matches(event):
                            return event
                    looked = len(self.events)
                    await self._news.wait()
        except TimeoutError:
            last = self.events[-8:]
            raise TimeoutError(
                f"{self.name}: no {kind!r} event in {timeout_s} s; last ones: {last}"
            ) from None

    async def up(self, url: str, auth_key: str = "", **arguments: Any) -> dict[str, Any]:
        """Join the tailnet and wait until the client runs; return its status."""
        arguments.setdefault("hostname", self.name)
        arguments.setdefault("dir", str(self.directory))
        status: dict[str, Any] = await self.call(
            "up", control_url=url, auth_key=auth_key, **arguments
        )
        return status

    async def status(self) -> dict[str, Any]:
        """The client's whole status, as `tailscale status --json` prints it."""
        status: dict[str, Any] = await self.call("status")
        return status

    async def addresses(self) -> tuple[str, str]:
        """The node's own tailnet addresses, IPv4 and IPv6."""
        v4, v6 = sorted((await self.status())["TailscaleIPs"], key=lambda ip: ":" in ip)
        return v4, v6

    async def node_key(self) -> str:
        """The node key that the netmap names for this node."""
        return str((await self.status())["Self"]["PublicKey"])

    async def sees(
        self,
        name: str,
        *,
        online: bool | None = True,
        key: str | None = None,
        since: float = 0.0,
        timeout_s: float = CALL_TIMEOUT_S,
    ) -> Event:
        """Wait until this node has a peer of that name in that condition."""

        def matches(event: Event) -> bool:
            peer = event["peer"]
            return (
                peer["name"].split(".")[0] == name
                and (online is None or peer["online"] is online)
                and (key is None or peer["key"] == key)
            )

        return await self.event("peer", matches, since=since, timeout_s=timeout_s)

    async def get(self, url: str, *, timeout_s: float = CALL_TIMEOUT_S) -> dict[str, Any]:
        """Fetch a page of another node's "http" listener: who that node thinks that we are."""
        answer = await self.call("http_get", url=url, timeout_s=timeout_s)
        assert answer["status"] == 200, answer
        body: dict[str, Any] = json.loads(answer["body"])
        return body

    async def ping(self, ip: str, kind: str = "disco", *, timeout_s: float = 20.0) -> Ping:
        """Ping a peer and say which way the packet took.

        A client sends one packet and waits; a peer that has not heard of us yet, or is not on its
        relay yet, drops it. So we ask again until the time is over.
        """
        ends = time.monotonic() + timeout_s
        while True:
            left = max(ends - time.monotonic(), 0.1)
            try:
                answer = await self.call("ping", ip=ip, type=kind, timeout_s=min(left, ONE_PING_S))
            except NodeError:
                if time.monotonic() >= ends:
                    raise
                continue
            if answer["Err"]:
                # "unknown peer": its engine learns of a peer after its status does.
                if time.monotonic() >= ends:
                    raise NodeError(f"{self.name}: ping {ip}: {answer['Err']}")
                await asyncio.sleep(PING_EVERY_S)
                continue
            return Ping(answer["Endpoint"], answer["DERPRegionID"], answer["LatencySeconds"])

    async def ping_until_direct(self, ip: str, *, timeout_s: float = CALL_TIMEOUT_S) -> Ping:
        """Ping until the path is direct, as `tailscale ping` does."""
        ends = time.monotonic() + timeout_s
        last: Ping | NodeError | None = None
        while time.monotonic() < ends:
            try:
                last = await self.ping(ip, timeout_s=ONE_PING_S)
            except NodeError as error:
                last = error
                continue
            if last.direct:
                return last
            await asyncio.sleep(PING_EVERY_S)
        raise TimeoutError(f"{self.name}: no direct path to {ip} in {timeout_s} s; last: {last}")

    async def stream_moves(self, name: str, *, timeout_s: float = CALL_TIMEOUT_S) -> None:
        """Wait until a running stream has brought back something new, and is whole."""
        first = await self.call("stream_stats", name=name)
        ends = time.monotonic() + timeout_s
        while time.monotonic() < ends:
            now = await self.call("stream_stats", name=name)
            if now["failure"]:
                raise NodeError(f"{self.name}: stream {name}: {now}")
            if now["received"] > first["received"] + STREAM_PROGRESS:
                return
            await asyncio.sleep(PING_EVERY_S)
        raise TimeoutError(f"{self.name}: stream {name} stands still: {now}")

    async def resolve(self, name: str, kind: str) -> list[str]:
        """Ask the client's MagicDNS resolver."""
        answer = await self.call("resolve", name=name, type=kind)
        return list(answer["answers"])

    async def log_tail(self, lines: int = 60) -> str:
        """The end of the client's own log."""
        return "\n".join(await self.call("logs", lines=lines))

    def kill(self) -> None:
        """Take the client away without a word to anybody."""
        self._process.kill()

    async def close(self) -> None:
        """End the program: politely, and if it does not listen, by its pid."""
        with suppress(NodeGone, NodeError, TimeoutError):
            await self.call("quit", timeout_s=5)
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
        await self._reader


def _open_log(directory: Path) -> BinaryIO:
    directory.mkdir(parents=True, exist_ok=True)
    return (directory / "stderr.log").open("ab")
