"""Who asks over the network: the key or token of a request, and how often somebody may ask or guess.

Takes ``Authorization: Bearer KEY`` as Headscale does, and HTTP Basic with the key as user name as the
hosted service does. No cookie counts here, and no address. Not for what a key may do (``identity``)
nor for routes (``mount``). Everything is bounded by source (``front.source``) and by key.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable

from aiohttp import web

from appliance.api.door import Door
from appliance.api.problem import Unproven
from appliance.errors import Forbidden
from appliance.front.source import source_of
from appliance.identity import tokens
from appliance.identity.scopes import Caller
from appliance.ratelimit import SourceBuckets
from appliance.repeats import Repeats

log = logging.getLogger(__name__)

SOURCE_BURST, SOURCE_PER_S = 600.0, 100.0
"""Requests of one source: a console and some programs behind one NAT; 100 a second are a whole core."""
KEY_BURST, KEY_PER_S = 400.0, 50.0
"""Requests with one key, from wherever: what tools do in parallel passes, a loop gone wild does not."""
OWN_BURST, OWN_PER_S = 300.0, 0.1
"""Changes with a key that may change what is its user's only: each is an entry of the audit log, which
keeps 200,000, and nobody is to push out what others did."""
GUESS_BURST, GUESS_PER_S = 60.0, 1.0
"""Wrong keys of one source. A program with a deleted key that polls every second is not locked out,
nor are its neighbours; a secret has 2 ** 256 possibilities."""
MAX_SOURCES = 10_000
"""Sources and keys that are remembered, each; forgetting one favours it only."""


class GateCounters:
    """What happened at the gate, for the metrics."""

    __slots__ = ("accepted", "expired", "missing", "throttled", "unknown")

    def __init__(self) -> None:
        self.accepted = 0
        self.missing = 0
        self.unknown = 0
        self.expired = 0
        self.throttled = 0


class Gate:
    """Identifies callers of one server by what they show."""

    def __init__(
        self,
        door: Door,
        seal: tokens.Seal | None = None,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.counters = GateCounters()
        self._door = door
        self._seal = seal
        self._clock = clock
        self._sources = SourceBuckets(SOURCE_BURST, SOURCE_PER_S, MAX_SOURCES)
        self._keys = SourceBuckets(KEY_BURST, KEY_PER_S, MAX_SOURCES)
        self._own = SourceBuckets(OWN_BURST, OWN_PER_S, MAX_SOURCES)
        self._guesses = SourceBuckets(GUESS_BURST, GUESS_PER_S, MAX_SOURCES)
        self._repeats = Repeats()

    async def identify(self, request: web.Request) -> Caller:
        """Return who asks. Raises Unproven, HTTPTooManyRequests."""
        source = self.admit(request)
        _check_site(request)
        text = _shown(request)
        if not text:
            self.counters.missing += 1
            raise Unproven
        tailnets = self._door.tailnets
        now = tailnets.default.clock()
        proof = tokens.prove((live.snapshot for live in tailnets), text, now, self._seal)
        if proof is None:
            self.counters.unknown += 1
            self.wrong(source, "an unknown key")
            raise Unproven
        if proof.is_expired:
            # Somebody knew it: no guess.
            self.counters.expired += 1
            self._tell(source, f"expired: {proof.caller.principal}")
            raise Unproven
        self.spend(str(proof.caller.principal))
        self._spend_own(request, proof.caller)
        self.counters.accepted += 1
        if proof.caller.tailnet is not None:
            self._door.key_uses.note(proof.caller.tailnet, proof.record, now)
        return proof.caller

    def spend(self, who: str) -> None:
        """Count a request of somebody who is known. Raises HTTPTooManyRequests."""
        if not self._keys.allow(who, self._clock()):
            self.counters.throttled += 1
            raise too_many(1)

    def _spend_own(self, request: web.Request, caller: Caller) -> None:
        is_change = request.method not in ("GET", "HEAD") and not caller.scopes
        # By user: a member may have fifty keys.
        if is_change and not self._own.allow(f"{caller.tailnet} {caller.user_id}", self._clock()):
            self.counters.throttled += 1
            raise too_many(10)

    def admit(self, request: web.Request) -> str:
        """Count a request of a source; return the source. Raises HTTPTooManyRequests."""
        host = request.remote or ""
        # This machine itself is not bounded: proxies that name nobody, and tools.
        source = source_of((host, 0)) if host else None
        if source is None:
            return ""
        now = self._clock()
        if not self._sources.allow(source, now):
            self.counters.throttled += 1
            raise too_many(1)
        if not self._guesses.has(source, now):
            self.counters.throttled += 1
            raise too_many(2)
        return source

    def wrong(self, source: str, reason: str) -> None:
        """Take note of something wrong that was shown."""
        if source:
            self._guesses.allow(source, self._clock())
        self._tell(source, reason)

    def _tell(self, source: str, reason: str) -> None:
        """Write it once an hour for each source and reason."""
        before = self._repeats.note((source, reason), self._clock())
        if before is not None:
            more = f" ({before} more since the last line)" if before else ""
            log.warning(
                "api key refused",
                extra={"remote": source or "this machine", "reason": f"{reason}{more}"},
            )


def _check_site(request: web.Request) -> None:
    """Refuse a change that a page of another site makes a browser send. Raises Forbidden.

    A browser keeps a key that was typed into its own prompt, or a proxy adds one, and then it is in
    what other sites send, too.
    """
    site = request.headers.get("Sec-Fetch-Site")
    if request.method not in ("GET", "HEAD") and site in ("cross-site", "same-site"):
        raise Forbidden("request-foreign", "this was sent by a page of another site")


def too_many(retry_after_s: int) -> web.HTTPTooManyRequests:
    """Make the refusal of somebody who asks too often."""
    return web.HTTPTooManyRequests(headers={"Retry-After": str(retry_after_s)})


def _shown(request: web.Request) -> str:
    """Return the key that a request shows; empty if there is none, or it cannot be read."""
    headers = request.headers.getall("Authorization", [])
    if len(headers) != 1:
        return ""
    scheme, _, rest = headers[0].strip().partition(" ")
    rest = rest.strip()
    if scheme.lower() == "bearer":
        return rest
    if scheme.lower() == "basic":
        try:
            return tokens.of_basic(rest)[0]
        except ValueError:
            return ""
    return ""
