"""Authorities on bad days: slow, silent, endless, confused, dead in the middle; and what survives."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from appliance.tls.acme.issuer import AcmeIssuer
from appliance.tls.acme.link import MAX_DETAIL, AuthorityError
from appliance.tls.current import CurrentCertificate
from appliance.tls.issuers import SelfSigned
from tests.support.faultyca import Fault, Front, Request, answer, before, problem
from tests.support.pace import patience
from tests.tls.test_acme import House, house, pebble_for, pebble_is_built

__all__ = ["house", "pebble_is_built"]
pytestmark = pytest.mark.system

REQUEST_S = 3.0
NAMES = ["a.example.com"]


@pytest.fixture
async def front(house: House) -> AsyncIterator[Front]:
    async with pebble_for(house, nonce_reject=0) as pebble, before(pebble) as made:
        yield made


def issuer_at(house: House, front: Front, **changes: object) -> AcmeIssuer:
    return house.issuer(front.pebble, url=front.url, request_s=REQUEST_S, **changes)


def at(part: str, data: bytes, *, times: int = 10**6) -> Fault:
    """Answer requests to paths with this part otherwise, so many times."""
    left = times

    async def fault(request: Request, writer: asyncio.StreamWriter) -> bool:
        nonlocal left
        if part not in request.path or not left:
            return False
        left -= 1
        writer.write(data)
        return True

    return fault


async def hangs(_request: Request, _writer: asyncio.StreamWriter) -> bool:
    await asyncio.Event().wait()
    return True


async def drips(_request: Request, writer: asyncio.StreamWriter) -> bool:
    writer.write(
        b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: 9999\r\n\r\n"
    )
    while not writer.is_closing():
        writer.write(b" ")
        await writer.drain()
        await asyncio.sleep(0.05)
    return True


async def never_ends(_request: Request, writer: asyncio.StreamWriter) -> bool:
    writer.write(b"HTTP/1.1 200 OK\r\n\r\n")
    while not writer.is_closing():
        writer.write(bytes(64 * 1024))
        await writer.drain()
        await asyncio.sleep(0)  # a full buffer that is closed meanwhile waits for nobody
    return True


@pytest.mark.parametrize(
    ("fault", "told"),
    [
        (hangs, "did not finish its answer within"),
        (drips, "did not finish its answer within"),
        (never_ends, "longer than 1048576 bytes"),
        (at("/dir", answer(200, b"<html>a portal</html>")), "cannot be understood"),
        (at("/dir", answer(200, {"hello": "world"})), "no ACME directory"),
        (at("/dir", answer(200, [1])), "no ACME directory"),
        (at("/dir", answer(503, b"busy", "Retry-After: 7200")), "answered with 503"),
        (at("/dir", answer(302, b"", "Location: http://127.0.0.1:1/x")), "cannot be reached|http"),
        (at("nonce", answer(200, b"")), "no nonce"),
        (at("order", answer(201, [])), "something else than an object"),
        (at("order", answer(201, {}, "Replay-Nonce: AAAA")), "ended the order|understood|reached"),
        (at("sign-me-up", problem("externalAccountRequired", "first")), "first"),
    ],
    ids=lambda each: each if isinstance(each, str) else "",
)
async def test_each_bad_day_is_told_in_words_and_over_in_time(
    house: House, front: Front, fault: Fault, told: str
) -> None:
    front.fault = fault
    issuer = issuer_at(house, front)
    began = time.monotonic()
    with pytest.raises(AuthorityError, match=told):
        await issuer.obtain(NAMES)
    assert time.monotonic() - began < patience(12 * REQUEST_S)
    assert issuer.trouble
    assert len(issuer.trouble) < 4 * MAX_DETAIL
    assert "\n" not in issuer.trouble
    front.fault = at("nowhere", b"")
    await issuer.obtain(NAMES)
    assert not issuer.trouble, "a later success ends it"


async def test_a_rate_limit_is_obeyed_over_a_restart(house: House, front: Front) -> None:
    front.fault = at("order", problem("rateLimited", "too many", "Retry-After: 86400", status=429))
    with pytest.raises(AuthorityError, match="too many"):
        await issuer_at(house, front).obtain(NAMES)
    again = issuer_at(house, front)
    day = datetime.now(UTC) + timedelta(hours=23)
    assert again.not_before > day
    assert again.hurry() > day
    assert "nothing to do" in again.advice


async def test_a_pause_that_the_authority_wants_is_kept(house: House, front: Front) -> None:
    """Longer than an attempt may last: the order is taken up after it."""
    pending = answer(
        *(200, {"status": "pending", "identifier": {"type": "dns", "value": NAMES[0]}}),
        *("Retry-After: 3600", "Replay-Nonce: AAAA"),
    )
    answers_once = at("authZ", pending, times=2)

    async def fault(request: Request, writer: asyncio.StreamWriter) -> bool:
        return front.count("chalZ") > 0 and await answers_once(request, writer)

    front.fault = fault
    issuer = issuer_at(house, front)
    with pytest.raises(AuthorityError, match="taken up again"):
        await issuer.obtain(NAMES)
    assert issuer.not_before > datetime.now(UTC) + timedelta(minutes=55)
    front.fault = at("nowhere", b"")
    orders = front.count("order-plz")
    await issuer.obtain(NAMES)
    assert front.count("order-plz") <= orders + 1


@pytest.mark.parametrize("part", ["sign-me-up", "order-plz", "authZ", "chalZ", "finalize", "certZ"])
async def test_an_authority_that_dies_in_the_middle_is_gone_on_with(
    house: House, front: Front, part: str
) -> None:
    async def dies(request: Request, writer: asyncio.StreamWriter) -> bool:
        if part not in request.path:
            return False
        writer.transport.abort()
        return True

    front.fault = dies
    issuer = issuer_at(house, front)
    with pytest.raises(AuthorityError, match="cannot be reached"):
        await issuer.obtain(NAMES)
    assert front.count(part)
    front.fault = at("nowhere", b"")
    await issuer.obtain(NAMES)


async def test_optional_things_may_be_missing(house: House, front: Front) -> None:
    """No renewal information, no profiles, no meta, no terms: what small authorities lack."""
    url = f"https://127.0.0.1:{front.port}"
    bare = {"newNonce": f"{url}/nonce-plz", "newAccount": f"{url}/sign-me-up"}
    front.fault = at("/dir", answer(200, {**bare, "newOrder": f"{url}/order-plz"}))
    issuer = issuer_at(house, front)
    found = await issuer.obtain(NAMES)
    await issuer.attend(found)
    assert found.facts.not_before < issuer.renew_at(found) < found.facts.not_after


async def test_a_certificate_of_another_key_is_not_taken(house: House, front: Front) -> None:
    chain = (front.pebble.directory / "server.pem").read_bytes()
    front.fault = at("certZ", answer(200, chain, "Replay-Nonce: AAAA"))
    issuer = issuer_at(house, front)
    with pytest.raises(Exception, match="for another key"):
        await issuer.obtain(NAMES)
    assert await issuer.at_hand(NAMES) is None


async def test_a_clock_that_is_wrong_is_said(house: House, front: Front) -> None:
    later = datetime.now(UTC) + timedelta(days=3)
    issuer = issuer_at(house, front, now=lambda: later)
    await issuer.obtain(NAMES)
    assert "clock is 3 days" in issuer.advice
    assert "ahead of" in issuer.advice


async def test_what_is_served_stays_whatever_the_authority_does(
    house: House, front: Front, tmp_path: Path
) -> None:
    clock = [datetime.now(UTC)]
    issuer = issuer_at(house, front, now=lambda: clock[0])
    current = await CurrentCertificate.open(
        issuer, NAMES, until_then=SelfSigned(tmp_path / "own"), now=lambda: clock[0]
    )
    await current.renew_if_due()
    first = current.certificate.digest
    for fault in (hangs, drips, at("order", problem("serverInternal", "oh", status=500))):
        front.fault = fault
        clock[0] += timedelta(days=80)
        current.hurry()
        with pytest.raises(AuthorityError):
            await current.renew_if_due()
        assert current.certificate.digest == first
        asked = len(front.asked)
        for _ in range(20):  # looks that come too soon ask nobody
            with pytest.raises(Exception, match=r"authority|oh"):
                await current.renew_if_due()
        assert len(front.asked) == asked
    front.fault = at("nowhere", b"")
    clock[0] += timedelta(days=1)
    await current.renew_if_due()
    assert current.certificate.digest != first
    assert not current.status().trouble


async def test_a_full_disk_stops_the_attempt_before_anybody_is_asked(
    house: House, front: Front, monkeypatch: pytest.MonkeyPatch
) -> None:
    from appliance.tls.acme import ledger

    def full(*_arguments: object, **_more: object) -> None:
        raise OSError(28, "No space left on device")

    issuer = issuer_at(house, front)
    with monkeypatch.context() as patch:
        patch.setattr(ledger, "write_whole", full)
        with pytest.raises(OSError, match="No space"):
            await issuer.obtain(NAMES)
    assert not front.asked
    await issuer.obtain(NAMES)
