"""Laying a policy out keeps its words and comments, and is done after one time."""

from __future__ import annotations

import json
import re
from random import Random

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from appliance.policy.text.layout import lay_out
from appliance.policy.text.mistakes import PolicyError
from appliance.wire.hujson import decode
from tests.policy.test_pages import EXAMPLES
from tests.policy.worlds import random_document

UGLY = """// top
{ "groups":{"group:a":["x@y.z","b@y.z"] , } , // people


  /* two
     lines */
  "acls" : [
 {"action":"accept","src":["*"],"dst":["*:*"]}, // all
  // the end
  ] }
// bye
"""
NEAT = """// top
{
  "groups": {"group:a": ["x@y.z", "b@y.z"]}, // people

  /* two
     lines */
  "acls": [
    {"action": "accept", "src": ["*"], "dst": ["*:*"]}, // all
    // the end
  ],
}
// bye
"""


def comments(text: str) -> list[str]:
    bare = re.sub(r'"(?:[^"\\]|\\.)*"', '""', text)
    return sorted(re.findall(r"//[^\n]*|/\*.*?\*/", bare, re.DOTALL))


def test_ugly_text_becomes_neat() -> None:
    text = UGLY.replace('{ "groups"', '{\n "groups"')
    assert lay_out(text) == NEAT
    assert lay_out(NEAT) == NEAT


@pytest.mark.parametrize("text", [*EXAMPLES, UGLY, "", "1", "[]", '{"a": {}, "b": [1, [2]]}'])
def test_meaning_and_comments_stay(text: str) -> None:
    neat = lay_out(text)
    assert decode(neat) == (decode(text) if text else {})
    assert comments(neat) == comments(text)
    assert lay_out(neat) == neat


@settings(deadline=None, max_examples=50)
@given(st.integers(0, 1 << 48))
def test_any_policy_can_be_laid_out(seed: int) -> None:
    rng = Random(seed)
    document = random_document(rng)
    text = json.dumps(document, indent=rng.choice((None, 1)))
    pieces = re.findall(r'"(?:[^"\\]|\\.)*"|[,\[{]|[^,\[{"]+', text)
    noise = ("", "", "\n", "/* c */", "// d\n", "\n\n")
    noisy = "".join(p + (rng.choice(noise) if p in (",", "[", "{") else "") for p in pieces)
    decode(noisy)
    neat = lay_out(noisy)
    assert decode(neat) == decode(noisy)
    assert comments(neat) == comments(noisy)
    assert lay_out(neat) == neat


def test_what_is_no_policy_is_refused_with_its_place() -> None:
    with pytest.raises(PolicyError, match="line 2, column 1"):
        lay_out("{\n")


def test_byte_order_mark_goes() -> None:
    assert lay_out('\ufeff{"acls": []}') == lay_out('{"acls": []}')
