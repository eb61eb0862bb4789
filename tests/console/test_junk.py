"""What strangers send to pages that no browser sends: an answer, and never the log of a bug."""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from dataclasses import replace
from secrets import token_bytes
from typing import Any

import pytest
import segno

from appliance.identity import credentials
from appliance.identity.principals import LOCAL
from appliance.records import Credential, CredentialID
from tests.console.conftest import House

STATE = b"Cookie: __Host-headwater-state=" + b"a" * 43 + b"\r\n"
SITE = b"Sec-Fetch-Site: same-origin\r\n"
FORM = b"Content-Type: application/x-www-form-urlencoded"


async def ask(house: House, line: bytes, headers: bytes, body: bytes = b"") -> int:
    """Send bytes; give the status."""
    reader, writer = await asyncio.open_connection("127.0.0.1", house.client.port)
    length = b"Content-Length: %d\r\n" % len(body)
    head = line + b" HTTP/1.1\r\nHost: x\r\nConnection: close\r\n" + headers + length + b"\r\n"
    writer.write(head + body)
    answer = await reader.read()
    writer.close()
    return int(answer.split(b" ", 2)[1])


@pytest.mark.parametrize("value", [b"\xff", "é".encode(), b"\\303\\251"])
async def test_cookies_that_are_none(house: House, value: bytes) -> None:
    for name in (b"__Host-headwater", b"__Host-headwater-state"):
        for text in (value * 43, b'"' + value * 43 + b'"'):
            assert await ask(house, b"GET /", b"Cookie: " + name + b"=" + text + b"\r\n") == 200


async def test_a_token_that_is_none(house: House) -> None:
    headers = SITE + STATE + b"X-CSRF-Token: \xff\r\n"
    assert await ask(house, b"POST /signin/code", headers) == 403


@pytest.mark.parametrize(
    ("more", "body", "status"),
    [
        (b"", b"csrf=\xff", 400),
        (b"; charset=nonsense", b"csrf=a", 403),
        (b"; charset=utf-16", b"csrf=a", 403),
        (b"; charset=punycode", b"a-" + b"9" * 16_000, 403),
        (b"", b"a&" * 100, 400),
        (b"", b"csrf=%ff%ed%a0%80", 403),
    ],
)
async def test_forms_that_are_none(house: House, more: bytes, body: bytes, status: int) -> None:
    headers = SITE + STATE + FORM + more + b"\r\n"
    assert await ask(house, b"POST /signin/code", headers, body) == status


async def test_the_code_of_the_address_is_drawn_once(
    house: House, monkeypatch: pytest.MonkeyPatch
) -> None:
    await house.browser().get("/apple")
    monkeypatch.setattr(segno, "make", lambda *_a, **_k: pytest.fail("drawn again"))
    assert (await house.browser().get("/windows")).status == 200


async def test_credentials_are_not_looked_through_for_each_stranger(house: House) -> None:
    user = await house.user("alice")
    page = await house.browser().get("/signin")
    assert "Recovery code" not in page.words
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        credentials.make_codes(edit, user.id, house.clock(), random_bytes=token_bytes)
    looked: list[str] = []

    class Watched(dict[CredentialID, Credential]):
        def values(self) -> Any:
            looked.append("through")
            return super().values()

    house.live.snapshot = replace(
        house.live.snapshot, credentials=Watched(house.live.snapshot.credentials)
    )
    for _ in range(3):
        assert "Recovery code" in (await house.browser().get("/signin")).words
    assert looked == ["through"]


async def test_an_answer_of_a_passkey_is_bounded(house: House) -> None:
    headers = SITE + STATE + b"Content-Type: application/json\r\nX-CSRF-Token: "
    token = hmac.new(b"a" * 43, b"headwater form", hashlib.sha256).hexdigest().encode()
    for size, status in ((16 * 1024 - 2, 403), (16 * 1024 - 1, 413)):
        body = b'"' + b"a" * size + b'"'
        body = body if status == 413 else b"{" + b" " * size + b"}"
        line = b"POST /signin/passkey/complete"
        assert await ask(house, line, headers + token + b"\r\n", body) == status
