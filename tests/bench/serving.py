"""The server under test as a process of its own, and what it costs.

As a program it runs the nodes' door with the real parts over a directory that ``fill`` has made,
and prints one JSON line when it accepts clients. ``--sights distinct`` gives every node a
visibility class of its own, as a policy might.
"""

from __future__ import annotations

import argparse
import asyncio
import cProfile
import json
import os
import random
import secrets
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path

from appliance import config
from appliance import log as logs
from appliance.cli.serve import loop_factory
from appliance.identity.principals import SYSTEM
from appliance.live import LiveTailnet
from appliance.policy.engine.compile import Compiled, Sight
from appliance.records import Node, NodeID, User
from appliance.serve.server import Server
from appliance.store.store import Database
from appliance.tailnet import apikeys
from appliance.tailnet.keys import create_auth_key
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey, PrivateKey
from tests.bench import simclient
from tests.support.ports import free_port

READY_S = 60
STOP_S = 60
HIDDEN_PART = 0.05
"""What part of the tailnet a node does not see under distinct sights; another part for each."""


# ── before the server runs ───────────────────────────────────────────────────────────────────


@dataclass(frozen=True)
class Filled:
    """A directory with a database that a server can start from."""

    directory: Path
    auth_key: str
    machine_key: MachineKey
    api_keys: tuple[str, ...] = ()
    """Some, because each may ask only so often."""


API_KEYS = 20


def fill(directory: Path, nodes: int) -> Filled:
    """Make a database with that many simulated nodes, one user and one reusable auth key."""
    return asyncio.run(_fill(directory, nodes))


async def _fill(directory: Path, count: int) -> Filled:
    database = Database.open(f"sqlite:///{directory}/headwater.db")
    try:
        await database.migrate()
        now = datetime.now(UTC)
        ids = Sequences()
        tailnet = await database.create_tailnet(
            ids, name="default", domain="tail.example.net", created_at=now
        )
        edit = Edit(Snapshot(tailnet), ids)
        user = User(ids.next_user(), "alice", now)
        edit.put(user)
        _, text = create_auth_key(
            edit, user_id=user.id, reusable=True, now=now, random_bytes=secrets.token_bytes
        )
        api_keys = tuple(
            apikeys.create(edit, scopes=("all",), now=now, random_bytes=secrets.token_bytes)[1]
            for _ in range(API_KEYS)
        )
        for number in range(count):
            edit.put(_node(ids.next_node(), number, user, now))
        _, rows = edit.finish()
        await database.write(tailnet.id, [rows])
    finally:
        await database.close()
    key = PrivateKey.generate(secrets.token_bytes)
    path = directory / "noise.key"
    path.touch(mode=0o600)
    path.write_text(key.reveal_text() + "\n")
    return Filled(directory, text, MachineKey(key.public_raw), api_keys)


def _node(node_id: NodeID, number: int, user: User, now: datetime) -> Node:
    who = simclient.identity(number)
    return Node(
        id=node_id,
        stable_id=f"n{node_id}CNTRL",
        machine_key=MachineKey(who.machine.public_raw),
        node_key=who.node_key,
        name=f"sim{number}",
        hostname=f"sim{number}",
        created_at=now,
        user_id=user.id,
        disco_key=who.disco_key,
        ipv4=IPv4Address(0x64400001 + number),
        ipv6=IPv6Address((0xFD7A115CA1E0 << 80) + 1 + number),
        hostinfo=simclient.hostinfo(number),
        net_info=tailcfg.NetInfo(working_udp=True, preferred_derp=900, link_type="wired"),
        endpoints=simclient.endpoints(number),
        home_derp=900,
        capver=simclient.CAPVER,
    )


# ── while it runs ────────────────────────────────────────────────────────────────────────────


