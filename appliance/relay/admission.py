"""Admission for a relay that runs alone: asks a control server whether a node may come.

Speaks the verify protocol of official relays, so any control server that knows it will do. Not for
the relay inside the control server, which looks into its own snapshot.
Source: tailscale v1.104.5 derp/derpserver/derpserver.go verifyClient, tailcfg/derpmap.go.
"""

from __future__ import annotations

import asyncio
import json
import logging
from typing import TYPE_CHECKING

from appliance.wire.keys import NodeKey

if TYPE_CHECKING:
    import aiohttp

log = logging.getLogger(__name__)

# -- our own limits --

TIMEOUT_S = 5.0
"""Official relays wait the same for an answer."""

ALLOWED_FOR_S = 60.0
"""How long a yes is remembered: reconnecting nodes then cost no question."""

REFUSED_FOR_S = 5.0
"""How long a no is remembered: a node that has just been enrolled must not wait."""

MAX_REMEMBERED = 20_000
"""Answers of each kind that are remembered; then the oldest is forgotten. Strangers, who come in any
number, do not push nodes out."""

MAX_ANSWER_BYTES = 4096
"""The answer has 15 bytes."""

MAX_ASKING = 64
"""Questions under way; more wait their turn."""


class Verifier:
    """Asks ``url`` (over ``socket_path`` if given) and remembers the answers for a while.

    ``fail_open`` decides what an unreachable control server means; a bad answer always refuses.
    """

    def __init__(
        self,
        url: str,
        *,
        socket_path: str | None = None,
        fail_open: bool = False,
        timeout_s: float = TIMEOUT_S,
    ) -> None:
        self._url = url
        self._socket_path = socket_path
        self._fail_open = fail_open
        self._timeout_s = timeout_s
        self._session: aiohttp.ClientSession | None = None
        self._allowed: dict[NodeKey, float] = {}  # with the time until which it holds
        self._refused: dict[NodeKey, float] = {}
        self._turn = asyncio.Semaphore(MAX_ASKING)

    async def admit(self, key: NodeKey, source: str) -> bool:
        """Tell whether the node may use the relay (``door.Admit``)."""
        now = asyncio.get_running_loop().time()
        for answers, allow in ((self._allowed, True), (self._refused, False)):
            if answers.get(key, 0.0) > now:
                return allow
        try:
            async with asyncio.timeout(self._timeout_s), self._turn:
                allow = await self._ask(key, source)
        except (OSError, TimeoutError) as error:  # aiohttp's connection errors are OSErrors
            log.warning(
                "admission cannot be asked", extra={"reason": str(error) or type(error).__name__}
            )
            return self._fail_open
        self._allowed.pop(key, None)
        self._refused.pop(key, None)
        answers = self._allowed if allow else self._refused
        if len(answers) >= MAX_REMEMBERED:
            del answers[next(iter(answers))]
        answers[key] = now + (ALLOWED_FOR_S if allow else REFUSED_FOR_S)
        return allow

    async def close(self) -> None:
        """Close the connection to the control server."""
        if self._session is not None:
            await self._session.close()
            self._session = None

    async def _ask(self, key: NodeKey, source: str) -> bool:
        import aiohttp  # a relay that asks nobody need not load it

        if self._session is None:
            connector = aiohttp.UnixConnector(self._socket_path) if self._socket_path else None
            self._session = aiohttp.ClientSession(connector=connector)
        question = {"NodePublic": str(key), "Source": source}
        try:
            async with self._session.post(self._url, json=question) as response:
                if response.status != 200:
                    log.warning("admission refused to answer", extra={"reason": response.status})
                    return False
                body = await response.content.read(MAX_ANSWER_BYTES)
        except aiohttp.ClientError as error:
            raise ConnectionError(str(error)) from error
        try:
            answer = json.loads(body)
        except ValueError:
            return False
        return isinstance(answer, dict) and answer.get("Allow") is True
