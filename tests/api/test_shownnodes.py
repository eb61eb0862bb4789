"""The list of nodes says what is true now, although it is encoded once."""

from __future__ import annotations

import itertools
import json
from typing import Any

from appliance.api import shapes
from appliance.api.shownnodes import SPARE, ShownNodes
from appliance.identity.principals import LOCAL
from appliance.records import NodeID
from appliance.tailnet import nodes, presence, users
from tests.api.conftest import House
from tests.support.builder import build


async def test_every_change_is_seen_at_once(house: House) -> None:
    node = await house.node("alice", "laptop")
    alice = await house.user("alice")

    async def listed() -> dict[str, Any]:
        """Give the node as it is listed; it must be what encoding it now gives."""
        _, answer = await house.call("GET", "/api/v1/node")
        found: dict[str, Any] = answer["nodes"][0]
        snapshot = house.live.snapshot
        anew = ShownNodes().show(snapshot, snapshot.nodes[node.id], house.door.release)
        assert found == json.loads(bytes(anew))
        return found

    seen = [await listed()]
    for change in (
        lambda edit: nodes.rename(edit, node.id, "desk"),
        lambda edit: presence.session_opened(edit, node.id, house.clock()),
        lambda edit: users.rename(edit, alice, "alicia"),
        lambda edit: nodes.expire(edit, node.id, house.clock()),
    ):
        async with house.live.edit(by=LOCAL, act="test.change") as edit:
            change(edit)
        seen.append(await listed())
    assert all(one != other for one, other in itertools.pairwise(seen))
    assert await listed() == seen[-1]


def test_an_unchanged_node_is_encoded_once_and_a_gone_one_forgotten() -> None:
    snapshot = build("alice: " + " ".join(f"n{number}" for number in range(SPARE + 5)))
    shown = ShownNodes()
    first = [shown.show(snapshot, node, "0.29") for node in snapshot.nodes.values()]
    again = [shown.show(snapshot, node, "0.29") for node in snapshot.nodes.values()]
    assert all(one is other for one, other in zip(first, again, strict=True))
    assert shown.show(snapshot, snapshot.nodes[NodeID(1)], "0.27") is not first[0]
    small = build("alice: other", tailnet_id=1)
    shown.show(small, small.nodes[NodeID(1)], "0.29")
    assert len(shown._kept[small.tailnet.id]) == 1
    assert shapes.serving(small, small.nodes[NodeID(1)]) == ()
