"""SSH logins that wait, over the API."""

from __future__ import annotations

import pytest

from appliance.identity.principals import LOCAL
from appliance.identity.sshchecks import SSHCheck, SSHLogin, Verdict
from appliance.records import NodeID, UserID
from appliance.tailnet import nodes
from tests.api.conftest import House
from tests.support.builder import extend


async def waiting(house: House, *, source: str = "laptop", user: str = "root") -> SSHCheck:
    """Let a login wait; the nodes are made when there are none."""
    if not house.live.snapshot.nodes:
        async with house.live.edit(by=LOCAL, act="test.change") as edit:
            extend(edit, "alice: laptop; tag:web: srv ci")
    snapshot = house.live.snapshot
    node = snapshot.nodes[snapshot.by_name[source]]
    login = SSHLogin(house.live.id, node.id, node.owner_id, snapshot.by_name["srv"], user)
    return house.door.ssh_checks.ask(login, house.clock(), once=False)


async def test_waiting_logins_are_listed(house: House) -> None:
    assert await house.call("GET", "/api/v1/ssh/check") == (200, {"checks": []})
    check = await waiting(house)
    await waiting(house, source="ci", user="web")
    status, body = await house.call("GET", "/api/v1/ssh/check")
    assert status == 200
    first, second = body["checks"]
    assert first == {
        "id": check.id,
        "source": "laptop",
        "sourceId": str(check.login.source),
        "owner": "alice",
        "destination": "srv",
        "destinationId": str(check.login.destination),
        "localUser": "root",
        "askedAt": first["askedAt"],
        "expiresAt": first["expiresAt"],
    }
    assert first["askedAt"] < first["expiresAt"]
    assert (second["owner"], second["localUser"]) == ("tagged-devices", "web")


@pytest.mark.parametrize(
    ("path", "verdict"),
    [
        ("/api/v1/ssh/check/{}/approve", Verdict.APPROVED),
        ("/api/v1/ssh/check/{}/deny", Verdict.DENIED),
        ("/api/v1/auth/approve", Verdict.APPROVED),
        ("/api/v1/auth/reject", Verdict.DENIED),
    ],
)
async def test_decisions(house: House, path: str, verdict: Verdict) -> None:
    check = await waiting(house)
    status, body = await house.call("POST", path.format(check.id), {"authId": check.id})
    assert status == 200
    assert check.verdict is verdict
    assert body == {} or body["check"]["id"] == check.id
    # A second time there is nothing to decide.
    status, body = await house.call("POST", path.format(check.id), {"authId": check.id})
    assert status == 404
    assert "headwater ssh pending" in body["message"]


@pytest.mark.parametrize("body", [None, {}, {"authId": ""}, {"authId": "x" * 5000}])
async def test_unknown_ids_are_not_found(house: House, body: object) -> None:
    status, answer = await house.call("POST", "/api/v1/auth/approve", body)
    assert status == 404
    assert len(answer["message"]) < 300


async def test_a_login_whose_nodes_or_owner_are_gone_is_still_shown(house: House) -> None:
    check = await waiting(house)
    async with house.live.edit(by=LOCAL, act="test.change") as edit:
        nodes.delete(edit, check.login.source)
    gone = SSHLogin(house.live.id, NodeID(77), UserID(77), check.login.destination, "root")
    house.door.ssh_checks.ask(gone, house.clock(), once=False)
    _status, body = await house.call("GET", "/api/v1/ssh/check")
    assert [(c["source"], c["owner"]) for c in body["checks"]] == [("", "alice"), ("", "")]
