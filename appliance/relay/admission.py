"""Admission for a relay that runs alone: asks a control server whether a node may come.

Speaks the verify protocol of official relays, so any control server that knows it will do. Not for
the relay inside the control server, which looks into its own snapshot.
Source: tailscale v1.104.5 derp/derpserver/derpserver.go verifyClient, tailcfg/derpmap.go.
"""

from __future__ import annotations

import asyncio
import json
import logging
import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from http import HTTPStatus
from typing import TYPE_CHECKING

from appliance.wire.keys import NodeKey

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

# -- our own limits --

TIMEOUT_S = 5.0
"""Official relays wait the same for an answer."""

ALLOWED_FOR_S = 60.0
"""How long a yes needs no new question: reconnecting nodes then cost nothing."""

KNOWN_FOR_S = 24 * 3600.0
"""How long a yes still counts while the control server cannot be asked: an outage over night must not
cut the paths between nodes, and a node that was removed meanwhile must not come back for days."""

REFUSED_FOR_S = 5.0
"""How long a no is remembered: a node that has just been enrolled must not wait."""

MAX_REMEMBERED = 20_000
"""Answers of each kind that are remembered; then the oldest is forgotten. Strangers, who come in any
number, do not push nodes out."""

MAX_ANSWER_BYTES = 4096
"""The answer has 15 bytes."""

MAX_ASKING = 64
"""Questions under way; more wait their turn."""


@dataclass(slots=True)
class AdmissionCounters:
    """What became of the questions since the start."""

    allowed: int = 0
    refused: int = 0
    unanswered: int = 0
    """Questions that got no usable answer."""
    remembered: int = 0
    """Nodes let in on an older yes, because the question got no answer."""


class Verifier:
    """Asks ``url`` (over ``socket_path`` if given) and remembers the answers for a while.

    Only an answer in the protocol's own form is a yes or a no. Everything else (no connection, a
    proxy's 502, a page of HTML) leaves the question open: with ``fail_open`` a node that was allowed
    in the last ``KNOWN_FOR_S`` is let in again, and nobody else is.
    """

    def __init__(
        self,
        url: str,
        *,
        socket_path: str | None = None,
        fail_open: bool = True,
        timeout_s: float = TIMEOUT_S,
        clock: Callable[[], float] = time.monotonic,
        max_remembered: int = MAX_REMEMBERED,
    ) -> None:
        self.counters = AdmissionCounters()
        self._url = url
        self._socket_path = socket_path
        self._fail_open = fail_open
        self._timeout_s = timeout_s
        self._clock = clock
        self._max_remembered = max_remembered
        self._session: aiohttp.ClientSession | None = None
        self._allowed: dict[NodeKey, float] = {}  # with the time of the answer
        self._refused: dict[NodeKey, float] = {}
        self._turn = asyncio.Semaphore(MAX_ASKING)
        self._silent_since: float | None = None

    @property
    def silent_for_s(self) -> float | None:
        """For how long questions have got no answer, in seconds; None while they get one."""
        return None if self._silent_since is None else self._clock() - self._silent_since

    async def admit(self, key: NodeKey, source: str) -> bool | None:
        """Tell whether the node may use the relay; None if that cannot be known (``door.Admit``)."""
        now = self._clock()
        if now - self._allowed.get(key, -math.inf) < ALLOWED_FOR_S:
            return True
        if now - self._refused.get(key, -math.inf) < REFUSED_FOR_S:
            return False
        try:
            async with asyncio.timeout(self._timeout_s), self._turn:
                allow = await self._ask(key, source)
        except (OSError, TimeoutError) as error:  # aiohttp's connection errors are OSErrors
            return self._unanswered(key, str(error) or type(error).__name__)
        self._answered()
        self._remember(key, allow=allow)
        return allow

    async def close(self) -> None:
        """Close the connection to the control server."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    def _remember(self, key: NodeKey, *, allow: bool) -> None:
        self._allowed.pop(key, None)
        self._refused.pop(key, None)
        answers = self._allowed if allow else self._refused
        if len(answers) >= self._max_remembered:
            del answers[next(iter(answers))]
        answers[key] = self._clock()
        if allow:
            self.counters.allowed += 1
        else:
            self.counters.refused += 1

    def _unanswered(self, key: NodeKey, reason: str) -> bool | None:
        self.counters.unanswered += 1
        if self._silent_since is None:  # said once; an outage has a question a second
            self._silent_since = self._clock()
            log.warning("admission cannot be asked", extra={"reason": reason})
        known = self._clock() - self._allowed.get(key, -math.inf) < KNOWN_FOR_S
        if known and self._fail_open:
            self.counters.remembered += 1
            return True
        return None

    def _answered(self) -> None:
        silent_s, self._silent_since = self.silent_for_s, None
        if silent_s is not None:
            log.info("admission answers again", extra={"duration_ms": round(1000 * silent_s)})

    async def _ask(self, key: NodeKey, source: str) -> bool:
        """Ask. Raises OSError or TimeoutError when there is no answer in the protocol's form."""
        import aiohttp  # a relay that asks nobody need not load it

        if self._session is None:
            connector = aiohttp.UnixConnector(self._socket_path) if self._socket_path else None
            self._session = aiohttp.ClientSession(connector=connector)
        question = {"NodePublic": str(key), "Source": source}
        try:
            async with self._session.post(
                self._url, json=question, allow_redirects=False
            ) as response:
                if response.status != HTTPStatus.OK:
                    raise ConnectionError(f"{self._url} answers {response.status}")
                body = await response.content.read(MAX_ANSWER_BYTES)
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error) or type(error).__name__) from error
        try:
            answer = json.loads(body)
        except (ValueError, RecursionError):
            answer = None
        allow = answer.get("Allow") if isinstance(answer, dict) else None
        if not isinstance(allow, bool):
            raise ConnectionError(f"{self._url} does not answer as the verify protocol says")
        return allow
