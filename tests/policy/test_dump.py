"""A dumped tailnet gives the same answers as the tailnet itself."""

from __future__ import annotations

from dataclasses import replace
from random import Random

import pytest

from appliance.errors import Invalid
from appliance.policy import dump
from appliance.policy.compile import compile  # noqa: A004 - its name
from tests.policy.test_recompile import told
from tests.policy.worlds import random_document, random_world, read


@pytest.mark.parametrize("seed", range(20))
def test_dump_answers_as_the_tailnet_does(seed: int) -> None:
    rng = Random(seed)
    world = random_world(rng, 8)
    policy = read(random_document(rng))
    background = replace(
        world.background, attributes={each: {"custom:level": 2} for each in list(world.nodes)[:2]}
    )
    data = dump.encode(world.users, world.nodes, background)
    users, nodes, known = dump.decode(data)
    assert dump.encode(users, nodes, known) == data
    here = told(compile(policy, world.users, world.nodes, background))
    assert told(compile(policy, users, nodes, known)) == here


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
