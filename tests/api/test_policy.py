"""``/api/v1/policy``: Headscale's shape and words, and our own questions."""

from __future__ import annotations

import asyncio
import hashlib
import io
import json
from pathlib import Path
from typing import Any

import pytest
from multidict import CIMultiDict

from appliance.live.policy import PolicyKeeper, PolicySource
from appliance.policy.answers import dump
from tests.api.conftest import House

PATH = "/api/v1/policy"
CLOSED = '{"acls": []}'
OPEN = '{"acls": [{"action": "accept", "src": ["*"], "dst": ["*:*"]}]}'
FAILING = '{"acls": [], "tests": [{"src": "alice@", "accept": ["bob@:22"]}]}'


def keep_elsewhere(house: House, source: PolicySource) -> None:
    """Let the policy come from a file or from the settings."""
    policies = house.door.policies
    assert isinstance(policies, dict)
    policies[house.live.id] = PolicyKeeper(house.live, source)


async def test_policy_is_set_and_shown_as_it_was_written(house: House) -> None:
    status, answer = await house.call("GET", PATH)
    assert (status, "acl policy not found" in answer["message"]) == (500, True)
    status, put = await house.call("PUT", PATH, {"policy": CLOSED})
    assert (status, put["policy"]) == (200, CLOSED)
    assert await house.call("GET", PATH) == (200, put)
    assert house.live.snapshot.policy.acls == ()


def etag(text: str) -> str:
    return f'"{hashlib.sha256(text.encode()).hexdigest()}"'


async def write(house: House, text: str, *conditions: str) -> tuple[int, str, Any]:
    """Put a policy on a condition; give status, ETag and answer."""
    headers = CIMultiDict(("If-Match", each) for each in conditions)
    body = {"policy": text}
    async with house.client.put(PATH, json=body, headers=headers) as response:
        return response.status, response.headers["ETag"], await response.json(content_type=None)


async def test_text_in_force_has_an_etag(house: House) -> None:
    async with house.client.get(PATH) as response:
        assert response.headers["ETag"] == '"ts-default"'
    for text in (CLOSED, OPEN, CLOSED):
        assert (await write(house, text))[:2] == (200, etag(text))
        async with house.client.get(PATH) as response:
            assert response.headers["ETag"] == etag(text)
        _, status = await house.call("GET", f"{PATH}/status")
        assert f'"{status["etag"]}"' == etag(text)


@pytest.mark.parametrize(
    "conditions",
    [
        (etag(OPEN),),
        (etag(OPEN).strip('"'),),
        (f'"other", {etag(OPEN)}',),
        ('"other"', etag(OPEN)),
        ("*",),
    ],
)
async def test_text_is_replaced_by_who_has_seen_it(house: House, conditions: tuple[str]) -> None:
    await write(house, OPEN)
    assert (await write(house, CLOSED, *conditions))[:2] == (200, etag(CLOSED))


@pytest.mark.parametrize(
    "condition", [etag(CLOSED), f"W/{etag(OPEN)}", '"ts-default"', "ts-default", ""]
)
async def test_text_that_the_writer_has_not_seen_stays(house: House, condition: str) -> None:
    await write(house, OPEN)
    status, found, answer = await write(house, CLOSED, condition)
    assert (status, found, answer["status"], answer["code"]) == (412, etag(OPEN), 412, 9)
    assert "get the policy that is in force" in answer["detail"]
    assert (await house.call("GET", PATH))[1]["policy"] == OPEN


async def test_first_policy_can_be_written_only_once(house: House) -> None:
    for condition in (etag(OPEN), "*"):
        status, found, _ = await write(house, OPEN, condition)
        assert (status, found) == (412, '"ts-default"')
    assert (await write(house, OPEN, '"ts-default"'))[0] == 200
    assert (await write(house, CLOSED, '"ts-default"'))[0] == 412


