"""The server under test as a process of its own, and what it costs.

As a program it runs the nodes' door with the real parts over a directory that ``fill`` has made,
and prints one JSON line when it accepts clients. ``--sights distinct`` gives every node a
visibility class of its own, as a policy might.
"""

from __future__ import annotations

import argparse
import asyncio
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

from appliance.identity.principals import SYSTEM
from appliance.live import LiveTailnet
from appliance.policy.compile import Compiled, Sight
from appliance.records import Node, NodeID, TailnetID, User
from appliance.store.store import Database
from appliance.tailnet.keys import create_auth_key
from appliance.tailnet.snapshot import Edit, Rows, Sequences, Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey, PrivateKey
from tests.bench import simclient

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
    return Filled(directory, text, MachineKey(key.public_raw))


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
def serve(filled: Filled, *, http2: str = "h2", sights: str = "open", tls: bool = True) -> Iterator[Serving]:
    """Run the server as a process; stop it at the end."""
    command = [sys.executable, "-m", "tests.bench.serving", str(filled.directory)]
    command += ["--http2", http2, "--sights", sights, *(("--tls",) if tls else ())]
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
    async with live.edit(by=SYSTEM) as edit:
        edit.set_compiled(Compiled(sights=sights))

def main() -> None:
    """Run the server until SIGTERM."""
    parser = argparse.ArgumentParser()
    parser.add_argument("directory", type=Path)
    parser.add_argument("--http2", default="h2")
    parser.add_argument("--sights", default="open")
    parser.add_argument("--tls", action="store_true")
    options = parser.parse_args()
    import uvloop
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(stub(options))

async def stub(options):
    import gc
    from appliance.control.http2 import engine
    from appliance.control.machine import MachineDoor
    from appliance.control.mapsession import MapSessions
    from appliance.control.ts2021 import Ts2021
    from appliance.front.dispatch import Front
    from appliance.front.stream import listen
    from appliance.live import LiveTailnets
    from appliance.netmap.encoded import Encoder
    from tests.support.certificates import server_context
    d=options.directory
    db=Database.open(f"sqlite:///{d}/headwater.db"); await db.migrate()
    snaps,ids=await db.load()
    gc.collect(); gc.freeze()
    lives=[LiveTailnet(s,db,ids) for s in snaps]; ts=LiveTailnets(lives)
    encs={l.id:Encoder() for l in lives}
    sess={l.id:MapSessions(l,encs[l.id],clock=time.monotonic,jitter=random.random) for l in lives}
    door=MachineDoor(ts,sess,encs,rng=random.SystemRandom())
    key=PrivateKey.parse((d/"noise.key").read_text())
    t=Ts2021(key,door.handle,http2=engine(options.http2),is_known=lambda k: ts.find_machine(k) is not None)
    front=Front({"/ts2021":t.open})
    ctx=server_context() if options.tls else None
    l=await listen(front.sink,"127.0.0.1",0,tls=(lambda: ctx) if ctx else None)
    stop=asyncio.Event(); asyncio.get_running_loop().add_signal_handler(signal.SIGTERM,stop.set)
    tasks=[asyncio.create_task(x) for x in (ts.run(),t.run(),*(s.run() for s in sess.values()))]
    await asyncio.sleep(0)
    if options.sights=="distinct": await install_distinct_sights(lives[0])
    print(json.dumps({"port":l.port}),flush=True)
    prof=None
    if os.environ.get("HW_PROFILE"):
        import cProfile
        prof=cProfile.Profile(); prof.enable()
    await stop.wait()
    if prof: prof.disable(); prof.dump_stats(os.environ["HW_PROFILE"])
    print(sess[lives[0].id].counters, t.counters.closed, file=sys.stderr)
    os._exit(0)

if __name__ == "__main__":
    main()
