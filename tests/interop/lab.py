"""A server, a network and any number of stock clients: what an interop test stands on.

For: one object per test module that starts things where they belong, hands out fresh names, and
takes everything away again. Not for: assertions.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Literal

from tests.interop import build, certificates
from tests.interop.netns import SERVER_NAME, SERVER_V4, SERVER_V6, Host, Net
from tests.interop.node import Node
from tests.interop.server import Server, ServerFailed

Place = Literal["public", "easy-nat", "hard-nat"]

HTTP_PORT = 80
ECHO_PORT = 7
USER = "interop"

Site = dict[str, Any]


def site(directory: Path, **changes: Any) -> Site:
    """The settings of a server on the lab's switch; `changes` replace whole sections."""
    return {
        "server_url": f"https://{SERVER_NAME}",
        "listen": [f"{SERVER_V4}:443", f"[{SERVER_V6}]:443"],
        "state_dir": str(directory / "state"),
        "socket": {"path": str(directory / "headwater.sock")},
        "tls": {
            "mode": "files",
            "cert_file": str(directory / "server.crt"),
            "key_file": str(directory / "server.key"),
        },
        "tailnet": {"base_domain": "tail.test"},
        # Without resolvers of its own, an older tsnet node answers no DNS at all: there is no
        # system configuration to read, and it gives up.
        "dns": {"override_local_dns": True, "nameservers": {"global": [SERVER_V4]}},
        "derp": {"server": relay_section()},
        "log": {"level": "debug"},
        **changes,
    }


def relay_section(**changes: Any) -> Site:
    """The settings of the relay inside the lab's server."""
    return {
        "ipv4": SERVER_V4,
        "ipv6": SERVER_V6,
        "stun_listen": [f"{SERVER_V4}:3478", f"[{SERVER_V6}]:3478"],
        **changes,
    }


class Lab:
    """Made by the `lab` fixtures; one per module."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.net = Net()
        self.authority = certificates.Authority(directory)
        self.nodes: list[Node] = []
        self.hosts: dict[str, Host] = {}
        self._server: Server | None = None
        self._names = itertools.count(1)
        self._key = ""

    @property
    def server(self) -> Server:
        """The lab's server; it runs unless a test took it away."""
        assert self._server is not None, "serve() was not called"
        return self._server

    async def serve(self, settings: Site | None = None) -> Server:
        """Start our server on the switch, with a certificate of the lab's authority."""
        settings = settings or site(self.directory)
        file = self._write(settings)
        self._server = Server.from_site(
            file, ca_file=self.authority.file, prefix=self.net.server_prefix
        )
        await self._server.start()
        await self._server.cli("users", "create", USER)
        return self._server

    def adopt(self, server: Server) -> None:
        """Take a server that was made otherwise, such as `headwater dev`, as the lab's."""
        self._server = server

    def _write(self, settings: Site) -> Path:
        """Write the site file, and the certificate that it names if there is none yet."""
        tls = settings["tls"]
        if tls["mode"] == "files" and not Path(tls["cert_file"]).exists():
            names = [SERVER_NAME, SERVER_V4, SERVER_V6]
            self.authority.issue(Path(tls["cert_file"]), Path(tls["key_file"]), names)
        file = self.directory / "site.json"
        file.write_text(json.dumps(settings, indent=2))
        return file

    async def auth_key(self, *flags: str) -> str:
        """Make a pre-auth key of the lab's user with Headscale's flags; plain ones are kept."""
        if not flags and self._key:
            return self._key
        made = await self.server.cli(
            "preauthkeys", "create", "-u", USER, *(flags or ("--reusable",))
        )
        key = str(made["key"])
        if not flags:
            self._key = key
        return key

    async def node(
        self,
        label: str,
        *,
        client: str = build.NEWEST,
        place: Place = "public",
        env: Mapping[str, str] | None = None,
    ) -> Node:
        """Start a client on a host of its own; it has not joined anything yet."""
        name = f"{label}{next(self._names)}"
        if place == "public":
            host = self.net.host(name)
        else:
            host = self.net.natted(name, hard=place == "hard-nat")
        node = await Node.start(
            build.node_binary(client),
            name,
            self.directory / name,
            prefix=host.prefix,
            env={"SSL_CERT_FILE": str(self.authority.file), **(env or {})},
        )
        self.nodes.append(node)
        self.hosts[name] = host
        return node

    async def join(
        self,
        label: str,
        *,
        client: str = build.NEWEST,
        place: Place = "public",
        key: str | None = None,
        env: Mapping[str, str] | None = None,
        block_udp: Literal["", "peers", "all"] = "",
        stun_at: Sequence[str] = (),
        **up: Any,
    ) -> Node:
        """Start a client and let it join; it then answers HTTP on port 80 and echoes on port 7."""
        node = await self.node(label, client=client, place=place, env=env)
        if block_udp:
            allowed = [SERVER_V4, SERVER_V6, *stun_at] if block_udp == "peers" else []
            self.host_of(node).block_udp(allowed)
        await self.enrol(node, key=key, **up)
        return node

    async def enrol(self, node: Node, *, key: str | None = None, **up: Any) -> None:
        """Let a started client join, with the lab's key unless told otherwise."""
        await node.up(self.server.address.url, key or await self.auth_key(), **up)
        await node.call("listen", port=HTTP_PORT, kind="http")
        await node.call("listen", port=ECHO_PORT, kind="echo")

    def host_of(self, node: Node) -> Host:
        """The machine that a node runs on."""
        return self.hosts[node.name]

    async def listed(self, node: Node) -> dict[str, Any]:
        """What `headwater nodes list` says about a node."""
        for row in await self.server.cli("nodes", "list"):
            if row["givenName"] == node.name:
                found: dict[str, Any] = row
                return found
        raise ServerFailed(f"no node {node.name} in `nodes list`")

    async def close(self) -> None:
        """End the clients, then the server, then the network."""
        try:
            await asyncio.gather(*(node.close() for node in self.nodes))
            if self._server is not None:
                await self._server.stop()
        finally:
            self.net.close()

    def last_words(self) -> str:
        """The last words of everybody, for the report of a failed test."""
        parts = [f"--- server\n{self.server.log_tail()}"] if self._server else []
        for node in self.nodes:
            file = node.directory / "node.log"
            lines = file.read_text(errors="replace").splitlines() if file.exists() else []
            parts.append(f"--- {node.name}\n" + "\n".join(lines[-40:]))
        return "\n".join(parts)
