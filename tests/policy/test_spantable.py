"""The table of spans answers as trying every span does."""

from __future__ import annotations

from ipaddress import IPv4Address, IPv6Address

from hypothesis import given
from hypothesis import strategies as st

from appliance.policy.engine.spantable import Flows, SpanTable, is_internet
from appliance.policy.text import spans
from appliance.policy.text.spans import Span

ENDS = st.tuples(st.sampled_from((4, 6)), st.integers(0, 40), st.integers(0, 12))
SPANS = ENDS.map(lambda each: Span(each[0], each[1], each[1] + each[2]))
ENTRIES = st.lists(st.tuples(SPANS, st.integers(0, 255), st.integers(0, 255)), max_size=30)


def slow(entries: list[tuple[Span, int, int]], wanted: Span) -> Flows:
    src = dst = 0
    for span, starts, ends in entries:
        if span.meets(wanted):
            src, dst = src | starts, dst | ends
    return Flows(src, dst)


@given(ENTRIES, st.lists(SPANS, max_size=10))
def test_table_answers_as_trying_every_span_does(
    entries: list[tuple[Span, int, int]], questions: list[Span]
) -> None:
    table = SpanTable()
    for span, src, dst in entries:
        table.enter(span, src, dst)
    for wanted in questions:
        assert table.meeting(wanted) == slow(entries, wanted)
        named = {span for span, src, dst in entries if (src or dst) and span.meets(wanted)}
        assert set(table.spans_meeting(wanted) if table else ()) == named
        one = IPv4Address if wanted.family == 4 else IPv6Address
        assert table.at(one(wanted.low)) == slow(entries, wanted._replace(high=wanted.low))


@given(SPANS, st.sampled_from((0, 1 << 24, 10 << 24, 11 << 24, (1 << 32) - 60)))
def test_internet_is_what_is_left_without_the_rest(span: Span, base: int) -> None:
    moved = Span(4, base + span.low, base + span.high)
    assert is_internet(moved) is (not spans.subtract((moved,), spans.INTERNET))
