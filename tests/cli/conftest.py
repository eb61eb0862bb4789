"""The command line against a live API on a local socket, served by a thread."""

from __future__ import annotations

import asyncio
import json
import secrets
import threading
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeVar

import pytest
from aiohttp import web

from appliance.api import app, public
from appliance.api.gate import Gate
from appliance.cli.root import run
from appliance.identity.principals import LOCAL
from appliance.serve import localsocket
from appliance.tailnet import apikeys
from tests.api.conftest import House, open_house
from tests.support.builder import machine_key

T = TypeVar("T")


@dataclass
class Terminal:
    """Runs command lines and gives what they said."""

    socket: Path
    way: tuple[str, ...]
    """The options that name the server."""
    capture: pytest.CaptureFixture[str]
    inside: Callable[[Callable[[House], Awaitable[Any]]], Any]
    """Runs something on the server's loop."""

    def __call__(self, *arguments: str) -> tuple[int, str, str]:
        """Run one command line; give exit code, output and complaints."""
        self.capture.readouterr()
        code = run([*self.way, *arguments])
        said = self.capture.readouterr()
        return code, said.out, said.err

    @property
    def is_remote(self) -> bool:
        """Tell whether the server is reached over the network."""
        return "--url" in self.way

    @property
    def by(self) -> str:
        """Give how the audit log names whoever runs the commands."""
        if not self.is_remote:
            return "local:socket"
        return f"api-key:{Path(self.way[3]).read_text().split('-')[2]}"

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
        self.url = ""
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
            site = public.build(self.house.door, machine_key("the server"))
            app.add_remote(site, self.house.door, Gate(self.house.door))
            remote = web.AppRunner(site)
            await remote.setup()
            await web.TCPSite(remote, "127.0.0.1", 0).start()
            self.url = f"http://127.0.0.1:{remote.addresses[0][1]}"
            self._ready.set()
            await self._stop.wait()
            await runner.cleanup()
            await remote.cleanup()

    def __enter__(self) -> _Thread:
        self._thread.start()
        assert self._ready.wait(10)
        return self

    def __exit__(self, *_: object) -> None:
        self.loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(10)

    def key(self, path: Path) -> Path:
        """Make an API key that may do everything, and write it to a file."""

        async def make(house: House) -> str:
            # Of an id that no test counts on.
            async with house.live.edit(by=LOCAL, act="test.change") as edit:
                edit.ids.more["api_keys"] = 999
                _, text = apikeys.create(
                    edit, scopes=("all",), now=house.clock(), random_bytes=secrets.token_bytes
                )
                edit.ids.more["api_keys"] = 0
                return text

        path.touch(0o600)
        path.write_text(f"{self.inside(make)}\n")
        return path

    def inside(self, work: Callable[[House], Awaitable[Any]]) -> Any:
        async def call() -> Any:
            return await work(self.house)

        return asyncio.run_coroutine_threadsafe(call(), self.loop).result(10)


@pytest.fixture(params=["socket", "network"])
def terminal(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], request: pytest.FixtureRequest
) -> Iterator[Terminal]:
    """Run every test over the local socket, and over the network with an API key."""
    with _Thread(tmp_path / "s") as thread:
        way: tuple[str, ...] = ("--socket", str(thread.socket))
        if request.param == "network":
            way = ("--url", thread.url, "--api-key-file", str(thread.key(tmp_path / "key")))
        yield Terminal(thread.socket, way, capsys, thread.inside)
