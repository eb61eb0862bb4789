"""Many sessions under random edits: in the end everybody knows what is true.

Real connections on the loopback address, the real door, simulated nodes; some of them lose their
connections, some read slowly, some are older clients, some want no compression. Used as a test
(``tests.control.test_converge``) and by hand with more nodes: ``python -m tests.bench converge``.
"""

from __future__ import annotations

import asyncio
import random
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from random import Random

from appliance import netmap
from appliance.control.http2 import engine
from appliance.control.machine import MachineDoor
from appliance.control.mapsession import MapSessions
from appliance.control.ts2021 import Ts2021
from appliance.front.dispatch import Front
from appliance.front.stream import listen
from appliance.identity.principals import SYSTEM
from appliance.identity.sshchecks import SSHChecks
from appliance.live import LiveTailnet, LiveTailnets
from appliance.netmap import gone
from appliance.netmap.encoded import Encoder
from appliance.records import NodeID
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey, PrivateKey
from tests.bench.simclient import Identity, Server, SimulatedNode, identity
from tests.bench.table import Figure
from tests.control.tailnets import MemoryStore
from tests.netmap.tailnets import CAPVERS, CHANGES, WEIGHTS, add_user, empty_tailnet, make_node
from tests.support import fakeclient
from tests.support.waitinglogins import logins_of

OLDEST = 113
DISTRUSTFUL = range(138, 145)
"""Versions that overlook a patch with a disco key of a node that is offline (1.98 to 1.102)."""
SETTLE_S = 30.0
MAX_PAUSED = 12


class Client:
    """A simulated node and what the stock client would know from the messages it got."""

    def __init__(self, server: Server, node_id: NodeID, who: Identity, rng: Random) -> None:
        self.node_id = node_id
        self._keys = who.node_key, MachineKey(who.machine.public_raw)
        self.capver = rng.choice([capver for capver in CAPVERS if capver >= OLDEST])
        self.state = fakeclient.ClientState()
        self.node = SimulatedNode(
            server,
            who,
            watch=False,
            on_message=self._take,
            capver=self.capver,
            compress=rng.choice(("zstd", "zstd", "zstd", "")),
        )

    async def join(self) -> None:
        """Begin a session, knowing nothing. A node that was removed meanwhile hears just that."""
        self.state = fakeclient.ClientState()
        try:
            await self.node.connect()
            await self.node.poll()
        except OSError:
            self.node.drop()

    def must_ask(self, snapshot: Snapshot) -> bool:
        """Tell whether it has no session, or was told that its node is gone, which came back."""
        if self._is_told_gone() and self._has_node(snapshot):
            self.node.drop()
        return not self.node.is_connected

    def _is_told_gone(self) -> bool:
        return self.state.node is not None and self.state.node.key_expiry == gone.ENDED_AT

    def _has_node(self, snapshot: Snapshot) -> bool:
        node = snapshot.nodes.get(self.node_id)
        return node is not None and (node.node_key, node.machine_key) == self._keys

    def _take(self, text: bytes) -> None:
        self.state = self._told(self.state, tailcfg.decode_map_response(text))

    def _told(
        self, state: fakeclient.ClientState, message: tailcfg.MapResponse
    ) -> fakeclient.ClientState:
        distrusts = self.capver in DISTRUSTFUL
        return fakeclient.apply(state, message, distrusts_old_disco=distrusts)

    def knows(self, snapshot: Snapshot) -> bool:
        """Tell whether the client knows exactly what this snapshot has to say to it.

        That is a node of its own that has expired, if no node holds its key (any more).
        """
        if self._is_told_gone() or self.node_id not in snapshot.nodes:
            return self._is_told_gone() and not self._has_node(snapshot)
        whole = netmap.full(snapshot, self.node_id, self.capver)
        return self.state.netmap() == self._told(fakeclient.ClientState(), whole).netmap()


@dataclass(frozen=True)
class Outcome:
    """What came of it."""

    sessions: int
    versions: int
    messages: int
    wrong: tuple[NodeID, ...]
    settled_after_s: float


