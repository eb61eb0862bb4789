"""Map polls with a node key that nobody here holds: the node was deleted, or was never one.

The answer is a map whose own node has expired, which leads stock clients to "Logged out", and then
silence. The stream is kept open: a client that got a map asks again at once when its stream ends.
It is the same answer for keys of other machines, so that node keys cannot be probed. Not for nodes
that are known (``mapsession``, ``machine``).
"""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Protocol

from appliance.control.exchange import TEXT, Exchange, OutStream
from appliance.netmap import gone
from appliance.netmap.texts import message
from appliance.repeats import Repeats
from appliance.wire import tailcfg
from appliance.wire.keys import MachineKey

log = logging.getLogger(__name__)

UNKNOWN_NODE = b"no such node for this machine"
"""The answer to every node key that the asking machine does not hold, whoever else does."""
HOLD_S = 110.0
"""How long a stream is kept open without a word: clients give one up after 120 s."""
MAX_HELD = 1_000
"""Machines whose stream is held, one each; strangers can ask for it. More are told to come again."""
COME_AGAIN_S = 60
"""When; clients before 147 do not read it, and take longer and longer pauses by themselves."""


class Timer(Protocol):
    """What ``call_later`` gives."""

    def cancel(self) -> None:
        """Do not call any more."""


@dataclass(frozen=True, slots=True)
class _Held:
    out: OutStream
    timer: Timer


class GonePolls:
    """The polls of nodes that are gone; ``call_later`` and ``now`` are for tests."""

    def __init__(
        self,
        *,
        call_later: Callable[[float, Callable[[], None]], Timer] | None = None,
        now: Callable[[], float] = time.monotonic,
        max_held: int = MAX_HELD,
    ) -> None:
        self._call_later = call_later or _on_the_loop
        self._now = now
        self._max_held = max_held
        self._held: dict[MachineKey, _Held] = {}
        self._refusals = Repeats()

    def __len__(self) -> int:
        return len(self._held)

    def answer(self, exchange: Exchange, request: tailcfg.MapRequest, *, has_node: bool) -> None:
        """Answer a map request whose node key the machine does not hold.

        ``has_node``: it holds another one. A report that it sent with an old key it must send again.
        """
        self._note(exchange, request)
        if has_node and not request.stream:
            exchange.respond(404, UNKNOWN_NODE, content_type=TEXT)
            return
        machine = exchange.machine_key
        if request.stream and machine not in self._held and len(self._held) >= self._max_held:
            again = [(b"retry-after", b"%d" % COME_AGAIN_S)]
            exchange.respond(429, UNKNOWN_NODE, content_type=TEXT, headers=again)
            return
        out = exchange.open_stream(200)
        told = tailcfg.encode(gone.unknown(machine, request.node_key))
        out.write([message(told, zstd=request.compress == "zstd")])
        if request.stream:
            self._hold(machine, out)
        else:
            out.close()

    def _hold(self, machine: MachineKey, out: OutStream) -> None:
        """Keep a stream open for a while; the newest of a machine is the one that is read."""
        self.end(machine)
        if not out.closed:
            self._held[machine] = _Held(out, self._call_later(HOLD_S, lambda: self.end(machine)))
            out.on_closed(lambda: self._lost(machine))

    def end(self, machine: MachineKey) -> None:
        """Let the machine ask again: it may have a node by now."""
        held = self._forget(machine)
        if held is not None:
            held.out.on_closed(None)
            held.out.close()

    def _lost(self, machine: MachineKey) -> None:
        self._forget(machine)

    def _forget(self, machine: MachineKey) -> _Held | None:
        held = self._held.pop(machine, None)
        if held is not None:
            held.timer.cancel()
        return held

    def _note(self, exchange: Exchange, request: tailcfg.MapRequest) -> None:
        """Write it once for each key: the client asks for as long as it runs."""
        machine = exchange.machine_key
        repeated = self._refusals.note((machine, request.node_key), self._now())
        if repeated is not None:
            log.info(
                "map refused",
                extra={
                    "node": request.node_key.short,
                    "machine_key": machine.short,
                    "reason": "no such node",
                    "repeated": repeated,
                },
            )


def _on_the_loop(seconds: float, call: Callable[[], None]) -> Timer:
    return asyncio.get_running_loop().call_later(seconds, call)
