"""Recorded answers of Headscale's API, replayed; see ``tests/conformance/PROVENANCE.md``."""

from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from appliance.tailnet import apikeys
from tests.api.conftest import House

RECORDED = Path(__file__).parent.parent / "conformance" / "apiv1.jsonl"
CASES = [json.loads(line) for line in RECORDED.read_text().splitlines()]
LATER = ("/api/v1/auth/", "/api/v1/node/register")
"""Web registration comes with later issues."""

_TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?(Z|[+-]\d\d:\d\d)")
_SECRET = re.compile(r"(mkey|nodekey|discokey):[0-9a-f]{64}|hskey-auth-[0-9a-f]{12}-\*\*\*")


def is_ours(case: dict[str, Any]) -> bool:
    steps = {name for step in case["seed"] for name in step}
    known = {"user", "node", "preauthkey", "policy", "apikey"}
    return not case["path"].startswith(LATER) and steps <= known


async def plant(house: House, step: dict[str, Any]) -> None:
    """Take one step towards the starting state."""
    match step:
        case {"user": name}:
            await house.user(name)
        case {"node": {"user": owner, "hostname": name, "tags": tags}}:
            await house.node(owner, name, tuple(tags))
        case {"preauthkey": {"user": owner} as key}:
            user_id = await house.user(owner) if owner else ""
            body = {
                "user": str(user_id),
                "reusable": key["reusable"],
                "ephemeral": key["ephemeral"],
                "expiration": key["expiration"],
                "aclTags": key["tags"],
            }
            status, _ = await house.call("POST", "/api/v1/preauthkey", body)
            assert status == 200
        case {"apikey": body}:
            status, _ = await house.call("POST", "/api/v1/apikey", body)
            assert status == 200
        case {"policy": text}:
            status, _ = await house.call("PUT", "/api/v1/policy", {"policy": text})
            assert status == 200
        case _:
            raise AssertionError(step)


def masked(value: Any) -> Any:
    """Replace what differs from run to run, and the addresses (the recording had no prefixes)."""
    if isinstance(value, dict):
        shown = {key: masked(inner) for key, inner in value.items()}
        return shown | ({"ipAddresses": []} if "ipAddresses" in shown else {})
    if isinstance(value, list):
        return [masked(inner) for inner in value]
    if isinstance(value, str) and _TIME.fullmatch(value):
        return "<timestamp>"
    if isinstance(value, str) and _SECRET.fullmatch(value):
        return "<secret>"
    return value


def filled(house: House, body: Any) -> Any:
    """Put what only this run knows in place of ``$APIKEY1_ID`` and ``$APIKEY1_MASKED``."""
    if not isinstance(body, dict) or not house.live.snapshot.api_keys:
        return body
    key = next(iter(house.live.snapshot.api_keys.values()))
    known = {"$APIKEY1_ID": str(key.id), "$APIKEY1_MASKED": apikeys.shown(key)}
    return {name: known.get(value, value) for name, value in body.items()}


@pytest.mark.parametrize(
    "case", [case for case in CASES if is_ours(case)], ids=lambda case: case["id"]
)
async def test_answer_is_the_recorded_one(house: House, case: dict[str, Any]) -> None:
    for step in case["seed"]:
        await plant(house, step)
    status, answer = await house.call(case["method"], case["path"], filled(house, case["body"]))
    assert status == case["status"], answer
    if "response" in case:
        assert masked(answer) == case["response"]


def test_enough_cases_are_replayed() -> None:
    assert sum(map(is_ours, CASES)) >= 25
