"""The stock daemon, as people run it: tailscaled in userspace mode, and `tailscale up` beside it.

For: what only the whole client does, such as showing the link of a login. Not for: networks
(`netns.py`); it runs on loopback.
"""

from __future__ import annotations

import asyncio
import json
import os
import re
from asyncio.subprocess import DEVNULL, PIPE, STDOUT
from pathlib import Path
from typing import Any, Self

from tests.interop import build

MODULE = build.ROOT / "vm-tests" / "driver" / "stockclient"
START_S = 60.0
LINK_S = 60.0
_LINK = re.compile(r"https?://\S+/(?:register|a)/\S+")


class Daemon:
    """A running tailscaled with its own state."""

    def __init__(self, directory: Path, env: dict[str, str]) -> None:
        self._directory = directory
        self._env = {**os.environ, **env}
        self._binary = build.client_binary(MODULE)
        self._socket = directory / "tailscaled.sock"
        self._daemon: asyncio.subprocess.Process | None = None
        self._ups: list[asyncio.subprocess.Process] = []

    async def __aenter__(self) -> Self:
        self._directory.mkdir(parents=True, exist_ok=True)
        tool = self._directory / "tailscale"
        if not tool.exists():
            tool.symlink_to(self._binary)
        with (self._directory / "tailscaled.log").open("wb") as log:
            self._daemon = await asyncio.create_subprocess_exec(
                str(self._binary),
                "--tun=userspace-networking",
                "--port=0",
                "--no-logs-no-support",
                f"--statedir={self._directory / 'state'}",
                f"--socket={self._socket}",
                stdin=DEVNULL,
                stdout=log,
                stderr=STDOUT,
                env=self._env,
            )
        async with asyncio.timeout(START_S):
            while not self._socket.exists():
                assert self._daemon.returncode is None, self.log_tail()
                await asyncio.sleep(0.05)
        return self

    async def __aexit__(self, *_: object) -> None:
        for process in (*self._ups, self._daemon):
            if process is not None and process.returncode is None:
                process.kill()
                await process.wait()

    async def up(self, url: str, *flags: str) -> str:
        """Run `tailscale up` without a key; return the link that it shows. It waits on by itself."""
        process = await self._start("up", f"--login-server={url}", "--accept-dns=false", *flags)
        self._ups.append(process)
        said = ""
        assert process.stdout is not None
        async with asyncio.timeout(LINK_S):
            while True:
                line = (await process.stdout.readline()).decode()
                assert line, f"tailscale up ended: {said}\n{self.log_tail()}"
                said += line
                found = _LINK.search(line)
                if found:
                    return found[0]

    async def ended(self) -> int:
        """Wait until the last `tailscale up` ends; return its exit status."""
        async with asyncio.timeout(LINK_S):
            return await self._ups[-1].wait()

    async def run(self, *words: str) -> str:
        """Run a command of the client. Raises AssertionError with what it said if it fails."""
        process = await self._start(*words)
        async with asyncio.timeout(LINK_S):
            said, _ = await process.communicate()
        assert process.returncode == 0, f"{words}: {said.decode()}\n{self.log_tail()}"
        return said.decode()

    async def status(self) -> dict[str, Any]:
        """Return `tailscale status --json`."""
        found: dict[str, Any] = json.loads(await self.run("status", "--json"))
        return found

    async def until_state(self, state: str) -> dict[str, Any]:
        """Wait for a state of the client: Running, NeedsLogin, …"""
        async with asyncio.timeout(LINK_S):
            while True:
                found = await self.status()
                if found["BackendState"] == state:
                    return found
                await asyncio.sleep(0.1)

    def log_tail(self, lines: int = 40) -> str:
        """Return the end of the daemon's log."""
        text = (self._directory / "tailscaled.log").read_text(errors="replace")
        return "\n".join(text.splitlines()[-lines:])

    async def _start(self, *words: str) -> asyncio.subprocess.Process:
        return await asyncio.create_subprocess_exec(
            str(self._directory / "tailscale"),
            f"--socket={self._socket}",
            *words,
            stdin=DEVNULL,
            stdout=PIPE,
            stderr=STDOUT,
            env=self._env,
        )