@pytest.mark.parametrize("condition", ['"open', 'a"b', "a b"])
async def test_condition_that_cannot_be_read_is_not_left_out(house: House, condition: str) -> None:
    headers = {"If-Match": condition}
    async with house.client.put(PATH, json={"policy": CLOSED}, headers=headers) as response:
        assert response.status == 400
        assert "If-Match is a list" in (await response.json(content_type=None))["detail"]
    assert house.live.snapshot.policy_text is None


async def test_of_two_writers_with_one_text_in_front_the_first_wins(house: House) -> None:
    await write(house, OPEN)
    texts = [f"{CLOSED}// {n}" for n in range(5)]
    done = await asyncio.gather(*(write(house, text, etag(OPEN)) for text in texts))
    assert sorted(status for status, _, _ in done) == [200, 412, 412, 412, 412]
    (winner,) = (text for text, (status, _, _) in zip(texts, done, strict=True) if status == 200)
    assert (await house.call("GET", PATH))[1]["policy"] == winner


@pytest.mark.parametrize("path", [PATH, f"{PATH}/check"])
@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"acls": [', "parsing policy from bytes: line 1, column 11"),
        ('{"aclz": []}', 'unknown field "aclz"; did you mean "acls"?'),
        (FAILING, "test(s) failed"),
    ],
)
async def test_bad_policy_is_refused_and_the_one_before_stays(
    house: House, path: str, text: str, words: str
) -> None:
    await house.user("alice")
    await house.user("bob")
    await house.call("PUT", PATH, {"policy": OPEN})
    method = "PUT" if path == PATH else "POST"
    status, answer = await house.call(method, path, {"policy": text})
    assert (status, answer["code"]) == (400, 3)
    assert words in answer["message"]
    assert words in answer["detail"]
    assert answer["mistakes"][0]["line"] == 1
    assert (await house.call("GET", PATH))[1]["policy"] == OPEN


@pytest.mark.parametrize("body", [None, {}, {"policy": ""}, {"policy": " \n"}, {"polcy": "{}"}])
@pytest.mark.parametrize(("method", "path"), [("PUT", PATH), ("POST", f"{PATH}/check")])
async def test_missing_text_does_not_open_the_tailnet(
    house: House, method: str, path: str, body: object
) -> None:
    await house.call("PUT", PATH, {"policy": CLOSED})
    status, answer = await house.call(method, path, body)
    assert (status, "write {} if" in answer["message"]) == (400, True)
    assert (await house.call("GET", PATH))[1]["policy"] == CLOSED


async def test_check_changes_nothing(house: House) -> None:
    assert await house.call("POST", f"{PATH}/check", {"policy": CLOSED}) == (200, {})
    named = CLOSED.replace("{", '{"groups": {"group:a": ["alcie@"]},', 1)
    status, said = await house.call("POST", f"{PATH}/check", {"policy": named})
    assert (status, len(said["notes"])) == (200, 1)
    assert house.live.snapshot.policy_text is None


async def test_policy_of_a_file_is_changed_there(house: House) -> None:
    await house.call("PUT", PATH, {"policy": OPEN})
    keep_elsewhere(house, PolicySource("file", Path("/etc/headwater/policy.hujson")))
    status, answer = await house.call("PUT", PATH, {"policy": CLOSED})
    assert status == 400
    assert "update is disabled for modes other than 'database'" in answer["message"]
    assert "/etc/headwater/policy.hujson" in answer["message"]
    # Consoles offer no editing where there is no time.
    assert await house.call("GET", PATH) == (200, {"policy": OPEN, "updatedAt": None})
    _, answer = await house.call("GET", f"{PATH}/status")
    assert (answer["source"], answer["file"]) == ("file", "/etc/headwater/policy.hujson")


async def test_status_says_since_when_and_by_whom(house: House) -> None:
    _, answer = await house.call("GET", f"{PATH}/status")
    assert answer == {
        "source": "database",
        "file": "",
        "since": None,
        "by": "",
        "etag": "ts-default",
        "deniesAll": False,
        "trouble": "",
        "troubleSince": None,
    }
    await house.call("PUT", PATH, {"policy": OPEN})
    _, answer = await house.call("GET", f"{PATH}/status")
    assert answer["by"] == "local:socket"
    assert answer["since"].endswith("Z")


