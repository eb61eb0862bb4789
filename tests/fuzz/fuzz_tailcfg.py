"""JSON from hostile nodes: a message that can be written again, or ProtocolError."""

from __future__ import annotations

import json
import random
from typing import Any

from appliance.wire import tailcfg
from appliance.wire.errors import ProtocolError
from tests.fuzz.harness import main, mutate
from tests.vectors import load

SEEDS: list[tuple[tailcfg.Decoder[Any], Any]] = [
    (
        tailcfg.Decoder(getattr(tailcfg, case["type"]), tailcfg.MAX_REQUEST_BYTES, any_case=True),
        case["full"],
    )
    for case in load("go_messages.json")
]
ODD: tuple[Any, ...] = (
    None,
    True,
    0,
    -1,
    1 << 70,
    1.5,
    "",
    "\ud800",
    "\x00",
    "nodekey:00",
    "0001-01-01T00:00:00Z",
    "9999-12-31T23:59:59.999999999+23:59",
    "0001-01-01T00:00:00-23:59",
    [],
    {},
    [None],
    [[[[]]]],
    {"": None},
)


def case(rng: random.Random) -> None:
    decode, full = rng.choice(SEEDS)
    text = json.dumps(twist(rng, full), ensure_ascii=rng.random() < 0.5)
    data = text.encode("utf-8", "surrogatepass")
    if rng.random() < 0.5:
        data = mutate(rng, data)
    try:
        message = decode(data)
    except ProtocolError:
        return
    again = tailcfg.encode(message)
    assert tailcfg.encode(decode(again)) == again


def twist(rng: random.Random, value: Any) -> Any:
    """Change a few parts: odd values, other spelling, missing and additional names."""
    if rng.random() < 0.01:
        return rng.choice(ODD)
    if isinstance(value, dict):
        return {
            rng.choice((name, name, name, name.lower(), name.swapcase())): twist(rng, part)
            for name, part in value.items()
            if rng.random() < 0.95
        }
    if isinstance(value, list):
        return [twist(rng, part) for part in value]
    return value


if __name__ == "__main__":
    main(case)
