"""What must survive a restart: the order under way, and when the authority may be asked again.

Every attempt is written down before it begins, so that a server that is killed again and again asks
no more often than one that lives. Not for the account (``child`` keeps it) and not for certificates.
Blocking: a few small files.
"""

from __future__ import annotations

from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import TypeVar

import msgspec
from msgspec import Struct

from appliance.files import write_whole

FIRST_PAUSE = timedelta(minutes=3)
"""After a first failure; twice as long after each further one. So at most five attempts fall into the
first hour, which is what Let's Encrypt allows a name to fail."""
MAX_PAUSE = timedelta(hours=12)
"""With certificates of 90 days, which are renewed a month before their end, there are sixty tries."""
JITTER = 0.25
"""Up to so much is added to every pause, so that sites that failed together do not return together."""
AFTER_SUCCESS = timedelta(hours=1)
"""No certificate is so short that the next one is due sooner; it ends what a wrong clock would begin."""
NOW = datetime.min.replace(tzinfo=UTC)
MAX_NOTE = 2000
"""Characters of a sentence that is kept."""

T = TypeVar("T")


class Limits(Struct, frozen=True):
    """How often an authority lets itself be asked. Let's Encrypt's are 5 failures an hour for a name
    and 5 certificates a week for the same names; the first is kept by pauses, too.
    """

    attempts_per_hour: int = 5
    certificates_per_week: int = 4


OWN_AUTHORITY = Limits(attempts_per_hour=60, certificates_per_week=1000)
"""Of an authority that the site names itself: only what keeps a mistake from being a flood."""


class Order(Struct, kw_only=True):
    """An order that the authority has taken."""

    url: str
    names: tuple[str, ...]
    profile: str = ""


class Window(Struct, kw_only=True):
    """When the authority suggests to renew a certificate, and when to ask that again."""

    certificate: str
    """Which one it is about."""
    renew_at: datetime | None = None
    ask_at: datetime = NOW
    explanation: str = ""


class State(Struct, kw_only=True):
    """The file ``state.json``."""

    failures: int = 0
    """One after the other, without a success in between."""
    trouble: str = ""
    """Why the last attempt failed, for people; empty after a success."""
    advice: str = ""
    not_before: datetime = NOW
    retry_at: datetime = NOW
    """What the authority itself asked for; no wish of an operator's is sooner."""
    noted_at: datetime = NOW
    """When ``not_before`` was written: a clock that is set back afterwards shall not lock us out."""
    attempts: list[datetime] = []
    """Of the last hour."""
    issued: list[datetime] = []
    """Of the last week."""
    window: Window | None = None


class Ledger:
    """The state of one authority in its directory. ``jitter`` gives numbers from 0 to 1."""

    def __init__(
        self,
        directory: Path,
        limits: Limits,
        *,
        now: Callable[[], datetime],
        jitter: Callable[[], float],
    ) -> None:
        self.directory = directory
        self.order_key = directory / "order.key"
        self.certificate = directory / "certificate.pem"
        self._order = directory / "order.json"
        self._state = directory / "state.json"
        self._limits = limits
        self._now = now
        self._jitter = jitter
        self.state = _read(self._state, State) or State()

    @property
    def not_before(self) -> datetime:
        """When the authority may be asked again."""
        state, now = self.state, self._now()
        if now < state.noted_at:  # the clock was set back: the same pause, from now on
            return now + min(max(state.not_before - state.noted_at, timedelta()), MAX_PAUSE)
        return state.not_before

    def order(self, names: tuple[str, ...], profile: str) -> Order | None:
        """Return the order under way, if it is for these names."""
        found = _read(self._order, Order)
        if found is None or found.names != names or found.profile != profile:
            return None
        return found

    def keep_order(self, order: Order) -> None:
        """Remember an order. Raises OSError."""
        write_whole(self._order, msgspec.json.encode(order))

    def forget_order(self) -> None:
        """Forget the order and its key: it is done, or no longer of use."""
        self._order.unlink(missing_ok=True)
        self.order_key.unlink(missing_ok=True)

    def begin(self) -> None:
        """Write down that an attempt begins, as one that fails. Raises OSError."""
        now, state = self._now(), self.state
        hour, week = now - timedelta(hours=1), now - timedelta(days=7)
        state.attempts = [each for each in state.attempts if hour < each <= now][-200:]
        state.issued = [each for each in state.issued if week < each <= now][-2000:]
        state.attempts.append(now)
        state.failures += 1
        self._wait(self._pause())
        self._save()

    def failed(self, trouble: str, advice: str, retry_after_s: float | None) -> None:
        """Write down why an attempt failed. Raises OSError."""
        state = self.state
        state.trouble, state.advice = trouble[:MAX_NOTE], advice[:MAX_NOTE]
        if retry_after_s is not None:
            asked = self._now() + timedelta(seconds=retry_after_s)
            state.retry_at = asked
            state.not_before = max(state.not_before, asked)
        self._save()

    def succeeded(self) -> None:
        """Write down that a certificate was issued. Raises OSError."""
        state = self.state
        state.failures, state.trouble, state.advice, state.window = 0, "", "", None
        state.retry_at = NOW
        state.issued.append(self._now())
        self._wait(AFTER_SUCCESS)
        self._save()

    def keep_window(self, window: Window) -> None:
        """Remember what the authority suggests. Raises OSError."""
        self.state.window = window
        self._save()

    def hurry(self) -> datetime:
        """Let the next attempt begin as soon as the authority's limits allow; return when."""
        state = self.state
        now = self._now()
        asked = state.retry_at if now >= state.noted_at else NOW  # the clock was set back
        state.not_before, state.noted_at = max(self._free_at(), asked), now
        return self.not_before

    def _pause(self) -> timedelta:
        doublings = min(self.state.failures - 1, 20)
        pause: timedelta = min(FIRST_PAUSE * 2**doublings, MAX_PAUSE)
        return pause * (1 + JITTER * self._jitter())

    def _wait(self, pause: timedelta) -> None:
        state, now = self.state, self._now()
        state.noted_at = now
        state.not_before = max(now + pause, self._free_at())

    def _free_at(self) -> datetime:
        """Return when one more attempt keeps the limits."""
        limits, state, free_at = self._limits, self.state, NOW
        if len(state.attempts) >= limits.attempts_per_hour:
            free_at = state.attempts[-limits.attempts_per_hour] + timedelta(hours=1)
        if len(state.issued) >= limits.certificates_per_week:
            free_at = max(free_at, state.issued[-limits.certificates_per_week] + timedelta(days=7))
        return free_at

    def _save(self) -> None:
        write_whole(self._state, msgspec.json.encode(self.state))


def _read(path: Path, kind: type[T]) -> T | None:
    """Read a file of ours; None for what is missing or damaged."""
    try:
        return msgspec.json.decode(path.read_bytes(), type=kind)
    except (OSError, msgspec.MsgspecError):
        return None
