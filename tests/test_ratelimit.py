"""Token buckets: what they allow, against a plain sum."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from appliance.ratelimit import SourceBuckets, TokenBucket


def test_burst_then_rate() -> None:
    bucket = TokenBucket(3, 2.0, 10.0)
    assert [bucket.allow(1, 10.0) for _ in range(4)] == [True, True, True, False]
    assert not bucket.allow(1, 10.4)
    assert bucket.allow(1, 10.5)
    assert [bucket.allow(1, 1000.0) for _ in range(4)] == [True, True, True, False]


def test_debt_is_paid_by_time() -> None:
    bucket = TokenBucket(100, 10.0, 0.0)
    assert bucket.delay_s(150, 0.0) == 5
    assert bucket.spend(0, 4.0) == -10
    assert not bucket.allow(1, 5.0)
    assert bucket.allow(1, 5.5)


def test_refused_tokens_are_not_taken() -> None:
    bucket = TokenBucket(5, 0.0, 0.0)
    assert not bucket.allow(6, 0.0)
    assert bucket.allow(5, 0.0)


def test_wider_bucket_has_what_it_holds_more() -> None:
    bucket = TokenBucket(2, 0.0, 0.0)
    assert bucket.allow(2, 0.0)
    bucket.widen(5, 1.0)
    assert bucket.spend(3, 0.0) == 0
    bucket.grant(4)
    assert bucket.spend(4, 0.0) == 0


def test_idle_source_makes_room_for_a_new_one() -> None:
    sources = SourceBuckets(burst=1, per_s=0, most=2)
    assert sources.allow("a", 0.0)
    assert sources.allow("b", 0.0)
    assert not sources.allow("a", 0.0)
    assert sources.allow("c", 0.0)  # "b" was idle longest
    assert not sources.allow("a", 0.0)
    assert sources.allow("b", 0.0)


@given(
    st.integers(1, 50),
    st.integers(0, 20),
    st.lists(st.tuples(st.integers(0, 5), st.integers(1, 60)), max_size=60),
)
def test_never_more_than_burst_and_rate(
    burst: int, per_s: int, takes: list[tuple[int, int]]
) -> None:
    bucket = TokenBucket(burst, per_s, 0.0)
    now, taken = 0, 0
    for pause, tokens in takes:
        now += pause
        taken += tokens * bucket.allow(tokens, float(now))
        assert taken <= burst + per_s * now
