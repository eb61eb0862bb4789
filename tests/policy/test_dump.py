"""A dumped tailnet gives the same answers as the tailnet itself."""

from __future__ import annotations

from random import Random

import pytest

from appliance.errors import Invalid
from appliance.policy.answers import dump
from appliance.policy.engine.compile import compile  # noqa: A004 - its name
from appliance.records import Attribute, NodeID
from tests.policy.test_recompile import told
from tests.policy.worlds import random_document, random_world, read


@pytest.mark.parametrize("seed", range(20))
def test_dump_answers_as_the_tailnet_does(seed: int) -> None:
    rng = Random(seed)
    world = random_world(rng, 8)
    policy = read(random_document(rng))
    data = dump.encode(world.users, world.nodes, world.background)
    users, nodes, known = dump.decode(data)
    assert dump.encode(users, nodes, known) == data
    here = told(compile(policy, world.users, world.nodes, world.background))
    assert told(compile(policy, users, nodes, known)) == here


def test_attributes_that_nodes_were_given_are_in_a_dump() -> None:
    """Of the same form as since the first version, before servers kept any."""
    data = b"""{"version":1,"nodes":[{"id":7,"name":"n","os":"linux",
        "attributes":{"ip:country":"DE","custom:level":4,"custom:managed":true}}]}"""
    users, nodes, background = dump.decode(data)
    assert nodes[NodeID(7)].attributes == (
        Attribute("custom:level", 4),
        Attribute("custom:managed", True),
        Attribute("ip:country", "DE"),
    )
    again = dump.decode(dump.encode(users, nodes, background))
    assert again[1] == nodes


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"{}",
        b'{"version":2}',
        b'{"version":1,"x":1}',
        b'{"version":1,"nodes":[{"id":1,"name":"n","addresses":["x"]}]}',
        b'{"version":1,"nodes":[{"id":1,"name":"n","approved":["1.2.3.4/5"]}]}',
    ],
)
def test_what_is_no_dump_is_refused(data: bytes) -> None:
    with pytest.raises(Invalid):
        dump.decode(data)
