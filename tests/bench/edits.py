"""What an edit costs: register, check in, presence, at 1,000 and 5,000 nodes, without a database.

Run as ``python -m tests.bench.edits``; prints one line per figure. Target: a registration takes at
most 150 µs at 1,000 nodes.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from datetime import datetime
from statistics import median

from appliance.identity.principals import SYSTEM
from appliance.live import LiveTailnet
from appliance.records import AuditEntry, NodeID, TailnetID
from appliance.tailnet import checkin, enrolment, expiry, presence
from appliance.tailnet.snapshot import Edit, Rows, Sequences, Snapshot
from appliance.wire import tailcfg
from tests.support.builder import disco_key, empty, key_for, machine_key, node_key
from tests.support.clock import NOON, Clock, fixed_rng

SIZES = (1000, 5000)
ROUNDS = 5
EDITS = 100
"""Edits per round: the tailnet grows by one tenth at most while it is measured."""


def main() -> None:
    """Print the table."""
    print(f"{'edit':<30}" + "".join(f"{size:>10,} nodes" for size in SIZES))
    columns = [_measure(size) for size in SIZES]
    for name in columns[0]:
        print(f"{name:<30}" + "".join(f"{column[name]:>13.1f} µs" for column in columns))


def _measure(size: int) -> dict[str, float]:
    house = _House()
    started = time.process_time()
    for _ in range(size):
        house.register()
    grown = 1e6 * (time.process_time() - started) / size
    for node_id in house.snapshot.nodes:
        house.enter(node_id)
    return {
        "register, while growing": grown,
        "register": _time(house.register),
        "register, same host name": _time(lambda: house.register("pc")),
        "register again": _time(house.register_again),
        "check in, new endpoints": _time(house.check_in),
        "check in, nothing new": _time(house.check_in_again),
        "enter a map session": _time(lambda: house.enter(house.some_node())),
        "clock: look at all nodes": _time(house.tick, edits=3),
        "register, 500 at once, live": asyncio.run(house.storm(500)),
    }


def _time(edit: Callable[[], object], edits: int = EDITS) -> float:
    """Give the median of the rounds, in microseconds per edit."""
    rounds = []
    for _ in range(ROUNDS):
        started = time.process_time()
        for _ in range(edits):
            edit()
        rounds.append(1e6 * (time.process_time() - started) / edits)
    return median(rounds)


class _House:
    """A tailnet whose newest snapshot replaces the one before, as ``LiveTailnet`` does it."""

    def __init__(self) -> None:
        self.ids = Sequences()
        edit = Edit(empty(), self.ids)
        _, self.text = key_for(edit, "alice", reusable=True)
        self.snapshot: Snapshot = edit.finish()[0]
        self.rng = fixed_rng()
        self.count = 0
        self.requests: list[tailcfg.RegisterRequest] = []

    def some_node(self) -> NodeID:
        self.count += 1
        return NodeID(1 + self.count * 7919 % len(self.snapshot.nodes))

    def register(self, hostname: str = "") -> None:
        number = len(self.requests)
        self.requests.append(self._request(number, hostname or f"host-{number}"))
        self._register(number)

    def _request(self, number: int, hostname: str) -> tailcfg.RegisterRequest:
        return tailcfg.RegisterRequest(
            version=130,
            node_key=node_key(f"n{number}"),
            auth=tailcfg.RegisterResponseAuth(auth_key=self.text),
            hostinfo=_hostinfo(hostname),
        )

    def register_again(self) -> None:
        self._register(self.some_node() - 1)

    def check_in(self) -> None:
        node_id = self.some_node()
        request = tailcfg.MapRequest(
            version=130,
            disco_key=disco_key("d"),
            hostinfo=self.requests[node_id - 1].hostinfo,
            endpoints=tuple(
                tailcfg.AddrPort.parse(f"192.0.2.{n}:{1024 + self.count % 50000}")
                for n in range(1, 6)
            ),
            endpoint_types=(1, 1, 1, 2, 2),
        )
        edit = self._edit()
        checkin.check_in(edit, node_id, request)
        self._publish(edit)

    def check_in_again(self) -> None:
        node = self.snapshot.nodes[self.some_node()]
        request = tailcfg.MapRequest(
            version=130,
            hostinfo=self.requests[node.id - 1].hostinfo,
            endpoints=node.endpoints,
        )
        edit = self._edit()
        checkin.check_in(edit, node.id, request)
        self._publish(edit)

    def enter(self, node_id: NodeID) -> None:
        edit = self._edit()
        presence.session_opened(edit, node_id, NOON)
        self._publish(edit)

    def tick(self) -> None:
        edit = self._edit()
        if expiry.is_due(self.snapshot, NOON):
            expiry.tick(edit, NOON)
        self._publish(edit)

    async def storm(self, count: int) -> float:
        """Register through a ``LiveTailnet``; give the microseconds of each."""
        live = LiveTailnet(self.snapshot, _SlowStore(), self.ids, clock=Clock())
        task = asyncio.create_task(live.run())
        first = len(self.requests)
        self.requests += [self._request(first + n, f"host-{first + n}") for n in range(count)]

        async def register(number: int) -> None:
            async with live.edit(by=SYSTEM, act="test.change") as edit:
                self._decide(edit, number)

        started = time.process_time()
        await asyncio.gather(*(register(first + n) for n in range(count)))
        spent = time.process_time() - started
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
        return 1e6 * spent / count

    def _register(self, number: int) -> None:
        edit = self._edit()
        self._decide(edit, number)
        self._publish(edit)

    def _decide(self, edit: Edit, number: int) -> None:
        request = self.requests[number]
        grant = enrolment.key_grant(request.auth)
        enrolment.register(edit, machine_key(f"m{number}"), request, grant, NOON, rng=self.rng)

    def _edit(self) -> Edit:
        return Edit(self.snapshot, self.ids)

    def _publish(self, edit: Edit) -> None:
        self.snapshot = edit.finish()[0]


class _SlowStore:
    """Takes half a millisecond for a batch, as a fast disk does."""

    async def write(self, tailnet: TailnetID, batch: Sequence[Rows]) -> None:
        assert tailnet
        assert batch
        await asyncio.sleep(0.0005)

    def note_last_seen(self, seen: Sequence[tuple[NodeID, datetime]]) -> None:
        assert seen

    def note_audit(self, tailnet: TailnetID, entries: Sequence[AuditEntry]) -> None:
        assert tailnet
        assert entries


def _hostinfo(hostname: str) -> tailcfg.Hostinfo:
    return tailcfg.Hostinfo(
        ipn_version="1.80.2-t1234567-g7654321",
        backend_log_id="0" * 64,
        os="linux",
        os_version="6.1.0",
        distro="debian",
        go_version="go1.23",
        machine="x86_64",
        hostname=hostname,
        services=(
            tailcfg.Service(proto="peerapi4", port=1),
            tailcfg.Service(proto="peerapi6", port=1),
        ),
    )


if __name__ == "__main__":
    main()
