"""Our server under test, as a program of its own: started, asked, killed, started again.

For: `headwater dev` and `headwater serve` where a test wants them, in a namespace or on loopback,
and the command line against their socket. Not for: clients (`node.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import socket
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parent.parent.parent

# The server promises 3 s; a machine that also compiles and runs six clients is given more.
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0


@dataclass(frozen=True, slots=True)
class Address:
    """What `headwater dev -o json` says once it accepts clients."""

    url: str
    ca_file: str
    auth_key: str
    socket: str
    state_dir: str
    pid: int


class ServerFailed(Exception):
    """The server did not start, or a command was refused; the text has its last words."""


class Server:
    """A server process and what is needed to start it again in the same place."""

    def __init__(
        self,
        directory: Path,
        arguments: Sequence[str],
        *,
        prefix: Sequence[str] = (),
        address: Address | None = None,
        env: Mapping[str, str] | None = None,
    ) -> None:
        self.directory = directory
        self.log = directory / "server.log"
        self.start_seconds = 0.0
        self._arguments = list(arguments)
        self._prefix = list(prefix)
        self._process: asyncio.subprocess.Process | None = None
        self._env = {"PYTHONUNBUFFERED": "1", **(env or {})}
        self._address = address
        self._says_address = address is None

    @classmethod
    def from_site(
        cls,
        file: Path,
        *,
        ca_file: Path,
        verb: str = "serve",
        prefix: Sequence[str] = (),
    ) -> Server:
        """A server or relay that is told everything by a site file, logging beside that."""
        settings = json.loads(file.read_text())
        address = Address(
            url=settings["server_url"],
            ca_file=str(ca_file),
            auth_key="",
            socket=settings.get("socket", {}).get("path", ""),
            state_dir=settings["state_dir"],
            pid=0,
        )
        # It trusts whom its clients trust: for its own calls, such as those to meshed relays.
        env = {"SSL_CERT_FILE": str(ca_file)}
        arguments = [verb, "-c", str(file)]
        return cls(file.parent, arguments, prefix=prefix, address=address, env=env)

    @property
    def address(self) -> Address:
        """Where the running server is. Ask only after `start`."""
        assert self._address is not None, "the server was not started"
        return self._address

    async def start(self) -> Address:
        """Start the program and wait until it accepts clients."""
        assert self._process is None, "the server runs already"
        began = time.monotonic()
        with _open_log(self.log) as log, _notify_socket(self.directory / "notify") as notify:
            self._process = await asyncio.create_subprocess_exec(
                *self._prefix,
                *command(),
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if self._says_address else log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **self._env, "NOTIFY_SOCKET": notify.getsockname()},
            )
            ready = self._first_line() if self._says_address else self._notified(notify)
            try:
                async with asyncio.timeout(START_TIMEOUT_S):
                    await ready
            except (TimeoutError, ServerFailed):
                await self._end(signal.SIGKILL)
                words = f"the server did not start; its log ends:\n{self.log_tail()}"
                raise ServerFailed(words) from None
        self.start_seconds = time.monotonic() - began
        return self.address

    async def _first_line(self) -> None:
        """`headwater dev` prints one line when it accepts clients."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise ServerFailed
        self._address = _address(json.loads(line))

    async def _notified(self, notify: socket.socket) -> None:
        """`headwater serve` and `relay` say when they are ready as systemd wants it said."""
        assert self._process is not None
        loop = asyncio.get_running_loop()
        ended = asyncio.create_task(self._process.wait(), name="end of the server")
        try:
            while True:
                told = asyncio.create_task(loop.sock_recv(notify, 4096), name="readiness")
                await asyncio.wait({ended, told}, return_when=asyncio.FIRST_COMPLETED)
                if not told.done():
                    told.cancel()
                    raise ServerFailed
                if b"READY=1" in told.result().splitlines():
                    return
        finally:
            ended.cancel()

    async def stop(self) -> None:
        """Ask the server to stop, as systemd does."""
        await self._end(signal.SIGTERM)

    async def kill(self) -> None:
        """Take the server away without a word."""
        await self._end(signal.SIGKILL)

    async def _end(self, how: signal.Signals) -> None:
        process, self._process = self._process, None
        if process is None:
            return
        with suppress(ProcessLookupError):
            process.send_signal(how)
        try:
            async with asyncio.timeout(STOP_TIMEOUT_S):
                await process.wait()
        except TimeoutError:
            process.kill()
            await process.wait()
            raise ServerFailed(
                f"the server did not stop in {STOP_TIMEOUT_S} s:\n{self.log_tail()}"
            ) from None

    def log_tail(self, lines: int = 60) -> str:
        """The end of the server's log."""
        if not self.log.exists():
            return ""
        return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])

    async def cli(self, *arguments: str) -> Any:
        """Run one command of the command line against this server; return its JSON answer."""
        out = await self.said(*arguments, "-o", "json", "--compat", "0.30")
        return json.loads(out) if out.strip() else None

    async def said(self, *arguments: str) -> str:
        """Run one command of the command line against this server; return what it printed."""
        process = await asyncio.create_subprocess_exec(
            *command(),
            "--socket",
            self.address.socket,
            *arguments,
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        async with asyncio.timeout(START_TIMEOUT_S):
            out, err = await process.communicate()
        if process.returncode:
            raise ServerFailed(f"{' '.join(arguments)}: {err.decode(errors='replace').strip()}")
        return out.decode()


def command() -> list[str]:
    """The server program of this checkout."""
    return [sys.executable, "-m", "appliance"]


def _address(fields: dict[str, Any]) -> Address:
    known = {
        name: fields.get(name) or ""
        for name in ("url", "ca_file", "auth_key", "socket", "state_dir")
    }
    return Address(**known, pid=int(fields["pid"]))


def _open_log(path: Path) -> BinaryIO:
    path.parent.mkdir(parents=True, exist_ok=True)
    return path.open("ab")


@contextmanager
def _notify_socket(path: Path) -> Iterator[socket.socket]:
    path.unlink(missing_ok=True)
    with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as made:
        made.bind(str(path))
        made.setblocking(False)
        yield made
