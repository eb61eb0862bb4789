"""Bodies and paths that make no sense: a refusal in words, never a failure of the server."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tests.api.conftest import open_house

CALLS = (
    ("POST", "/api/v1/user"),
    ("POST", "/api/v1/preauthkey"),
    ("POST", "/api/v1/preauthkey/expire"),
    ("POST", "/api/v1/node/1/expire"),
    ("POST", "/api/v1/node/1/tags"),
    ("POST", "/api/v1/node/1/approve_routes"),
    ("POST", "/verify"),
)
MEMBERS = [
    "name",
    "displayName",
    "email",
    "pictureUrl",
    "user",
    "reusable",
    "ephemeral",
    "expiration",
    "aclTags",
    "id",
    "expiry",
    "disableExpiry",
    "tags",
    "routes",
    "NodePublic",
    "Source",
]

texts = st.text(max_size=12) | st.sampled_from(
    ["1", "0", "-1", "tag:a", "10.0.0.0/8", "::/0", "2031-01-01T00:00:00Z", "9999-12-31T23:59:59Z"]
)
plain = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | texts,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(texts, inner, max_size=3),
    max_leaves=6,
)
bodies = st.dictionaries(st.sampled_from(MEMBERS), plain, max_size=6) | plain
calls = st.lists(st.tuples(st.sampled_from(CALLS), bodies), min_size=20, max_size=20)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(calls)
async def test_no_body_makes_the_server_fail(
    tries: list[tuple[tuple[str, str], Any]],
) -> None:
    async with open_house() as house:
        await house.node("alice", "laptop")
        for (method, path), body in tries:
            status, answer = await house.call(method, path, body)
            assert status < 500, (method, path, json.dumps(body), answer)


@settings(max_examples=8, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.lists(st.text(min_size=1, max_size=20), min_size=10, max_size=10))
async def test_no_path_makes_the_server_fail(names: list[str]) -> None:
    from urllib.parse import quote

    async with open_house() as house:
        await house.node("alice", "laptop")
        for name in names:
            piece = quote(name, safe="")
            for method, path in (
                ("GET", f"/api/v1/node/{piece}"),
                ("GET", f"/api/v1/user?name={piece}&id={piece}"),
                ("POST", f"/api/v1/node/1/rename/{piece}"),
                ("POST", f"/api/v1/user/1/rename/{piece}"),
                ("DELETE", f"/api/v1/preauthkey?id={piece}"),
            ):
                status, answer = await house.call(method, path)
                assert status < 500, (method, path, answer)