async def test_tests_are_run_without_refusing(house: House) -> None:
    await house.user("alice")
    await house.user("bob")
    status, answer = await house.call("POST", f"{PATH}/test", {"policy": FAILING})
    assert (status, answer["ok"], answer["tests"]) == (200, False, 1)
    assert "expected ALLOWED, got DENIED" in answer["mistakes"][0]["message"]
    assert await house.call("POST", f"{PATH}/test") == (
        200,
        {"ok": True, "tests": 0, "mistakes": []},
    )


async def test_diff_and_explanation_are_about_the_policy_in_force(house: House) -> None:
    await house.node("alice", "laptop")
    await house.node("bob", "phone")
    question = {"src": "laptop", "dst": "phone:22"}
    _, answer = await house.call("POST", f"{PATH}/explain", question)
    assert answer["pairs"][0]["reasons"][0]["section"] == "no acls and no grants"
    _, answer = await house.call("POST", f"{PATH}/diff", {"policy": CLOSED})
    assert [change["node"] for change in answer["changes"]] == ["laptop", "phone"]
    await house.call("PUT", PATH, {"policy": CLOSED})
    _, answer = await house.call("POST", f"{PATH}/diff", {"policy": CLOSED})
    assert answer == {"nodes": 2, "changes": []}
    _, answer = await house.call("POST", f"{PATH}/diff", {"policy": CLOSED, "against": OPEN})
    assert answer["changes"][0]["peersLost"] == ["phone"]
    _, answer = await house.call("POST", f"{PATH}/explain", question)
    assert answer["allowed"] is False
    _, answer = await house.call("POST", f"{PATH}/explain", {**question, "policy": OPEN})
    assert answer["pairs"][0]["reasons"][0]["rule"] == "* -> *:*"


@pytest.mark.parametrize(
    ("path", "body", "status", "of"),
    [
        ("diff", {"policy": "{"}, 400, "policy"),
        ("diff", {"policy": "{}", "against": "{"}, 400, "against"),
        ("explain", {"src": "laptop", "dst": "phone", "policy": "{"}, 400, "policy"),
        ("test", {"policy": "{"}, 400, "policy"),
        ("explain", {"src": "nobody", "dst": "phone"}, 404, None),
        ("explain", {}, 404, None),
        ("explain", {"src": "100.64.0.1", "dst": "100.64.0.2", "protocol": "nix"}, 400, None),
    ],
)
async def test_questions_that_cannot_be_answered_are_refused(
    house: House, path: str, body: object, status: int, of: str | None
) -> None:
    got, answer = await house.call("POST", f"{PATH}/{path}", body)
    assert (got, answer.get("of")) == (status, of)


async def test_dump_is_what_the_commands_read(house: House) -> None:
    node = await house.node("alice", "laptop")
    status, answer = await house.call("GET", f"{PATH}/dump")
    users, nodes, _ = dump.decode(json.dumps(answer).encode())
    assert (status, nodes[node.id].name, len(users)) == (200, "laptop", 1)
    assert "nodekey" not in json.dumps(answer)


async def test_long_policies_are_taken_and_endless_ones_are_not(house: House) -> None:
    text = "{" + "// a comment\n" * 60_000 + "}"
    assert await _status(house, f"{PATH}/check", {"policy": text}) == 200
    assert await _status(house, f"{PATH}/check", {"policy": text * 2}) == 400
    assert await _status(house, f"{PATH}/check", {"policy": text * 6}) == 413
    # All other calls keep their small bound.
    assert await _status(house, "/api/v1/user", {"name": text}) == 413


async def _status(house: House, path: str, body: object) -> int:
    data = io.BytesIO(json.dumps(body).encode())
    async with house.client.post(path, data=data) as response:
        return response.status
