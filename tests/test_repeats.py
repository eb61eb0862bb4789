"""Repetitions: the first is written, the rest counted; silence and days make news."""

from __future__ import annotations

from appliance.repeats import MAX_KEYS, QUIET_S, REMIND_S, Repeats


def test_the_first_is_news_and_the_rest_is_counted() -> None:
    repeats = Repeats()
    assert repeats.note("a", 0.0) == 0
    assert [repeats.note("a", float(second)) for second in range(1, 100)] == [None] * 99
    assert repeats.note("b", 100.0) == 0


def test_after_a_long_silence_it_is_news_with_the_count() -> None:
    repeats = Repeats()
    for second in range(10):
        repeats.note("a", float(second))
    assert repeats.note("a", 9 + QUIET_S - 1) is None
    assert repeats.note("a", 9 + 2 * QUIET_S) == 10
    assert repeats.note("a", 9 + 3 * QUIET_S) == 0


def test_what_never_stops_is_written_once_a_day() -> None:
    repeats = Repeats()
    said = [repeats.note("a", 60.0 * minute) for minute in range(3 * 24 * 60)]
    a_day = int(REMIND_S / 60)
    assert [count for count in said if count is not None] == [0, a_day - 1, a_day - 1]


def test_what_is_over_is_news_when_it_comes_back() -> None:
    repeats = Repeats()
    repeats.note("a", 0.0)
    repeats.forget("a")
    repeats.forget("never seen")
    assert repeats.note("a", 1.0) == 0


def test_keys_are_bounded_and_the_silent_one_goes_first() -> None:
    repeats = Repeats()
    for number in range(MAX_KEYS):
        repeats.note(number, 0.0)
    repeats.note(0, 1.0)
    repeats.note("one more", 2.0)
    assert repeats.note(0, 3.0) is None
    assert repeats.note(1, 3.0) == 0
