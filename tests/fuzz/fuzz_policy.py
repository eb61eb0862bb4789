"""Policies of any kind: a compiled policy, or an error that names its place."""

from __future__ import annotations

import json
import random
import time
from copy import deepcopy
from typing import Any

from appliance.policy.answers import selftest
from appliance.policy.engine.compile import compile  # noqa: A004 - its name
from appliance.policy.text.document import MAX_TEXT_CHARS, decode
from appliance.policy.text.mistakes import Mistake, PolicyError
from tests.fuzz.harness import main, mutate
from tests.policy.worlds import random_document, random_world
from tests.support.pace import patience

ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1e300,
    "",
    " ",
    "*",
    "x",
    "@",
    "a@b",
    [],
    [[]],
    {},
    {"a": []},
    "tag:",
    "1",
)
SWOLLEN = 0.02
LIMIT_S = 5.0
"""CPU time for all that is done with one text, on a slow machine with others at work."""
SPELLINGS = ("groups", "Groups", "GROUPS", "acl", "#note", "src", "dst", "ip", "via", "app", "")


def case(rng: random.Random) -> None:
    document = deepcopy(random_document(rng))
    if rng.random() < 0.3:
        document["tests"] = [
            {"src": rng.choice(ODD), "accept": [deepcopy(rng.choice(ODD))], "deny": "x"}
        ]
        document["sshTests"] = [{"src": "ann@example.com", "dst": ["tag:a"], "accept": ["root"]}]
    for _ in range(rng.randrange(4)):
        damage(rng, document)
    if rng.random() < SWOLLEN:
        swell(rng, document)
    text = json.dumps(document).encode()[:MAX_TEXT_CHARS]
    started = time.process_time()
    if rng.random() < 0.4:
        text = mutate(rng, text)
    mistakes: tuple[Mistake, ...] = ()
    try:
        policy = decode(text, domains=frozenset({"example.com"}))
    except PolicyError as error:
        mistakes = error.mistakes
    if mistakes:
        assert all(mistake.spot.line >= 1 and mistake.text for mistake in mistakes)
        return
    world = random_world(rng, rng.randrange(5))
    compiled = compile(policy, world.users, world.nodes, world.background)
    for node_id in world.nodes:
        compiled.packet_filter(node_id)
        assert compiled.sight(node_id) is not None
    for failure in selftest.run(policy, world.users, world.nodes, world.background):
        assert str(failure)
    assert time.process_time() - started < patience(LIMIT_S)


def swell(rng: random.Random, document: dict[str, Any]) -> None:
    """Make lists somewhere in the document long, one inside the other if it comes so."""
    value: Any = document
    while isinstance(value, dict | list) and value:
        if isinstance(value, list) and rng.random() < 0.7:
            value *= rng.choice((10, 100, 1000, 9000)) // len(value) + 1
        below = list(value.values()) if isinstance(value, dict) else value
        # What stands several times is one object, and all of it swells.
        value = rng.choice(below)


def damage(rng: random.Random, value: object) -> None:
    """Put something odd somewhere into a JSON value."""
    while True:
        if isinstance(value, dict) and value:
            key = rng.choice(list(value))
            below = value[key]
            if rng.random() < 0.3 or not isinstance(below, dict | list):
                if rng.random() < 0.3:
                    value[rng.choice(SPELLINGS)] = value.pop(key)
                else:
                    value[key] = deepcopy(rng.choice(ODD))
                return
        elif isinstance(value, list) and value:
            at = rng.randrange(len(value))
            below = value[at]
            if rng.random() < 0.4 or not isinstance(below, dict | list):
                value[at] = deepcopy(rng.choice(ODD))
                return
        else:
            return
        value = below


if __name__ == "__main__":
    main(case)
