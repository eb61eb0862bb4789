"""When an authority may be asked again: pauses, limits, wrong clocks, whatever is killed."""

from __future__ import annotations

import stat
from datetime import datetime, timedelta
from pathlib import Path

import pytest

from appliance.tls.acme.issuer import AcmeIssuer, Site
from appliance.tls.acme.ledger import (
    AFTER_SUCCESS,
    FIRST_PAUSE,
    JITTER,
    MAX_PAUSE,
    OWN_AUTHORITY,
    Ledger,
    Limits,
    Order,
)
from appliance.tls.acme.link import MAX_DETAIL, MAX_RETRY_AFTER_S, clean, retry_after
from appliance.tls.acme.order import Wanted
from appliance.tls.challenges import Challenges
from tests.support.clock import NOON, Clock


def ledger(place: Path, clock: Clock, limits: Limits = OWN_AUTHORITY, jitter: float = 0) -> Ledger:
    return Ledger(place, limits, now=clock, jitter=lambda: jitter)


def test_pauses_double_up_to_a_bound_and_a_success_ends_them(tmp_path: Path) -> None:
    clock = Clock()
    pauses = []
    for _ in range(12):
        book = ledger(tmp_path, clock)
        book.begin()
        pauses.append(book.not_before - clock())
        clock.now = book.not_before
    assert pauses[:3] == [FIRST_PAUSE, 2 * FIRST_PAUSE, 4 * FIRST_PAUSE]
    assert pauses[-1] == MAX_PAUSE
    book.succeeded()
    assert book.not_before == clock() + AFTER_SUCCESS
    assert ledger(tmp_path, clock).state.failures == 0


def test_jitter_only_adds(tmp_path: Path) -> None:
    clock = Clock()
    book = ledger(tmp_path, clock, jitter=1.0)
    book.begin()
    assert book.not_before - clock() == FIRST_PAUSE * (1 + JITTER)


def test_what_the_authority_asks_for_is_kept_over_a_restart(tmp_path: Path) -> None:
    clock = Clock()
    book = ledger(tmp_path, clock)
    book.begin()
    book.failed("too many", "wait", 7 * 86400.0)
    again = ledger(tmp_path, clock)
    assert again.not_before == clock() + timedelta(days=7)
    assert (again.state.trouble, again.state.advice) == ("too many", "wait")
    assert again.hurry() == clock() + timedelta(days=7), "an operator's wish is no sooner"


def test_a_clock_that_is_set_back_does_not_lock_us_out(tmp_path: Path) -> None:
    clock = Clock()
    book = ledger(tmp_path, clock)
    book.begin()
    clock.now = NOON - timedelta(days=4000)
    assert ledger(tmp_path, clock).not_before <= clock() + MAX_PAUSE
    clock.now = NOON + timedelta(days=4000)
    assert ledger(tmp_path, clock).not_before <= clock()


def test_certificates_a_week_are_limited_too(tmp_path: Path) -> None:
    clock = Clock()
    book = ledger(tmp_path, clock, Limits())
    for _ in range(4):
        book.begin()
        book.succeeded()
        clock.advance(hours=2)
    assert book.hurry() == NOON + timedelta(days=7)


def test_a_damaged_file_is_no_file(tmp_path: Path) -> None:
    for name in ("state.json", "order.json"):
        (tmp_path / name).write_text('{"failures": "many"')
    book = ledger(tmp_path, Clock())
    assert book.state.failures == 0
    assert book.order(("a.example.com",), "") is None


def test_an_order_is_taken_up_only_for_the_same_names_and_profile(tmp_path: Path) -> None:
    book = ledger(tmp_path, Clock())
    book.keep_order(Order(url="https://ca/1", names=("a.example.com",), profile="short"))
    assert book.order(("a.example.com",), "short") is not None
    assert book.order(("a.example.com",), "") is None
    assert book.order(("b.example.com",), "short") is None
    assert stat.S_IMODE((tmp_path / "order.json").stat().st_mode) == 0o600
    book.forget_order()
    book.forget_order()
    assert book.order(("a.example.com",), "short") is None


def test_a_crash_loop_asks_no_more_than_the_limits_allow(tmp_path: Path) -> None:
    clock = Clock()
    times: list[datetime] = []
    site = Site("https://ca.example/dir", tmp_path, Wanted(names=()), limits=Limits())
    for _ in range(5 * 60):
        issuer = AcmeIssuer(site, Challenges(), now=clock)
        if issuer.not_before <= clock():
            times.append(clock())
            issuer._prepare()  # and the process is killed
            issuer = AcmeIssuer(site, Challenges(), now=clock)
            issuer.hurry()  # nor does an operator's wish help
        clock.advance(minutes=1)
    for at in times:
        assert sum(at <= other < at + timedelta(hours=1) for other in times) <= 5
    assert len(times) >= 5


@pytest.mark.parametrize(
    ("text", "pause_s"),
    [
        ("5", 5.0),
        (" 120 ", 120.0),
        ("99999999999999999999", MAX_RETRY_AFTER_S),
        ("Tue, 01 Jan 2030 12:01:00 GMT", 60.0),
        ("Tue, 01 Jan 2030 11:00:00 GMT", 0.0),
        ("", None),
        ("-5", None),
        ("soon", None),
        ("\u0665", None),
    ],
)
def test_retry_after_is_seconds_or_a_date(text: str, pause_s: float | None) -> None:
    assert retry_after(text, NOON) == pause_s


def test_sentences_of_others_are_one_short_printable_line() -> None:
    assert clean("a\nb\x1b[31m\tc") == "a b [31m c"
    assert len(clean("x" * 100_000)) == MAX_DETAIL + 1
