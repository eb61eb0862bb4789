"""An official derper on a host of its own, meshed with our relay and asking us whom to admit.

For: `test_relays.py`. Not for: building it (`build.derper_binary`).
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

from tests.interop.lab import Lab
from tests.interop.netns import SERVER_NAME

START_TIMEOUT_S = 15.0

FETCH = """
import ssl, sys, urllib.request
trust = ssl.create_default_context(cafile=sys.argv[2])
with urllib.request.urlopen(sys.argv[1], context=trust, timeout=5) as page:
    print(page.status)
    print(page.read().decode())
"""


class Derper:
    """The process, its host and its certificate, which the lab's authority signed."""

    def __init__(self, lab: Lab, binary: Path, mesh_key: Path) -> None:
        self.host = lab.net.host("derper")
        self.url = f"https://{self.host.v4}"
        self.log = lab.directory / "derper.log"
        directory = lab.directory / "derper"
        directory.mkdir()
        name = self.host.v4
        lab.authority.issue(directory / f"{name}.crt", directory / f"{name}.key", [name])
        self._authority = lab.authority.file
        self._process: asyncio.subprocess.Process | None = None
        self._command = [
            *self.host.prefix,
            str(binary),
            f"-a={name}:443",
            "-http-port=-1",
            "-stun=false",
            f"-c={directory / 'derper.json'}",
            "-certmode=manual",
            f"-certdir={directory}",
            f"-hostname={name}",
            f"-mesh-psk-file={mesh_key}",
            f"-mesh-with={SERVER_NAME}",
            f"-verify-client-url=https://{SERVER_NAME}/verify",
            "-verify-client-url-fail-open=false",
        ]

    async def start(self) -> None:
        """Start it and wait until it listens."""
        with self.log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                *self._command,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                env={
                    "PATH": os.environ["PATH"],
                    "SSL_CERT_FILE": str(self._authority),
                    "TS_ALLOW_DEBUG_IP": self.host.v4,  # lets us read its counters
                },
            )
        ends = time.monotonic() + START_TIMEOUT_S
        while not await self._page("/generate_204"):
            if self._process.returncode is not None or time.monotonic() > ends:
                raise RuntimeError(f"derper does not run:\n{self.log_tail()}")

    def log_tail(self) -> str:
        """The end of its log."""
        return self.log.read_text(errors="replace")[-4000:]

    async def counters(self) -> dict[str, Any]:
        """What it counts: connections, and packets by where they went."""
        body = await self._page("/debug/vars")
        counted: dict[str, Any] = json.loads(body.partition("\n")[2])["derp"]
        return counted

    async def _page(self, path: str) -> str:
        """Fetch one of its pages from its own host: the status, a newline, the body; or nothing."""
        process = await asyncio.create_subprocess_exec(
            *self.host.prefix,
            sys.executable,
            "-c",
            FETCH,
            f"{self.url}{path}",
            str(self._authority),
            stdout=asyncio.subprocess.PIPE,
            stderr=asyncio.subprocess.DEVNULL,
        )
        out, _ = await process.communicate()
        return out.decode() if process.returncode == 0 else ""

    async def stop(self) -> None:
        """End it."""
        if self._process is None:
            return
        with suppress(ProcessLookupError):
            self._process.terminate()
        try:
            async with asyncio.timeout(10):
                await self._process.wait()
        except TimeoutError:
            self._process.kill()
            await self._process.wait()