async def converge(nodes: int, edits: int, seed: int, *, http2: str = "h2") -> Outcome:
    """Let so many nodes live through so many edits; say who does not know the truth after all."""
    rng = Random(seed)
    ids = Sequences()
    live = LiveTailnet(_tailnet(rng, nodes, ids), MemoryStore(), ids)
    async with _serve(live, http2) as (server, sessions):
        clients = [
            Client(server, NodeID(number), identity(number), rng) for number in range(1, nodes + 1)
        ]
        await _all(clients)
        first = live.snapshot.version
        for _ in range(edits):
            async with live.edit(by=SYSTEM, act="test.change") as edit:
                change = rng.choices(CHANGES, WEIGHTS)[0]
                change(rng, edit)
            await _weather(rng, clients)
        for client in clients:
            client.node.pause(paused=False)
        await _all([client for client in clients if client.must_ask(live.snapshot)])
        began = time.monotonic()
        wrong = await _settle(live, sessions, clients)
        return Outcome(
            sessions=len(sessions),
            versions=live.snapshot.version - first,
            messages=_messages(clients),
            wrong=tuple(client.node_id for client in wrong),
            settled_after_s=time.monotonic() - began,
        )


async def _settle(live: LiveTailnet, sessions: MapSessions, clients: list[Client]) -> list[Client]:
    """Wait until the sessions have sent what is newest; give the clients that know otherwise."""
    deadline = time.monotonic() + SETTLE_S
    while True:
        await asyncio.sleep(0.2)
        snapshot, heard = live.snapshot, _messages(clients)
        open_ones = list(sessions._sessions.values())
        late = [session for session in open_ones if session.seen is not snapshot]
        await asyncio.sleep(0.2)
        is_still = snapshot is live.snapshot and heard == _messages(clients)
        if (is_still and not late) or time.monotonic() > deadline:
            present = [client for client in clients if client.node.is_connected]
            return [client for client in present if not client.knows(snapshot)]


def _messages(clients: list[Client]) -> int:
    return sum(client.node.heard.messages for client in clients)


async def _all(clients: list[Client]) -> None:
    async with asyncio.TaskGroup() as tasks:
        for client in clients:
            tasks.create_task(client.join())


async def _weather(rng: Random, clients: list[Client]) -> None:
    """Now and then: somebody loses the connection, comes back, reads slowly, moves."""
    await asyncio.sleep(0)
    if rng.random() < 0.1:
        for client in rng.sample(clients, 3):
            client.node.drop()
    if rng.random() < 0.1:
        away = [client for client in clients if not client.node.is_connected]
        await _all(rng.sample(away, min(3, len(away))))
    if rng.random() < 0.1:
        for client in rng.sample(clients, min(MAX_PAUSED, len(clients))):
            client.node.pause(paused=rng.random() < 0.5)
    if rng.random() < 0.1:
        await asyncio.sleep(0.1)


def _tailnet(rng: Random, nodes: int, ids: Sequences) -> Snapshot:
    edit = Edit(empty_tailnet(), ids)
    for _ in range(3):
        add_user(rng, edit)
    for _ in range(nodes):
        number = ids.next_node()
        who = identity(number)
        node = make_node(
            number,
            rng,
            machine_key=MachineKey(who.machine.public_raw),
            node_key=who.node_key,
            disco_key=who.disco_key,
        )
        edit.put(replace(node, user_id=rng.choice(list(edit.users))))
    return edit.finish()[0]


@asynccontextmanager
async def _serve(live: LiveTailnet, http2: str) -> AsyncIterator[tuple[Server, MapSessions]]:
    tailnets = LiveTailnets([live])
    encoder = Encoder()
    sessions = MapSessions(live, encoder, clock=time.monotonic, jitter=random.random)
    checks = SSHChecks(Random(2).randbytes)
    logins = logins_of(tailnets)
    door = MachineDoor(
        tailnets, {live.id: sessions}, {live.id: encoder}, checks, logins, rng=Random(1)
    )
    key = PrivateKey(b"k" * 32)
    ts2021 = Ts2021(key, door.handle, http2=engine(http2))
    listener = await listen(Front({"/ts2021": ts2021.open}).sink, "127.0.0.1", 0, tls=None)
    tasks = [
        asyncio.create_task(work, name=name)
        for name, work in (("tailnet", tailnets.run()), ("sessions", sessions.run()))
    ]
    try:
        yield Server(listener.port, MachineKey(key.public_raw)), sessions
    finally:
        await ts2021.close()
        listener.close()
        listener.abort_streams()
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def run(repeats: int) -> list[Figure]:
    """Let 300 nodes converge, with other edits each time."""
    outcomes = [asyncio.run(converge(300, 1000, seed)) for seed in range(repeats)]
    wrong = tuple(float(len(outcome.wrong)) for outcome in outcomes)
    settled = tuple(outcome.settled_after_s for outcome in outcomes)
    name = "300 nodes, 1000 random edits"
    return [
        Figure("converge", f"{name}: nodes that know something wrong", "", wrong, 0),
        Figure("converge", f"{name}: checked, all right after (wall)", "s", settled),
    ]
