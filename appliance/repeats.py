"""What happens again and again to one key is written once, and counted.

A node that was deleted asks for its map until somebody turns it off; each refusal is the same news.
Not a limit for the log as a whole (``log.Seldom``): that one holds back strangers, who differ at
every try. Used by doors, which own one for each kind of line.
"""

from __future__ import annotations

from collections.abc import Hashable

QUIET_S = 3600.0
"""A key that was silent for this long is news again: somebody has begun anew."""
REMIND_S = 24 * 3600.0
"""What never stops is written once a day, with how often it has happened."""
MAX_KEYS = 4096
"""Keys that are remembered, at some 200 bytes; then the one that was silent longest is forgotten,
which costs a line."""


class _Seen:
    __slots__ = ("at", "unwritten", "written_at")

    def __init__(self, now: float) -> None:
        self.at = now
        self.written_at = now
        self.unwritten = 0


class Repeats:
    """Remembers what was written of which key. ``now`` is in seconds, of any clock that only grows."""

    __slots__ = ("_most", "_seen")

    def __init__(self, most: int = MAX_KEYS) -> None:
        self._most = most
        self._seen: dict[Hashable, _Seen] = {}  # the one that was silent longest is first

    def note(self, key: Hashable, now: float) -> int | None:
        """Take note that it happened; return how often it did since the last line.

        None: it is no news, write nothing. The time that is written now is not counted.
        """
        seen = self._seen.pop(key, None)
        if seen is None:
            if len(self._seen) >= self._most:
                del self._seen[next(iter(self._seen))]
            self._seen[key] = _Seen(now)
            return 0
        self._seen[key] = seen
        is_news = now - seen.at >= QUIET_S or now - seen.written_at >= REMIND_S
        seen.at = now
        if not is_news:
            seen.unwritten += 1
            return None
        seen.written_at = now
        unwritten, seen.unwritten = seen.unwritten, 0
        return unwritten

    def forget(self, key: Hashable) -> None:
        """Take the next time for news: what was wrong with the key is over."""
        self._seen.pop(key, None)
