"""The command line against a live API on a local socket, served by a thread."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web

from appliance.api import app
from appliance.cli.root import run
from appliance.serve import localsocket
from tests.api.conftest import House, open_house

T = TypeVar("T")


@dataclass
class Terminal:
    """Runs command lines and gives what they said."""

    socket: Path
    capture: pytest.CaptureFixture[str]
    inside: Callable[[Callable[[House], Awaitable[Any]]], Any]
    """Runs something on the server's loop."""

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Run one command line; give exit code, output and complaints."""
        self.capture.readouterr()
        code = run(["--socket", str(self.socket), *arguments])
        said = self.capture.readouterr()
        return code, said.out, said.err

    def ok(self, *arguments: str) -> str:
        """Run a command line that must succeed; give its output."""
        code, out, err = self(*arguments)
        assert code == 0, err
        return out

    def json(self, *arguments: str, compat: str = "0.30") -> Any:
        """Run a command line that must succeed; give its JSON."""
        return json.loads(self.ok(*arguments, "-o", "json", "--compat", compat))

    def fails(self, *arguments: str, code: int = 1) -> str:
        """Run a command line that must fail with ``code``; give its complaint."""
        got, out, err = self(*arguments)
        assert got == code, (got, out, err)
        return err


class _Thread:
    """A loop of its own with a house on a socket."""

    def __init__(self, socket: Path) -> None:
        self.socket = socket
        self.loop = asyncio.new_event_loop()
        self.house: House
        self._ready = threading.Event()
        self._stop = asyncio.Event()
        self._thread = threading.Thread(target=self._work, name="server")

    def _work(self) -> None:
        self.loop.run_until_complete(self._serve())
        self.loop.close()

    async def _serve(self) -> None:
        async with open_house(datetime.now(UTC)) as self.house:
            runner = web.AppRunner(app.build(self.house.door))
            await runner.setup()
            await web.SockSite(runner, localsocket.bind(self.socket, 0o600)).start()
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()

    def __enter__(self) -> _Thread:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def inside(self, work: Callable[[House], Awaitable[Any]]) -> Any:
        async def call() -> Any:
            return await work(self.house)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)


@pytest.fixture
def terminal(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Iterator[Terminal]:
    with _Thread(tmp_path / "s") as thread:
        yield Terminal(thread.socket, capsys, thread.inside)
