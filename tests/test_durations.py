"""Durations as text: two dialects, one parser; what is written reads back."""

from __future__ import annotations

from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import durations


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0s", 0),
        ("90s", 90),
        ("1h30m", 5400),
        ("30d", 2592000),
        ("1.5h", 5400),
        ("250ms", 0.25),
        ("1y", 31536000),
        ("2w", 1209600),
        ("100y", 3153600000),
    ],
)
def test_reads_our_own_form(text: str, seconds: float) -> None:
    assert durations.parse(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "5", "h", "1h 2m", "-1h", "1000000y", "1e3s", "1.h", "9" * 5000 + "y"]
)
def test_refuses_what_is_none(text: str) -> None:
    with pytest.raises(ValueError, match="a duration"):
        durations.parse(text)


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        ("0", 0),
        ("-5s", -5),
        ("+1h", 3600),
        ("1.5h", 5400),
        ("1.s", 1),
        (".5s", 0.5),
        ("1800000000000ns", 1800),
        ("3us", 3e-6),
        ("3µs", 3e-6),
        ("1h30m0s", 5400),
    ],
)
def test_reads_the_form_of_go(text: str, seconds: float) -> None:
    assert durations.parse_go(text) == timedelta(seconds=seconds)


@pytest.mark.parametrize(
    "text", ["", "1", "-", "h", "1h ", "1x", "1d", "1h 2m", "--1h", "9" * 400 + "h"]
)
def test_refuses_what_go_refuses(text: str) -> None:
    with pytest.raises(ValueError, match="a duration"):
        durations.parse_go(text)


@given(st.timedeltas(min_value=timedelta(0), max_value=durations.LONGEST))
def test_what_is_written_reads_back(value: timedelta) -> None:
    """Down to the microsecond: ``1e-06s`` is no duration."""
    assert abs(durations.parse(durations.to_text(value)) - value) <= timedelta(microseconds=1)


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0s"),
        (5, "5s"),
        (1800, "30m0s"),
        (5400, "1h30m0s"),
        (90, "1m30s"),
        (604801, "168h0m1s"),
        (-60, "-1m0s"),
    ],
)
def test_writes_the_form_of_go(seconds: float, text: str) -> None:
    assert durations.to_go(timedelta(seconds=seconds)) == text


def test_policies_write_no_days() -> None:
    week = timedelta(days=7)
    assert durations.to_text(week) == "7d"
    assert durations.to_text(week, largest="h") == "168h"
