"""Conditions of postures hold for what they say, and for nothing that only looks like it."""

from __future__ import annotations

import pytest

from appliance.policy.text.postures import attributes_of, parse
from appliance.records import AttributeValue
from tests.policy.worlds import node


@pytest.mark.parametrize(
    ("condition", "known", "holds"),
    [
        ("node:osVersion < '11'", "10.0.19045", True),
        ("node:osVersion >= '11'", "10.0.19045", False),
        ("node:osVersion >= 11", "12.1", True),
        ("node:osVersion < '11'", "rolling", False),
        ("node:osVersion <= '11'", "rolling", False),
        ("node:osVersion >= '11'", "rolling", False),
        ("custom:level <= '3'", "high", False),
        ("custom:level <= 3", 3.0, True),
        ("custom:level <= 3", "2", False),
        ("custom:level != 3", None, False),
        ("custom:level NOT SET", None, True),
    ],
)
def test_order_is_that_of_numbers_and_versions(
    condition: str, known: AttributeValue | None, holds: bool
) -> None:
    """What is no version is neither older nor newer than one."""
    parsed = parse(condition)
    assert parsed.holds({} if known is None else {parsed.name: known}) is holds


@pytest.mark.parametrize("system", ["windows", "Windows", "WINDOWS"])
def test_names_of_systems_mean_the_same_whatever_their_case(system: str) -> None:
    known = attributes_of(node(1, os=system), {})
    assert parse("node:os == 'Windows'").holds(known)
    assert not parse("node:os != 'Windows'").holds(known)
    assert not parse("node:os NOT IN ['Windows', 'macOS']").holds(known)
    told = attributes_of(node(1, os="linux"), {"node:os": "macOS"})
    assert parse("node:os == 'darwin'").holds(told)
