"""``headwater nodes attributes``: what people type, and what they are shown."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from tests.api.conftest import House
from tests.cli.conftest import Terminal
from tests.cli.test_nouns import header

SET = ("nodes", "attributes", "set")


@pytest.fixture(autouse=True)
def _in_utc(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Tables show local time."""
    with monkeypatch.context() as patch:
        patch.setenv("TZ", "UTC")
        time.tzset()
        yield
    time.tzset()


@pytest.fixture
def terminal(terminal: Terminal) -> Terminal:
    terminal.inside(lambda house: house.node("alice", "laptop"))
    return terminal


def rows(text: str) -> list[list[str]]:
    return [[cell.strip() for cell in line.split("|")] for line in text.splitlines()[1:]]


def test_attributes_are_set_listed_and_removed(terminal: Terminal) -> None:
    text = terminal.ok(
        *SET, "laptop", "custom:level=4", "custom:managed=true", "ip:country=DE",
        "--expires", "2031-06-01T14:00:00+02:00",
    )  # fmt: skip
    assert header(text) == ["Attribute", "Value", "Type", "Source", "Expires"]
    until = "2031-06-01 12:00:00"
    assert rows(text) == [
        ["custom:level", "4", "number", "set", until],
        ["custom:managed", "true", "true or false", "set", until],
        ["ip:country", "DE", "text", "set", until],
    ]
    again = terminal.ok(*SET, "1", "custom:level=5")
    assert rows(again) == [["custom:level", "5", "number", "set", "never"]]
    assert len(rows(terminal.ok("nodes", "attrs", "ls", "laptop"))) == 3
    removed = terminal.ok("node", "attributes", "rm", "laptop", "custom:level", "ip:country")
    assert removed == "Attributes removed\n"
    assert terminal.ok("nodes", "attributes", "remove", "1", "custom:managed") == (
        "Attribute removed\n"
    )
    assert rows(terminal.ok("nodes", "attributes", "list", "1")) == []


@pytest.mark.parametrize(
    ("typed", "value"),
    [
        ("4", 4),
        ("-1", -1),
        ("0", 0),
        ("2.5", 2.5),
        ("true", True),
        ("false", False),
        ("True", "True"),
        ("", ""),
        ("ops", "ops"),
        ("a=b", "a=b"),
        ("1.80.2", "1.80.2"),
        ("1e5", "1e5"),
        ("0042", "0042"),
        ("12345678901234567890", "12345678901234567890"),
        ('"4"', "4"),
        ("'true'", "true"),
        ('"', '"'),
        ("two words", "two words"),
    ],
)
def test_values_are_read_as_they_are_meant(
    terminal: Terminal, typed: str, value: str | float | bool
) -> None:
    answer = terminal.json(*SET, "laptop", f"custom:x={typed}")
    kept = answer["attributes"]["custom:x"]
    assert (kept, type(kept)) == (value, type(value))


def test_expiry_is_a_time_to_go_or_a_time(terminal: Terminal) -> None:
    answer = terminal.json(*SET, "laptop", "custom:x=1", "-e", "2031-01-31T12:00:00Z")
    assert answer["expiries"] == {"custom:x": "2031-01-31T12:00:00Z"}
    soon = terminal.json(*SET, "laptop", "custom:x=1", "--expires", "2h", "--comment", "why")
    assert soon["expiries"]["custom:x"] < "2031"
    assert terminal.json(*SET, "laptop", "custom:x=1")["expiries"] == {}


def test_machine_forms_are_the_apis(terminal: Terminal) -> None:
    terminal.ok(*SET, "laptop", "custom:x=1", "custom:y=2")
    known = {"attributes": {"custom:x": 1, "custom:y": 2}, "expiries": {}}
    assert terminal.json("nodes", "attributes", "list", "laptop") == known
    left = terminal.json("nodes", "attributes", "remove", "laptop", "custom:y")
    assert left == {"attributes": {"custom:x": 1}, "expiries": {}}


@pytest.mark.parametrize(
    ("arguments", "code", "says"),
    [
        (("list",), 1, "NODE"),
        (("list", "ghost"), 1, "nodes list"),
        (("set", "laptop"), 1, "NAME=VALUE"),
        (("set", "laptop", "custom:x"), 1, "custom:level=4"),
        (("set", "laptop", "=4"), 1, "custom:level=4"),
        (("set", "ghost", "custom:x=4"), 1, "nodes list"),
        (("set", "laptop", "node:os=macos"), 1, "for the node itself"),
        (("set", "laptop", "level=4"), 1, "custom:"),
        (("set", "laptop", "custom:x=4", "-e", "soon"), 1, "2h or 30d"),
        (("set", "laptop", "custom:x=4", "-e", "2020-01-31T12:00:00Z"), 1, "expired already"),
        (("remove", "laptop"), 1, "NAME"),
        (("remove", "laptop", "custom:x"), 1, "no attribute custom:x"),
        (("remove", "laptop", "node:os"), 1, "for the node itself"),
        (("remove", "laptop", "custom:a/b"), 1, "letters"),
    ],
)
def test_refusals_name_the_way_out(
    terminal: Terminal, arguments: tuple[str, ...], code: int, says: str
) -> None:
    assert says in terminal.fails("nodes", "attributes", *arguments, code=code)
    assert terminal.inside(_attributes) == ()


def test_nothing_is_set_if_one_cannot_be_read(terminal: Terminal) -> None:
    terminal.fails(*SET, "laptop", "custom:x=1", "custom:y", code=1)
    assert terminal.inside(_attributes) == ()


def test_nothing_is_set_if_one_is_refused(terminal: Terminal) -> None:
    says = terminal.fails(*SET, "laptop", "custom:x=1", "level=4", code=1)
    assert "custom:" in says
    assert terminal.inside(_attributes) == ()


def test_nothing_is_removed_if_one_is_not_there(terminal: Terminal) -> None:
    terminal.ok(*SET, "laptop", "custom:x=1", "custom:y=2")
    says = terminal.fails("nodes", "attributes", "remove", "laptop", "custom:x", "custom:z", code=1)
    assert "no attribute custom:z" in says
    assert len(rows(terminal.ok("nodes", "attributes", "list", "1"))) == 2


async def _attributes(house: House) -> object:
    (node,) = house.live.snapshot.nodes.values()
    return node.attributes
