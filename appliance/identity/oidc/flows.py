"""Logins that are under way: a browser was sent to a provider and is to come back.

Each belongs to the browser that began it and serves once. In memory, bounded. Not for what the
browser brings back (``relying``).
Source: RFC 9700 sections 2.1 and 4.4 (state, PKCE, nonce, mix-up).
"""

from __future__ import annotations

import hashlib
import hmac
from collections import Counter
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from appliance.errors import Forbidden, TooMany

LIFETIME = timedelta(minutes=15)
"""A second factor must be found; the hosted providers end their own pages after about that time."""
MAX_FLOWS = 4096
"""Of all browsers together, each less than 2 KiB. When there are too many the oldest one goes, of the
source that has most: a few strangers would else keep everybody out."""
MAX_FLOWS_PER_SOURCE = 64
"""Of one source, so that nobody can push out the logins of others; offices share an address."""
_RANDOM_BYTES = 32


@dataclass(frozen=True, slots=True)
class Flow:
    """One login under way. ``binding`` is what the browser keeps in a cookie, as its SHA-256."""

    state: str
    provider: str
    nonce: str = field(repr=False)
    verifier: str = field(repr=False)
    binding: bytes = field(repr=False)
    source: str
    next_path: str
    expires_at: datetime


class Flows:
    """The logins of one server that are under way; kept on the event loop's thread."""

    def __init__(self, random_bytes: Callable[[int], bytes]) -> None:
        self._random_bytes = random_bytes
        self._flows: dict[str, Flow] = {}

    def __len__(self) -> int:
        return len(self._flows)

    def begin(self, provider: str, source: str, next_path: str, now: datetime) -> tuple[Flow, str]:
        """Make a login; return it with the text for the browser's cookie. Raises TooMany."""
        self._forget_expired(now)
        if sum(flow.source == source for flow in self._flows.values()) >= MAX_FLOWS_PER_SOURCE:
            raise TooMany(
                "logins-too-many",
                "too many logins from this address are under way: finish one, or wait a quarter of"
                " an hour",
            )
        if len(self._flows) >= MAX_FLOWS:
            self._make_room()
        cookie = self._text()
        flow = Flow(
            state=self._text(),
            provider=provider,
            nonce=self._text(),
            verifier=self._text(),
            binding=_digest(cookie),
            source=source,
            next_path=next_path,
            expires_at=now + LIFETIME,
        )
        self._flows[flow.state] = flow
        return flow, cookie

    def peek(self, state: str) -> Flow | None:
        """Return a login by its state, to learn which cookie belongs to it."""
        return self._flows.get(state)

    def end(self, state: str, cookie: str, now: datetime) -> Flow:
        """Take a login out, if it is of this browser. Raises Forbidden.

        Another browser that knows the state only is refused, and the login stays where it is.
        """
        flow = self._flows.get(state)
        if flow is None or flow.expires_at <= now:
            raise Forbidden(
                "login-unknown",
                "this login was finished before, or it took too long: start again from the link",
            )
        if not hmac.compare_digest(flow.binding, _digest(cookie)):
            raise Forbidden(
                "login-of-another-browser",
                "this login was begun in another browser: start again from the link in this one",
            )
        del self._flows[state]
        return flow

    def _make_room(self) -> None:
        count = Counter(flow.source for flow in self._flows.values())
        largest = count.most_common(1)[0][0]
        del self._flows[next(s for s, flow in self._flows.items() if flow.source == largest)]

    def _text(self) -> str:
        return self._random_bytes(_RANDOM_BYTES).hex()

    def _forget_expired(self, now: datetime) -> None:
        # In order of their making, and all live equally long.
        for state, flow in list(self._flows.items()):
            if flow.expires_at > now:
                break
            del self._flows[state]


def _digest(text: str) -> bytes:
    return hashlib.sha256(text.encode()).digest()
