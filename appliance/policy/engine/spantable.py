"""Which flows name an address or a prefix: a table from spans to sets of flows.

Built once for a policy, then asked about every node. A question costs the logarithm of the number
of spans, however they overlap. Not for words that name nodes (``matches`` has those). Sits on
``spans``.
"""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from appliance.policy.text import spans
from appliance.policy.text.spans import Span
from appliance.records import Address


class Flows(NamedTuple):
    """Sets of flow numbers: those that start in a place, and those that end there."""

    src: int
    dst: int


NO_FLOWS = Flows(0, 0)


class SpanTable:
    """The spans that a policy names, and the flows that each stands in."""

    __slots__ = ("_families", "_flows")

    def __init__(self) -> None:
        self._flows: dict[Span, Flows] = {}
        self._families: dict[int, _Family] | None = None

    def __bool__(self) -> bool:
        return bool(self._flows)

    def enter(self, span: Span, src: int = 0, dst: int = 0) -> None:
        """Let a span stand in these flows too, if there are any."""
        if not (src or dst):
            return
        known = self._flows.get(span, NO_FLOWS)
        self._flows[span] = Flows(known.src | src, known.dst | dst)
        self._families = None

    def items(self) -> Iterable[tuple[Span, Flows]]:
        """Walk over all spans."""
        return self._flows.items()

    def at(self, address: Address) -> Flows:
        """Return the flows that name an address."""
        return self._family(address.version).at(int(address)) if self._flows else NO_FLOWS

    def meeting(self, span: Span) -> Flows:
        """Return the flows that name any address of a span."""
        return self._family(span.family).meeting(span) if self._flows else NO_FLOWS

    def spans_meeting(self, span: Span) -> Iterator[Span]:
        """Walk over the spans that share an address with this one; some more than once."""
        return self._family(span.family).spans_meeting(span)

    def _family(self, number: int) -> _Family:
        if self._families is None:
            self._families = {
                family: _Family(
                    [(span, flows) for span, flows in self._flows.items() if span.family == family]
                )
                for family in (4, 6)
            }
        return self._families[number]


class _Family:
    """The spans of one address family, as two trees over their ends.

    ``_parts`` is a segment tree: every span stands at the few inner nodes that cut it up, so that
    the way from a leaf to the root meets all spans around an address, each once. ``_starts`` joins
    neighbours in the order of their first address.
    """

    __slots__ = ("_flows", "_joined", "_lows", "_parts", "_points", "_starts")

    def __init__(self, items: list[tuple[Span, Flows]]) -> None:
        self._points = sorted({end for s, _ in items for end in (s.low, s.high + 1)})
        self._flows = dict(items)
        places = {point: number for number, point in enumerate(self._points)}
        size = len(self._points)
        self._parts: dict[int, list[Span]] = {}
        for span, _ in items:
            left, right = places[span.low] + size, places[span.high + 1] + size
            while left < right:
                if left & 1:
                    self._parts.setdefault(left, []).append(span)
                    left += 1
                if right & 1:
                    right -= 1
                    self._parts.setdefault(right, []).append(span)
                left >>= 1
                right >>= 1
        self._joined: dict[int, Flows] = {}
        ordered = sorted(self._flows)
        self._lows = [span.low for span in ordered]
        self._starts: list[Flows] | None = None

    def at(self, number: int) -> Flows:
        src = dst = 0
        for place in self._way(number):
            joined = self._joined.get(place)
            if joined is None:
                joined = self._joined[place] = _join(self._flows[s] for s in self._parts[place])
            src |= joined.src
            dst |= joined.dst
        return Flows(src, dst)

    def _way(self, number: int) -> Iterator[int]:
        place = bisect_right(self._points, number) - 1 + len(self._points)
        if place < len(self._points):
            return
        while place:
            if place in self._parts:
                yield place
            place >>= 1

    def meeting(self, span: Span) -> Flows:
        around = self.at(span.low)
        left, right = self._started(span)
        if left >= right:
            return around
        if self._starts is None:
            self._starts = self._start_tree()
        found = [around]
        left, right = left + len(self._lows), right + len(self._lows)
        while left < right:
            if left & 1:
                found.append(self._starts[left])
                left += 1
            if right & 1:
                right -= 1
                found.append(self._starts[right])
            left >>= 1
            right >>= 1
        return _join(found)

    def _started(self, span: Span) -> tuple[int, int]:
        """Return which spans, in their order, begin inside this one behind its first address."""
        return bisect_right(self._lows, span.low), bisect_right(self._lows, span.high)

    def _start_tree(self) -> list[Flows]:
        leaves = [self._flows[span] for span in sorted(self._flows)]
        tree = [NO_FLOWS] * len(leaves) + leaves
        for place in range(len(leaves) - 1, 0, -1):
            tree[place] = _join(tree[2 * place : 2 * place + 2])
        return tree

    def spans_meeting(self, span: Span) -> Iterator[Span]:
        for place in self._way(span.low):
            yield from self._parts[place]
        left, right = self._started(span)
        if left < right:
            yield from sorted(self._flows)[left:right]


def _join(flows: Iterable[Flows]) -> Flows:
    src = dst = 0
    for each in flows:
        src |= each.src
        dst |= each.dst
    return Flows(src, dst)


def is_internet(span: Span) -> bool:
    """Return whether all of a span is what exit nodes lead to."""
    return any(
        part.family == span.family and part.low <= span.low and span.high <= part.high
        for part in spans.INTERNET
    )
