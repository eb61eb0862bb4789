"""The verbs for posture attributes: what may be set, how much, and what is said otherwise."""

from __future__ import annotations

from datetime import timedelta

import pytest

from appliance.errors import Conflict, Invalid, NotFound, Rejected
from appliance.records import Attribute, AttributeValue, NodeID
from appliance.tailnet import attributes
from appliance.tailnet.snapshot import Edit
from tests.support.builder import build, edit_of
from tests.support.clock import NOON

LAPTOP = NodeID(1)
HOUR = timedelta(hours=1)
LONGEST_NAME = "custom:" + "x" * (attributes.MAX_NAME_CHARS - len("custom:"))
LONGEST_TEXT = "ü" * attributes.MAX_TEXT_CHARS


@pytest.fixture
def edit() -> Edit:
    return edit_of(build("alice: laptop phone"))


@pytest.mark.parametrize(
    ("value", "kept"),
    [
        (4, 4),
        (4.0, 4),
        (-0.5, -0.5),
        (attributes.MAX_NUMBER, attributes.MAX_NUMBER),
        (True, True),
        (False, False),
        ("", ""),
        ("4", "4"),
        (LONGEST_TEXT, LONGEST_TEXT),
    ],
)
def test_value_keeps_its_type(edit: Edit, value: object, kept: AttributeValue) -> None:
    node = attributes.put(edit, LAPTOP, "custom:x", value, NOON)
    assert node is edit.nodes[LAPTOP]
    (given,) = node.attributes
    assert (given.value, type(given.value)) == (kept, type(kept))


@pytest.mark.parametrize(
    "name",
    [
        "custom:level",
        "custom:Level_2.b-c:d",
        "ip:country",
        "intune:complianceState",
        "jamf:remoteManaged",
        "fleet:present",
        "falcon:ztaScore",
        "kandji:mdmEnabled",
        LONGEST_NAME,
    ],
)
def test_name_of_a_namespace_of_others_may_be_set(edit: Edit, name: str) -> None:
    assert attributes.put(edit, LAPTOP, name, 1, NOON).attributes == (Attribute(name, 1),)


@pytest.mark.parametrize(
    ("name", "value", "code", "says"),
    [
        ("node:os", "macos", "attribute-reported", "for the node itself"),
        ("node:", 1, "attribute-reported", "custom:"),
        ("level", 1, "attribute-name-invalid", "start with one of custom:, ip:"),
        ("Custom:level", 1, "attribute-name-invalid", "start with one of"),
        ("other:level", 1, "attribute-name-invalid", "start with one of"),
        ("", 1, "attribute-name-invalid", "start with one of"),
        ("custom:", 1, "attribute-name-invalid", "custom:level"),
        ("custom:a b", 1, "attribute-name-invalid", "letters"),
        ("custom:größe", 1, "attribute-name-invalid", "letters"),
        ("custom:a\n", 1, "attribute-name-invalid", "letters"),
        ("custom:-a", 1, "attribute-name-invalid", "letter or digit"),
        (LONGEST_NAME + "x", 1, "attribute-name-invalid", "64 characters"),
        ("custom:x", None, "attribute-value-invalid", "text, a number, true or false"),
        ("custom:x", [1], "attribute-value-invalid", "text, a number, true or false"),
        ("custom:x", {}, "attribute-value-invalid", "text, a number, true or false"),
        ("custom:x", attributes.MAX_NUMBER + 1, "attribute-value-invalid", "numbers go up to"),
        ("custom:x", 10**400, "attribute-value-invalid", "numbers go up to"),
        ("custom:x", float("inf"), "attribute-value-invalid", "numbers go up to"),
        ("custom:x", float("nan"), "attribute-value-invalid", "numbers go up to"),
        ("custom:x", LONGEST_TEXT + "ü", "attribute-value-invalid", "256 characters"),
        ("custom:x", "a\0b", "attribute-value-invalid", "printable"),
        ("custom:x", "\x1b[31m", "attribute-value-invalid", "printable"),
        ("custom:x", "\ud800", "attribute-value-invalid", "printable"),
    ],
)
def test_what_is_no_attribute_is_refused(
    edit: Edit, name: str, value: object, code: str, says: str
) -> None:
    with pytest.raises(Invalid, match=says) as caught:
        attributes.put(edit, LAPTOP, name, value, NOON)
    assert caught.value.code == code
    assert edit.nodes[LAPTOP].attributes == ()


