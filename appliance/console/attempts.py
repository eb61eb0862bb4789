"""How often strangers may try codes and links: bounded by source and altogether, and counted.

Secrets here have 80 random bits and more, so nobody guesses one; this bounds what trying costs us.
"""

from __future__ import annotations

from appliance.errors import TooMany
from appliance.front.source import source_of
from appliance.ratelimit import SourceBuckets, TokenBucket

BURST = 20.0
"""Of one source: a person who mistypes, several people behind one address."""
PER_S = 0.2
MAX_SOURCES = 10_000
ALL_BURST = 500.0
"""Of all sources together: some milliseconds of work a second."""
ALL_PER_S = 20.0
CHANGE_BURST, CHANGE_PER_S = 60.0, 0.1
"""Changes and sign-ins of one user: each is an entry or two of the audit log, which keeps 200,000. At this
rate nobody pushes out what others did in less than a week."""
CODES_BURST, CODES_PER_S = 5.0, 1 / 600
"""The same for new recovery codes, which are twenty entries."""


class Attempts:
    """Bounds and counts what strangers try."""

    def __init__(self) -> None:
        self._sources = SourceBuckets(BURST, PER_S, MAX_SOURCES)
        self._all: TokenBucket | None = None
        self._changes = SourceBuckets(CHANGE_BURST, CHANGE_PER_S, MAX_SOURCES)
        self._codes = SourceBuckets(CODES_BURST, CODES_PER_S, MAX_SOURCES)
        self.failed = 0
        """Codes, links and passkeys that were wrong."""
        self.refused = 0
        """Attempts that were not looked at, because there were too many."""

    def spend(self, remote: str | None, now: float) -> None:
        """Count an attempt. Raises TooMany."""
        if self._all is None:
            self._all = TokenBucket(ALL_BURST, ALL_PER_S, now)
        source = None if remote is None else source_of((remote, 0))
        if not (source is None or self._sources.allow(source, now)) or not self._all.allow(1, now):
            self.refused += 1
            raise TooMany(
                "attempts-too-many",
                "too many attempts from your network: wait a minute, then try again",
            )

    def spend_change(self, user: str, now: float, *, codes: bool = False) -> None:
        """Count a change by somebody who is signed in, or signs in. Raises TooMany."""
        if not (self._codes if codes else self._changes).allow(user, now):
            self.refused += 1
            raise TooMany(
                "changes-too-many", "that was a lot at once: wait some minutes, then try again"
            )
