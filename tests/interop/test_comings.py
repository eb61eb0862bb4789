"""Nodes come, change and go, and the others learn it."""

from __future__ import annotations

import asyncio
import time

import pytest
import pytest_asyncio

from appliance.tailnet.expiry import OFFLINE_GRACE
from tests.interop import build
from tests.interop.conftest import Figure
from tests.interop.lab import Lab
from tests.interop.node import Node

pytestmark = [
    pytest.mark.interop,
    pytest.mark.system,
    pytest.mark.asyncio(loop_scope="module"),
]

LEARN_S = 1.0
"""What the program promises: others learn of a change within a second."""

AWAY_S = OFFLINE_GRACE.total_seconds() + 5.0
"""The grace, and time for its end to be noticed on a busy machine."""


@pytest_asyncio.fixture(scope="module", loop_scope="module")
async def watchers(lab: Lab) -> tuple[Node, Node]:
    """One node of each client release, to which things are shown."""
    newest, older = await asyncio.gather(
        *(lab.join(f"watch{i}", client=client) for i, client in enumerate(build.CLIENTS))
    )
    await asyncio.gather(newest.sees(older.name), older.sees(newest.name))
    return newest, older


@pytest.mark.parametrize("client", build.CLIENTS)
async def test_both_learn_of_a_third_node_within_a_second(
    lab: Lab, watchers: tuple[Node, Node], client: str, figure: Figure
) -> None:
    third = await lab.join("third", client=client)
    running = await third.event("state", lambda event: event["state"] == "Running")
    for node in watchers:
        seen = await node.sees(third.name)
        figure("learned after", seen["at"] - running["at"])
        assert seen["at"] - running["at"] <= LEARN_S


async def test_third_node_sees_both_at_once(lab: Lab, watchers: tuple[Node, Node]) -> None:
    third = await lab.join("late")
    running = await third.event("state", lambda event: event["state"] == "Running")
    for node in watchers:
        seen = await third.sees(node.name)
        assert seen["at"] - running["at"] <= LEARN_S


@pytest.mark.parametrize("client", build.CLIENTS)
async def test_status_names_a_user_whose_first_node_joined_later(
    lab: Lab, watchers: tuple[Node, Node], client: str
) -> None:
    """X2: `tailscale status` of an open session showed `userid:3` in place of the name."""
    user = f"late-{client.replace('.', '-')}"
    await lab.server.cli("users", "create", user)
    made = await lab.server.cli("preauthkeys", "create", "-u", user)
    joined = await lab.join("other", client=client, key=str(made["key"]))
    for node in watchers:
        await node.sees(joined.name)
        status = await node.status()
        peer = next(p for p in status["Peer"].values() if p["DNSName"].startswith(joined.name))
        assert status["User"][str(peer["UserID"])]["LoginName"].split("@")[0] == user


async def test_new_name_is_learned_within_a_second(
    lab: Lab, watchers: tuple[Node, Node], figure: Figure
) -> None:
    renamed = await lab.join("before")
    for node in watchers:
        await node.sees(renamed.name)
    began = time.time()
    await lab.server.cli("nodes", "rename", "-i", renamed.name, "afterwards")
    done = time.time()
    for node in watchers:
        seen = await node.sees("afterwards", since=began)
        figure("learned after", seen["at"] - done)
        assert seen["at"] - done <= LEARN_S
    assert await watchers[0].resolve("afterwards.tail.test.", "A") == [
        (await renamed.addresses())[0]
    ]


async def test_deleted_node_disappears(lab: Lab, watchers: tuple[Node, Node]) -> None:
    doomed = await lab.join("doomed")
    stable = [(await node.sees(doomed.name))["stable_id"] for node in watchers]
    await lab.server.cli("nodes", "delete", "-i", doomed.name, "--force")
    for node, gone in zip(watchers, stable, strict=True):
        await node.event("peer_gone", lambda event, gone=gone: event["stable_id"] == gone)  # type: ignore[misc]


@pytest.mark.parametrize("how", ["down", "killed"])
async def test_leaving_node_is_offline_after_the_grace(
    lab: Lab, watchers: tuple[Node, Node], how: str, figure: Figure
) -> None:
    leaver = await lab.join("leaver")
    for node in watchers:
        await node.sees(leaver.name)
    began = time.time()
    if how == "down":
        await leaver.call("down")
    else:
        leaver.kill()
    for node in watchers:
        seen = await node.sees(leaver.name, online=False, since=began, timeout_s=AWAY_S)
        figure("offline after", seen["at"] - began)
        assert seen["at"] - began >= OFFLINE_GRACE.total_seconds() - 1
    assert (await lab.listed(leaver))["online"] is False
    if how == "down":
        back = time.time()
        await leaver.call("resume")
        for node in watchers:
            seen = await node.sees(leaver.name, online=True, since=back)
            assert seen["at"] - back <= LEARN_S + 1


async def test_short_absence_is_not_noticed(lab: Lab, watchers: tuple[Node, Node]) -> None:
    blinking = await lab.join("blinking")
    for node in watchers:
        await node.sees(blinking.name)
    began = time.time()
    await blinking.call("down")
    await blinking.call("resume")
    # Another change passes after ours would have, so nothing is still on its way.
    witness = await lab.join("witness")
    for node in watchers:
        await node.sees(witness.name)
        assert not [
            event
            for event in node.events
            if event["event"] == "peer"
            and event["at"] >= began
            and event["peer"]["name"].startswith(f"{blinking.name}.")
            and not event["peer"]["online"]
        ]