def test_attributes_stand_in_order_and_each_once(edit: Edit) -> None:
    for name, value in (("ip:country", "DE"), ("custom:b", 1), ("custom:a", 2), ("custom:b", 3)):
        attributes.put(edit, LAPTOP, name, value, NOON)
    assert edit.nodes[LAPTOP].attributes == (
        Attribute("custom:a", 2),
        Attribute("custom:b", 3),
        Attribute("ip:country", "DE"),
    )
    assert edit.nodes[NodeID(2)].attributes == ()


def test_true_takes_the_place_of_one(edit: Edit) -> None:
    """Python takes them for equal, and an equal record is not written."""
    attributes.put(edit, LAPTOP, "custom:x", 1, NOON)
    before = edit.finish()[0]
    again = edit_of(before)
    attributes.put(again, LAPTOP, "custom:x", True, NOON)
    snapshot, rows = again.finish()
    assert snapshot.nodes[LAPTOP].attributes[0].value is True
    assert rows.is_durable


def test_the_same_again_changes_nothing(edit: Edit) -> None:
    attributes.put(edit, LAPTOP, "custom:x", 1, NOON, expires_at=NOON + HOUR)
    before = edit.finish()[0]
    again = edit_of(before)
    attributes.put(again, LAPTOP, "custom:x", 1.0, NOON, expires_at=NOON + HOUR)
    assert again.finish()[0] is before


def test_setting_again_replaces_the_expiry_too(edit: Edit) -> None:
    attributes.put(edit, LAPTOP, "custom:x", 1, NOON, expires_at=NOON + HOUR)
    assert attributes.put(edit, LAPTOP, "custom:x", 1, NOON).attributes[0].expires_at is None


@pytest.mark.parametrize("at", [NOON, NOON - HOUR])
def test_expiry_lies_ahead(edit: Edit, at: object) -> None:
    with pytest.raises(Invalid) as caught:
        attributes.put(edit, LAPTOP, "custom:x", 1, NOON, expires_at=at)  # type: ignore[arg-type]  # parametrized
    assert caught.value.code == "attribute-expired"


def test_names_that_differ_in_their_case_only_are_refused(edit: Edit) -> None:
    attributes.put(edit, LAPTOP, "custom:Level", 1, NOON)
    with pytest.raises(Conflict, match="custom:Level") as caught:
        attributes.put(edit, LAPTOP, "custom:level", 1, NOON)
    assert caught.value.code == "attribute-case"


def test_a_node_has_so_many_and_no_more(edit: Edit) -> None:
    for number in range(attributes.MAX_ATTRIBUTES):
        at = NOON + HOUR if number == 7 else None
        attributes.put(edit, LAPTOP, f"custom:{number}", number, NOON, expires_at=at)
    with pytest.raises(Conflict) as caught:
        attributes.put(edit, LAPTOP, "custom:more", 1, NOON)
    assert caught.value.code == "attributes-too-many"
    attributes.put(edit, LAPTOP, "custom:3", "another value", NOON)
    node = attributes.put(edit, LAPTOP, "custom:more", 1, NOON + HOUR)
    assert "custom:7" not in [each.name for each in node.attributes], "its time is over"


def test_removed_attribute_is_gone_and_the_others_stay(edit: Edit) -> None:
    attributes.put(edit, LAPTOP, "custom:a", 1, NOON)
    attributes.put(edit, LAPTOP, "custom:b", 2, NOON)
    node = attributes.remove(edit, LAPTOP, "custom:a")
    assert node.attributes == (Attribute("custom:b", 2),)
    assert edit.nodes[LAPTOP] is node


@pytest.mark.parametrize(
    ("node_id", "name", "code"),
    [
        (99, "custom:a", "node-unknown"),
        (1, "custom:a", "attribute-unknown"),
        (1, "custom:Level", "attribute-unknown"),
        (1, "node:os", "attribute-reported"),
        (1, "level", "attribute-name-invalid"),
    ],
)
def test_what_is_not_there_is_not_removed(edit: Edit, node_id: int, name: str, code: str) -> None:
    attributes.put(edit, LAPTOP, "custom:level", 1, NOON)
    with pytest.raises(Rejected) as caught:
        attributes.remove(edit, NodeID(node_id), name)
    assert caught.value.code == code


def test_unknown_node_is_not_found(edit: Edit) -> None:
    with pytest.raises(NotFound) as caught:
        attributes.put(edit, NodeID(99), "custom:level", 1, NOON)
    assert caught.value.code == "node-unknown"
