"""A small live tailnet for the tests of the nodes' door: real snapshot, store in memory."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv6Address

from appliance.live import LiveTailnet
from appliance.records import AuditEntry, Node, NodeID, Tailnet, TailnetID, User, UserID
from appliance.tailnet.snapshot import Edit, Rows, Sequences, Snapshot
from appliance.wire.keys import DiscoKey, MachineKey, NodeKey

T0 = datetime(2026, 1, 1, tzinfo=UTC)


class MemoryStore:
    """Takes every row; ``failure`` is raised instead while it is set."""

    def __init__(self) -> None:
        self.batches: list[Sequence[Rows]] = []
        self.failure: Exception | None = None

    async def write(self, tailnet: TailnetID, batch: Sequence[Rows]) -> None:
        del tailnet
        if self.failure is not None:
            raise self.failure
        self.batches.append(batch)

    def note_last_seen(self, seen: Sequence[tuple[NodeID, datetime]]) -> None:
        del seen

    def note_audit(self, tailnet: TailnetID, entries: Sequence[AuditEntry]) -> None:
        del tailnet, entries


def machine_key(number: int) -> MachineKey:
    return MachineKey(b"m" + number.to_bytes(31, "big"))


def node_key(number: int) -> NodeKey:
    return NodeKey(b"n" + number.to_bytes(31, "big"))


def make_node(number: int) -> Node:
    return Node(
        id=NodeID(number),
        stable_id=f"n{number}",
        machine_key=machine_key(number),
        node_key=node_key(number),
        disco_key=DiscoKey(b"d" + number.to_bytes(31, "big")),
        name=f"node{number}",
        hostname=f"node{number}",
        created_at=T0,
        user_id=UserID(1),
        ipv4=IPv4Address(f"100.64.0.{number}"),
        ipv6=IPv6Address(f"fd7a:115c:a1e0::{number}"),
        capver=130,
    )


def make_live(nodes: int) -> LiveTailnet:
    ids = Sequences(tailnet=1, user=1, node=nodes)
    tailnet = Tailnet(id=TailnetID(1), name="default", domain="tail.example", created_at=T0)
    edit = Edit(Snapshot(tailnet=tailnet), ids)
    edit.put(User(id=UserID(1), name="alice", created_at=T0))
    for number in range(1, nodes + 1):
        edit.put(make_node(number))
    snapshot, _rows = edit.finish()
    return LiveTailnet(snapshot, MemoryStore(), ids, clock=lambda: T0)
