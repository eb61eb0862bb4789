"""What every handler refuses before it looks at the meaning."""

from __future__ import annotations

import pytest

from tests.api.conftest import House


@pytest.mark.parametrize(
    "body", [b"\xff{}", b'{"name":"\xf8"}', b"[" * 100_000, b"[]", b"nothing", b'{"name":[]}']
)
async def test_body_that_cannot_be_read_is_refused(house: House, body: bytes) -> None:
    async with house.client.post("/api/v1/user", data=body) as response:
        assert response.status == 400


@pytest.mark.parametrize("text", ["9999-12-31T23:59:59-23:59", "soon", "2030-01-01T00:00:00"])
async def test_time_that_cannot_be_kept_is_refused(house: House, text: str) -> None:
    user_id = await house.user("alice")
    body = {"user": str(user_id), "expiration": text}
    status, answer = await house.call("POST", "/api/v1/preauthkey", body)
    assert status == 400
    assert text in answer["message"]
