"""The token bucket: the one way in which anything here is limited in time.

A bucket holds at most ``burst`` tokens and gains ``per_s`` a second. Pure: the caller brings the
time, in seconds, of any clock that only grows. Not for bounds on what is held at once.
"""

from __future__ import annotations


class TokenBucket:
    """One bucket; full at the start."""

    __slots__ = ("_burst", "_per_s", "_stamp", "_tokens")

    def __init__(self, burst: float, per_s: float, now: float) -> None:
        self._burst = burst
        self._per_s = per_s
        self._tokens = burst
        self._stamp = now

    def spend(self, tokens: float, now: float) -> float:
        """Take tokens, into debt if need be; return what is left, negative for a debt."""
        have = self._tokens + (now - self._stamp) * self._per_s
        self._stamp = now
        left = self._tokens = (min(self._burst, have)) - tokens
        return left

    def delay_s(self, tokens: float, now: float) -> float:
        """Take tokens, into debt if need be; return how long the bucket needs to pay it."""
        left = self.spend(tokens, now)
        return 0.0 if left >= 0 else -left / self._per_s

    def allow(self, tokens: float, now: float) -> bool:
        """Take tokens if there are so many; return whether there were."""
        if self.spend(tokens, now) >= 0:
            return True
        self._tokens += tokens
        return False

    def grant(self, tokens: float) -> None:
        """Give tokens that time does not bring; what is above the burst is lost at the next take."""
        self._tokens += tokens

    def widen(self, burst: float, per_s: float) -> None:
        """Enlarge the bucket, and fill in what it holds more."""
        self._tokens += burst - self._burst
        self._burst = burst
        self._per_s = per_s


class SourceBuckets:
    """A bucket for each source (``front.source``); the one that was idle longest makes room."""

    __slots__ = ("_buckets", "_burst", "_most", "_per_s")

    def __init__(self, burst: float, per_s: float, most: int) -> None:
        self._burst = burst
        self._per_s = per_s
        self._most = most
        self._buckets: dict[str, TokenBucket] = {}

    def allow(self, source: str, now: float) -> bool:
        """Take one token of this source, if it has one."""
        bucket = self._buckets.pop(source, None)
        if bucket is None:
            bucket = TokenBucket(self._burst, self._per_s, now)
            if len(self._buckets) >= self._most:
                del self._buckets[next(iter(self._buckets))]
        self._buckets[source] = bucket
        return bucket.allow(1, now)

    def has(self, source: str, now: float) -> bool:
        """Tell whether this source has a token left, without taking it."""
        bucket = self._buckets.get(source)
        return bucket is None or bucket.spend(0, now) >= 1
