"""A small internet with one host for containers and hosts for stock clients around it.

For: the examples as they are printed, with the addresses of this internet and certificates of an
authority of its own put in. Not for assertions.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import shutil
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.images.sandbox import Engine, Sandbox
from tests.interop import build
from tests.interop.certificates import Authority
from tests.interop.netns import Host, Net
from tests.interop.node import Node

ROOT = Path(__file__).resolve().parents[2]
EXAMPLES = ROOT / "examples"

NAME = "hw.example.com"
"""The server's name in README and examples."""
EXAMPLE_V4 = "198.51.100.7"
"""The machine's address there."""
USER_IN_IMAGE = 65532
HTTP_PORT = 80

WELL_S = 60
"""A container that is started on a busy machine."""


class Town:
    """Made by the fixture `town`; one per module."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.net = Net()
        self.box = self.net.host("box")
        self.sandbox = Sandbox(self.box)
        self.root = Engine(self.sandbox)
        self.engines = [self.root]
        self.authority = Authority(directory)
        self.trusted = directory / "trusted.pem"
        self.trust(self.authority.file.read_text())
        self.nodes: list[Node] = []
        self.hosts: dict[str, Host] = {}
        self._numbers = itertools.count(1)

    def trust(self, pem: str) -> None:
        """Let clients that are started from now on trust one more authority."""
        with self.trusted.open("a") as file:
            file.write(pem)

    # What runs in containers

    def rootless(self) -> Engine:
        """Make the engine of a user, which has storage of its own."""
        made = Engine(self.sandbox, rootless=True)
        self.engines.append(made)
        return made

    def folder(self, name: str) -> Path:
        """Make a folder that the engines may read."""
        made = self.sandbox.folder / name
        made.mkdir()
        return made

    def example(self, name: str) -> Path:
        """Copy a compose example; the machine's address in it becomes that of our host."""
        copy = self.sandbox.folder / name
        shutil.copytree(EXAMPLES / "compose" / name, copy)
        self.change(copy, EXAMPLE_V4, self.box.v4)
        return copy

    @staticmethod
    def change(folder: Path, printed: str, ours: str) -> None:
        """Put something else into an example's site file, which has it once."""
        site = folder / "headwater" / "config.yaml"
        text = site.read_text()
        assert text.count(printed) == 1, printed
        site.write_text(text.replace(printed, ours))

    def certificate(self, folder: Path, *, owner: int = USER_IN_IMAGE) -> None:
        """Put a certificate for the server's name into a folder, as people would."""
        folder.mkdir(exist_ok=True)
        key = folder / "key.pem"
        self.authority.issue(folder / "fullchain.pem", key, [NAME])
        key.chmod(0o400)
        shutil.chown(key, owner, owner)

    def compose(self, folder: Path, *words: str) -> str:
        """Run podman-compose on an example."""
        program = str(Path(sys.executable).with_name("podman-compose"))
        return self.root.run(program, *words, cwd=folder).stdout

    # Clients

    async def client(self, label: str) -> Node:
        """Start a stock client on a host of its own."""
        name = f"{label}{next(self._numbers)}"
        host = self.net.host(name)
        host.knows(NAME, self.box.v4)
        self.hosts[name] = host
        node = await Node.start(
            build.node_binary(build.NEWEST),
            name,
            self.directory / name,
            prefix=host.prefix,
            env={"SSL_CERT_FILE": str(self.trusted)},
        )
        self.nodes.append(node)
        return node

    async def join(self, label: str, url: str, key: str) -> Node:
        """Start a client and let it join; it then answers HTTP."""
        node = await self.client(label)
        await node.up(url, key)
        await node.call("listen", port=HTTP_PORT, kind="http")
        return node

    def asked(self, *command: str) -> str:
        """Run a command on a host that is no client, as a stranger's machine."""
        host = self.net.host(f"stranger{next(self._numbers)}")
        host.knows(NAME, self.box.v4)
        done = subprocess.run(
            [*host.prefix, *command], capture_output=True, text=True, timeout=60, check=True
        )
        return done.stdout

    async def close(self) -> None:
        """End the clients, the containers, the network."""
        try:
            await asyncio.gather(*(node.close() for node in self.nodes))
        finally:
            for engine in self.engines:
                engine.close()
            self.sandbox.close()
            self.net.close()

    def last_words(self) -> str:
        """The last words of all containers and clients."""
        parts = []
        for engine in self.engines:
            for name in engine.tried("ps", "--all", "--format", "{{.Names}}").stdout.split():
                said = engine.tried("logs", "--tail", "60", name)
                parts.append(f"--- {name}\n{said.stdout}{said.stderr}")
        for node in self.nodes:
            file = node.directory / "node.log"
            lines = file.read_text(errors="replace").splitlines() if file.exists() else []
            parts.append(f"--- {node.name}\n" + "\n".join(lines[-40:]))
        return "\n".join(parts)


class Served:
    """A server in a container, asked through its own command line."""

    def __init__(self, engine: Engine, name: str) -> None:
        self.engine = engine
        self.name = name

    def cli(self, *words: str) -> Any:
        """Run one command of the command line in the container; give its JSON answer."""
        inside = ("headwater", *words, "-o", "json", "--compat", "0.30")
        printed = self.engine.podman("exec", self.name, *inside)
        return json.loads(printed) if printed else None

    def inside(self, script: str) -> subprocess.CompletedProcess[str]:
        """Run a script in the container, as the server's user."""
        return self.engine.tried("exec", self.name, "sh", "-c", script)

    async def well(self) -> None:
        """Wait until the engine's own health check says so."""
        async with asyncio.timeout(WELL_S):
            while self.engine.tried("healthcheck", "run", self.name).returncode:
                await asyncio.sleep(0.2)

    def key(self) -> str:
        """Make a user, if there is none, and a reusable pre-auth key."""
        if not self.cli("users", "list"):
            self.cli("users", "create", "alice")
        made = self.cli("preauthkeys", "create", "-u", "alice", "--reusable")
        return str(made["key"])

    def log(self) -> str:
        """All that the container has said since it was made."""
        said = self.engine.tried("logs", self.name)
        return said.stdout + said.stderr

    async def said(self, words: str, since: str = "") -> str:
        """Wait for a line of the log, behind the part that was read before; the newest one."""
        async with asyncio.timeout(WELL_S):
            while True:
                lines = self.log().removeprefix(since).splitlines()
                if found := [each for each in lines if words in each]:
                    return found[-1]
                await asyncio.sleep(0.2)

    def field(self, form: str) -> str:
        """Ask the engine about the container."""
        return self.engine.podman("inspect", self.name, "--format", form)