class Serving:
    """A running server process."""

    def __init__(self, process: subprocess.Popen[bytes], port: int, filled: Filled) -> None:
        self.process = process
        self.filled = filled
        self.port = port
        # Linux: the clock of another process's CPU time, all threads, also those that ended.
        self._clock = (~process.pid << 3) | 2

    @property
    def cpu_s(self) -> float:
        """CPU seconds so far, user and system."""
        return time.clock_gettime(self._clock)

    @property
    def resident_bytes(self) -> int:
        """Resident memory now."""
        pages = Path(f"/proc/{self.process.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def peak_bytes(self) -> int:
        """The most resident memory that there was."""
        lines = Path(f"/proc/{self.process.pid}/status").read_text().splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(kilobytes) * 1024

    def server(self, *, tls: bool = True) -> simclient.Server:
        """Say where simulated nodes find it."""
        context = simclient.tls_context() if tls else None
        return simclient.Server(self.port, self.filled.machine_key, context)

    def wait_idle(self, *, quiet_s: float = 0.5, limit_s: float = 60.0) -> None:
        """Wait until the server has nothing to do."""
        deadline = time.monotonic() + limit_s
        before = self.cpu_s
        while time.monotonic() < deadline:
            time.sleep(quiet_s)
            now = self.cpu_s
            if now - before < 0.02 * quiet_s + 0.003:
                return
            before = now


@contextmanager
def serve(
    filled: Filled, *, http2: str = "h2", sights: str = "open", tls: bool = True
) -> Iterator[Serving]:
    """Run the server as a process; stop it at the end."""
    command = [sys.executable, "-m", "tests.bench.serving", str(filled.directory)]
    command += ["--port", str(free_port()), "--http2", http2, "--sights", sights]
    command += ["--tls"] if tls else []
    with subprocess.Popen(command, stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        try:
            line = process.stdout.readline()
            if not line:
                raise RuntimeError("the server did not start")
            yield Serving(process, json.loads(line)["port"], filled)
        finally:
            process.send_signal(signal.SIGTERM)
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()


# ── the process itself ───────────────────────────────────────────────────────────────────────


async def install_distinct_sights(live: LiveTailnet) -> None:
    """Give every node a visibility class of its own, each hiding other nodes."""
    everyone = list(live.snapshot.nodes)
    rng = random.Random(5)
    hidden = max(1, int(len(everyone) * HIDDEN_PART))
    sights = {
        node_id: Sight(frozenset(everyone) - frozenset(rng.sample(everyone, hidden)))
        for node_id in everyone
    }
    async with live.edit(by=SYSTEM, act="test.change") as edit:
        edit.set_compiled(Compiled(sights=sights))


async def _run(options: argparse.Namespace) -> None:
    settings = config.build(
        {
            "server_url": f"{'https' if options.tls else 'http'}://127.0.0.1:{options.port}",
            "listen": [f"127.0.0.1:{options.port}"],
            "state_dir": str(options.directory),
            "socket": {"path": str(options.directory / "s"), "mode": "0600"},
            "tls": {"mode": "local_ca" if options.tls else "off"},
            "tailnet": {"base_domain": "tail.example.net"},
            "derp": {"server": {"stun_listen": [f"127.0.0.1:{options.port}"], "ipv4": "127.0.0.1"}},
            "http2": options.http2,
        },
        source="tests.bench",
    )
    logs.set_up("warning", "text")
    server = Server(settings)
    server.handle_signals()

    async def started() -> None:
        if options.sights == "distinct":
            await install_distinct_sights(server.tailnets.default)
        print(json.dumps({"port": server.listeners[0].port}), flush=True)

    await server.run(started)


def main() -> None:
    """Run the server until SIGTERM; ``HEADWATER_PROFILE=FILE`` keeps a profile of it."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--http2", default="h2")
    parser.add_argument("--sights", default="open")
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    profile = cProfile.Profile(time.thread_time)  # of the event loop; the machine may be busy
    target = os.environ.get("HEADWATER_PROFILE")
    if target:
        profile.enable()
    with asyncio.Runner(loop_factory=loop_factory("auto")) as runner:
        runner.run(_run(options))
    if target:
        profile.dump_stats(target)


if __name__ == "__main__":
    main()
