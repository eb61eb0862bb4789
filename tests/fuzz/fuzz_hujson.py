"""Policy texts of any kind: a value, or an error with its place."""

from __future__ import annotations

import random

from appliance.wire import hujson
from appliance.wire.hujson import HuJSONError
from tests.fuzz.harness import main, mutate

SEED = b"""{ // who
  "groups": {"group:a": ["x@y.z", "\\u00e9\\ud83d\\ude00"],}, /* and
  what */ "acls": [{"action": "accept", "src": ["*"], "n": [1, -2.5e3, true, null]},],
}
"""
PIECES = ("{", "}", "[", "]", ",", ":", '"a"', "1", "//x\n", "/*y*/", " ", "null", '"', "\\", "*")


def case(rng: random.Random) -> None:
    text: str | bytes
    if rng.random() < 0.5:
        text = mutate(rng, SEED)
    else:
        text = "".join(rng.choices(PIECES, k=rng.randrange(60)))
    try:
        document = hujson.decode_document(text)
    except HuJSONError:
        return
    walk(document, document.value, ())


def walk(document: hujson.Document, value: hujson.JSON, path: hujson.Path) -> None:
    spot = document.spot(*path)
    assert spot.line >= 1
    if isinstance(value, dict):
        for name, part in value.items():
            assert document.name_spot(*path, name) >= spot
            walk(document, part, (*path, name))
    elif isinstance(value, list):
        for place, part in enumerate(value):
            walk(document, part, (*path, place))


if __name__ == "__main__":
    main(case)
