"""Build and drive ``derptool``, our small program on the official Go packages of DERP.

For live tests of the relay and its benchmark. The binaries lie in the cache of the interop tests,
named by a hash of what goes into them. ``python -m tests.relay.gotool vectors`` runs it by hand.
"""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.interop import build

SOURCES = Path(__file__).parent / "go"
NEWEST = "1.104"
PINNED = "1.102"
"""The release that the interop tests call newest; its Go release is easier to get."""

# On older releases the calls that the other files use are missing.
FILES = {
    NEWEST: ("main.go", "serve.go", "load.go", "client.go", "vectors.go", "recorded.go"),
    PINNED: ("main.go", "serve.go", "load.go"),
}


def binary(release: str = NEWEST) -> Path:
    """Build the tool on this release, or find it in the cache. Raises build.Unavailable."""
    module = SOURCES / "releases" / release
    sources = [SOURCES / name for name in FILES[release]]
    sources += [module / "go.mod", module / "go.sum"]
    target = build.CACHE / f"derptool-{release}-{build._fingerprint(sources, build.TAGS)}"
    if not target.exists():
        build.CACHE.mkdir(parents=True, exist_ok=True)
        with (build.CACHE / "derptool.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            if not target.exists():
                _build(target, sources)
    return target


def _build(target: Path, sources: list[Path]) -> None:
    go = build.find_go((1, 27, 3), fetch="1.27.3")
    folder = target.with_suffix(".src")
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for source in sources:
        shutil.copy(source, folder)
    listed = build._go(go, folder, "list", "-deps", "-tags", build.TAGS, ".")
    if listed.returncode:
        raise build.Unavailable(f"modules for {target.name}: {listed.stderr.strip()[-200:]}")
    fresh = target.with_suffix(".new")
    done = build._go(
        go,
        folder,
        "build",
        "-trimpath",
        "-buildvcs=false",
        "-tags",
        build.TAGS,
        "-o",
        str(fresh),
        ".",
    )
    if done.returncode:
        raise build.BuildFailed(f"derptool:\n{done.stderr}")
    fresh.rename(target)
    shutil.rmtree(folder)


class Tool:
    """One running derptool that speaks in lines."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self.process = process

    @classmethod
    async def start(cls, *arguments: str, env: dict[str, str] | None = None) -> Tool:
        """Start the newest tool with these arguments."""
        process = await asyncio.create_subprocess_exec(
            binary(),
            *arguments,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            limit=1 << 22,
            env={**os.environ, **(env or {})},
        )
        return cls(process)

    async def line(self) -> str:
        """Read one line; ConnectionError when the tool has ended."""
        assert self.process.stdout is not None
        async with asyncio.timeout(20):
            data = await self.process.stdout.readline()
        if not data:
            raise ConnectionError("derptool has ended")
        return data.decode().strip()

    async def event(self, *names: str) -> dict[str, Any]:
        """Read lines of JSON until one of these events comes."""
        while True:
            found: dict[str, Any] = json.loads(await self.line())
            if found["event"] in names:
                return found
            if found["event"] in ("failed", "error", "lost"):
                raise ConnectionError(str(found))

    def say(self, command: str) -> None:
        """Give a command."""
        assert self.process.stdin is not None
        self.process.stdin.write(command.encode() + b"\n")

    async def stop(self) -> None:
        """End it."""
        assert self.process.stdin is not None
        self.process.stdin.close()
        try:
            async with asyncio.timeout(5):
                await self.process.wait()
        except TimeoutError:
            self.process.kill()
            await self.process.wait()


def main() -> None:
    """Run the tool with the arguments of the command line."""
    os.execv(binary(), [str(binary()), *sys.argv[1:]])  # noqa: S606  # it is our own


if __name__ == "__main__":
    main()
