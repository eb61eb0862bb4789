"""HuJSON as the official Go package reads it, with places, within bounds."""

import json
import time
from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance.wire import hujson
from appliance.wire.hujson import HuJSONError, Spot
from tests.support.pace import patience
from tests.vectors import load

GOLDEN: list[dict[str, Any]] = load("go_hujson.json")
# Go wants a line feed even behind a last line comment; editors and people do not.
ENDS_IN_LINE_COMMENT = {'// line\n{"a":1} // end', "1//"}


@pytest.mark.parametrize("case", GOLDEN, ids=lambda case: repr(case["text"])[:40])
def test_reads_what_go_reads(case: dict[str, Any]) -> None:
    text = case["text"]
    if text in ENDS_IN_LINE_COMMENT:
        assert case["error"]
        assert hujson.decode(text) == hujson.decode(text + "\n")
    elif case.get("error"):
        with pytest.raises(HuJSONError) as caught:
            hujson.decode(text)
        assert caught.value.spot.line == case.get("line", caught.value.spot.line)
    else:
        assert hujson.decode(text) == case["value"]
        assert hujson.decode(text.encode()) == case["value"]


POLICY = """{
  // who
  "groups": {"group:a": ["x@y.z",],},
  "acls": [
    {"action": "accept", "src": ["*"]},
    /* second */ {"action": 7},
  ],
  "acls": [],
}
"""


def test_values_know_their_place() -> None:
    document = hujson.decode_document(POLICY.replace('  "acls": [],\n', ""))
    assert document.spot() == Spot(1, 1)
    assert document.spot("groups", "group:a", 0) == Spot(3, 26)
    assert document.name_spot("groups", "group:a") == Spot(3, 14)
    assert document.spot("acls", 1, "action") == Spot(6, 29)
    assert document.spot("acls", 1, "missing", 3) == document.spot("acls", 1)
    assert document.name_spot("acls", 9, "x") == document.spot("acls")
    assert document.name_spot() == Spot(1, 1)
    assert document.duplicates == ()


def test_duplicate_names_are_told_and_the_last_counts() -> None:
    document = hujson.decode_document(POLICY)
    assert document.duplicates == ((("acls",), Spot(8, 3)),)
    assert document.value == {"groups": {"group:a": ["x@y.z"]}, "acls": []}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ('{"a": 1\n "b": 2}', "line 2, column 2: unexpected '\"', want ',' or '}' after the value"),
        ("{\n  a: 1}", "line 2, column 3: unexpected 'a', want a name in double quotes"),
        ('{"a" 1}', "line 1, column 6: unexpected '1', want ':' after the name"),
        ("[1,\n", "line 2, column 1: unexpected end of the text, want a value"),
        ("[true] x", "line 1, column 8: unexpected 'x' after the end of the value"),
        ("/* é */ nope", "line 1, column 9: unexpected 'nope', want a value"),
        ("[ /* x", "line 1, column 3: the comment has no end"),
        ('["a\n"]', "line 1, column 4: the text must end on its line"),
        ("{} // a\n// b\0", "line 2, column 5: the character '\\x00' is no text"),
        ("// \ud800\n{}", "line 1, column 4: the character '\\ud800' is no text"),
        ('"a\tb"', "line 1, column 3: the control character '\\t' must be written as an escape"),
        (r'"a\x"', "line 1, column 3: not an escape that JSON knows"),
        ('"abc', "line 1, column 5: the text has no end"),
        ("1e999", "line 1, column 1: the number is too large"),
        (b'{\n"\xff"', "line 2, column 2: the text is not valid UTF-8"),
    ],
)
def test_mistakes_are_told_with_place_and_reason(text: str | bytes, wanted: str) -> None:
    with pytest.raises(HuJSONError) as caught:
        hujson.decode(text)
    assert str(caught.value) == wanted


@pytest.mark.parametrize(
    "evil",
    [
        "[" * 1_000_000,
        '{"a":' * 500_000,
        "/*" * 1_000_000,
        "/* " + "*" * 2_000_000,
        "/**/" * 900_000,
        "//" * 1_000_000,
        '"' + "\\u" * 1_000_000,
        '"' + "\\n" * 1_000_000,
        '"' + "a" * 2_000_000,
        "1" * 2_000_000,
        "-" * 2_000_000,
        " " * 4_000_000,
        " " * 5_000_000,
    ],
    ids=lambda text: repr(text[:8]),
)
def test_hostile_text_is_refused_in_linear_time(evil: str) -> None:
    began = time.process_time()
    with pytest.raises(HuJSONError):
        hujson.decode(evil)
    assert time.process_time() - began < patience(2)


def test_depth_is_bounded() -> None:
    deep = hujson.MAX_DEPTH
    hujson.decode("[" * deep + "]" * deep)
    with pytest.raises(HuJSONError, match="nested deeper"):
        hujson.decode("[" * (deep + 1) + "]" * (deep + 1))


JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**70), 2**70)
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(max_size=5), inner),
    max_leaves=20,
)


@given(JSON_VALUES, st.booleans(), st.sampled_from([None, 1]))
def test_plain_json_is_hujson(value: object, ascii_only: bool, indent: int | None) -> None:
    text = json.dumps(value, ensure_ascii=ascii_only, indent=indent)
    if not any(0xD800 <= ord(char) < 0xE000 for char in text):
        assert hujson.decode(text) == value


@given(st.text(st.sampled_from('{}[]",:/*\n\\u0d8 t1.e-')) | st.text() | st.binary())
def test_any_text_is_a_value_or_an_error(text: str | bytes) -> None:
    with suppress(HuJSONError):
        hujson.decode(text)
