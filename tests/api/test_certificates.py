"""``/api/v1/certificate`` and ``headwater certificates``: what they say of each state."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest

from appliance.tls.certificates import Facts
from appliance.tls.current import Status, complaints
from tests.api.conftest import House
from tests.support.clock import NOON

FACTS = Facts(
    subject="",
    names=("hw.example.com", "*.a.example.com"),
    not_before=NOON - timedelta(days=10),
    not_after=NOON + timedelta(days=80),
    pin="sha256-raw:00",
    is_self_signed=False,
    renewal_id="",
)
WELL = Status(
    source="acme",
    wanted=("hw.example.com", "b.a.example.com"),
    facts=FACTS,
    is_provisional=False,
    renew_at=NOON + timedelta(days=50),
    not_before=NOON,
    doing="",
    trouble="",
    advice="",
    attempts=1,
    failures=0,
)


@pytest.mark.parametrize(
    ("status", "told"),
    [
        (replace(WELL, is_provisional=True), "a self-signed one is served"),
        (
            replace(WELL, trouble="no", advice="do", not_before=NOON + timedelta(hours=1)),
            "no; do; asked again at 2030-01-01 13:00 UTC",
        ),
        (replace(WELL, facts=replace(FACTS, not_after=NOON)), "has expired"),
        (replace(WELL, facts=replace(FACTS, not_after=NOON + timedelta(days=1))), "it expires on"),
        (replace(WELL, facts=replace(FACTS, not_before=NOON + timedelta(days=1))), "clock"),
        (replace(WELL, wanted=("c.b.a.example.com",)), "it is not for c.b.a.example.com"),
    ],
)
def test_each_trouble_is_one_sentence(status: Status, told: str) -> None:
    (sentence,) = complaints(status, NOON)
    assert told in sentence


def test_a_certificate_that_is_well_has_no_complaints() -> None:
    assert complaints(WELL, NOON) == ()


async def test_without_tls_there_is_nothing_to_renew(house: House) -> None:
    assert await house.call("GET", "/api/v1/certificate") == (200, {"certificates": []})
    status, answer = await house.call("POST", "/api/v1/certificate/renew")
    assert (status, "speaks no TLS" in answer["message"]) == (409, True)
