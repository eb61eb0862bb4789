"""Our server under test, as a program of its own: started, asked, killed, started again.

For: `headwater dev` and `headwater serve` where a test wants them, in a namespace or on loopback,
and the command line against their socket. Not for: clients (`node.py`).
"""

from __future__ import annotations

import asyncio
import json
import os
import signal
import sys
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO

ROOT = Path(__file__).resolve().parent.parent.parent

# The server promises 3 s; a machine that also compiles and runs six clients is given more.
START_TIMEOUT_S = 30.0
STOP_TIMEOUT_S = 15.0
POLL_S = 0.02


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
        cls, directory: Path, file: Path, *, url: str, ca_file: str, prefix: Sequence[str] = ()
    ) -> Server:
        """A server that is told everything by a site file; `url` and `ca_file` are for clients."""
        settings = json.loads(file.read_text())
        address = Address(url, ca_file, "", settings["socket"]["path"], settings["state_dir"], 0)
        # It trusts whom its clients trust: for its own calls, such as those to meshed relays.
        env = {"SSL_CERT_FILE": ca_file}
        return cls(directory, ["serve", "-c", str(file)], prefix=prefix, address=address, env=env)

    @property
    def address(self) -> Address:
        """Where the running server is. Ask only after `start`."""
        assert self._address is not None, "the server was not started"
        return self._address

    async def start(self) -> Address:
        """Start the program and wait until it accepts clients."""
        assert self._process is None, "the server runs already"
        began = time.monotonic()
        with _open_log(self.log) as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._prefix,
                *command(),
                *self._arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE if self._says_address else log,
                stderr=log,
                cwd=ROOT,
                env={**os.environ, **self._env},
            )
        try:
            async with asyncio.timeout(START_TIMEOUT_S):
                if self._says_address:
                    self._address = await self._first_line()
                else:
                    await self._socket_answers()
        except (TimeoutError, ServerFailed):
            await self._end(signal.SIGKILL)
            words = f"the server did not start; its log ends:\n{self.log_tail()}"
            raise ServerFailed(words) from None
        self.start_seconds = time.monotonic() - began
        return self.address

    async def _first_line(self) -> Address:
        """`headwater dev` prints one line when it accepts clients."""
        assert self._process is not None
        assert self._process.stdout is not None
        line = await self._process.stdout.readline()
        if not line:
            raise ServerFailed
        return _address(json.loads(line))

    async def _socket_answers(self) -> None:
        """`headwater serve` opens the local socket last: when it answers, the doors are open."""
        while True:
            assert self._process is not None
            if self._process.returncode is not None:
                raise ServerFailed
            try:
                _, writer = await asyncio.open_unix_connection(self.address.socket)
            except OSError:
                await asyncio.sleep(POLL_S)
                continue
            writer.close()
            return

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
        process = await asyncio.create_subprocess_exec(
            *command(),
            "--socket",
            self.address.socket,
            *arguments,
            "-o",
            "json",
            stdin=asyncio.subprocess.DEVNULL,
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.PIPE,
            cwd=ROOT,
        )
        async with asyncio.timeout(START_TIMEOUT_S):
            out, err = await process.communicate()
        if process.returncode:
            raise ServerFailed(f"{' '.join(arguments)}: {err.decode(errors='replace').strip()}")
        return json.loads(out) if out.strip() else None


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
