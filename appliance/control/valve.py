"""A valve for storms: what would wait too long is told to come again, if its client understands that.

When a whole site comes back, or a new server enrols a fleet, requests arrive faster than they can be
answered. Each that waits holds its link, its task and its body, and makes all others wait longer. Beyond
a bound, clients that obey ``Retry-After`` get a 429 with a time of their own. Older clients take a
429 for an error and come again at once, so they are always let through.
Source: tailscale control/controlclient/direct.go (isRateLimitedResponse, 1.98 and 1.104), auto.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager

from appliance.control.exchange import TEXT, Exchange

# What the protocol says.
REGISTER_OBEYS = 137
"""Capability version from which clients obey ``Retry-After`` of a registration."""
MAP_OBEYS = 147
"""The same of a map request. Before, a 429 is an error of the poll like any other."""

# Ours, each with its reason.
MOST_WAITING = 2_000
"""Requests of a kind that may be under way: some two seconds of work, and 100 MB of links."""
SOONEST_S = 3
"""What waits when the valve closes is done by then."""
SPREAD_S = 27.0
"""Over how long those that were sent away come back: together they would close it again."""


class Valve:
    """Counts the requests of one kind that are under way; ``jitter`` is from 0 to 1."""

    __slots__ = ("_jitter", "_most", "_obeys", "deferred", "waiting")

    def __init__(
        self, obeys: int, *, jitter: Callable[[], float], most: int = MOST_WAITING
    ) -> None:
        self._obeys = obeys
        self._jitter = jitter
        self._most = most
        self.waiting = 0
        self.deferred = 0

    def defers(self, exchange: Exchange) -> bool:
        """Tell the client to come again, if there is too much to do and it knows how."""
        if self.waiting < self._most or exchange.version < self._obeys:
            return False
        self.deferred += 1
        after = SOONEST_S + int(self._jitter() * SPREAD_S)
        exchange.respond(
            429,
            b"many devices are connecting; this one will try again by itself",
            content_type=TEXT,
            headers=[(b"retry-after", b"%d" % after)],
        )
        return True

    @contextmanager
    def turn(self) -> Iterator[None]:
        """Count a request for as long as the block lasts."""
        self.waiting += 1
        try:
            yield
        finally:
            self.waiting -= 1
