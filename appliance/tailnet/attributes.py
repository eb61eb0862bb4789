"""The verbs for posture attributes: what an administrator or an integration says of a node.

Not for what a node reports itself, and not for what postures make of it (``policy.postures`` has
both). Sits on ``nodes``. Whoever may set an attribute decides what a posture lets through, so no
verb here is a node's.
"""

from __future__ import annotations

import math
import re
from dataclasses import replace
from datetime import datetime

from appliance.errors import Conflict, Invalid, NotFound
from appliance.policy.text.postures import GIVEN, REPORTED
from appliance.records import Attribute, AttributeValue, Node, NodeID
from appliance.tailnet import nodes
from appliance.tailnet.snapshot import Edit

MAX_ATTRIBUTES = 100
"""Of one node. Integrations of the hosted service set a dozen; all are read with the node."""
MAX_NAME_CHARS = 64
"""The hosted service allows 50, with the namespace."""
MAX_TEXT_CHARS = 256
"""The hosted service allows 50; a serial number or a list of groups is longer."""
MAX_NUMBER = 2**53
"""Above, programs that read JSON numbers as floats take neighbours for one another."""

_NAME = re.compile(r"[a-z]+:[A-Za-z0-9][A-Za-z0-9_.:-]*")


def put(
    edit: Edit,
    node_id: NodeID,
    name: str,
    value: object,
    now: datetime,
    *,
    expires_at: datetime | None = None,
) -> Node:
    """Give a node an attribute, in place of the one of that name; it goes at ``expires_at``.

    Raises NotFound for an unknown node, Invalid for what cannot be an attribute, Conflict if the
    name differs from another one in its case only, or the node has too many.
    """
    node = without_expired(nodes.get(edit, node_id), now)
    wanted = Attribute(check_name(name), check_value(name, value), expires_at)
    if expires_at is not None and expires_at <= now:
        raise Invalid(
            "attribute-expired",
            f"{name} would have expired already: give a time to come, or remove the attribute",
            concerns=name,
        )
    others = [each for each in node.attributes if each.name != name]
    for other in others:
        if other.name.lower() == name.lower():
            raise Conflict(
                "attribute-case",
                f"the node has {other.name}, which differs in its case only: "
                "use that name, or remove it first",
                concerns=other.name,
            )
    if len(others) >= MAX_ATTRIBUTES:
        raise Conflict(
            "attributes-too-many",
            f"a node has at most {MAX_ATTRIBUTES} attributes: remove one first",
            concerns=node.name,
        )
    ordered = sorted((*others, wanted), key=lambda each: each.name)
    edit.put(replace(node, attributes=tuple(ordered)))
    return edit.nodes[node_id]


def has(edit: Edit, node_id: NodeID, name: str) -> bool:
    """Return whether a node has an attribute. Raises NotFound for an unknown node, Invalid."""
    check_name(name)
    return any(each.name == name for each in nodes.get(edit, node_id).attributes)


def remove(edit: Edit, node_id: NodeID, name: str) -> Node:
    """Take an attribute from a node. Raises NotFound if it has none of that name, Invalid."""
    node = nodes.get(edit, node_id)
    check_name(name)
    kept = tuple(each for each in node.attributes if each.name != name)
    if len(kept) == len(node.attributes):
        raise NotFound(
            "attribute-unknown",
            f"{node.name} has no attribute {name}: names count in their case too",
            concerns=name,
        )
    edit.put(replace(node, attributes=kept))
    return edit.nodes[node_id]


def without_expired(node: Node, now: datetime) -> Node:
    """Return the node with those of its attributes that last; the same object if all do."""
    if not node.attributes or not any(has_expired(each, now) for each in node.attributes):
        return node
    kept = (each for each in node.attributes if not has_expired(each, now))
    return replace(node, attributes=tuple(kept))


def has_expired(attribute: Attribute, now: datetime) -> bool:
    """Return whether an attribute's time is over at ``now``."""
    return attribute.expires_at is not None and attribute.expires_at <= now


def check_name(name: str) -> str:
    """Return a name that may be set. Raises Invalid."""
    if name.startswith(REPORTED):
        raise Invalid(
            "attribute-reported",
            f"{name[:MAX_NAME_CHARS]!r} is for the node itself to report: names that can be set "
            "start with custom:, or with the namespace of an integration",
            concerns=name[:MAX_NAME_CHARS],
        )
    if len(name) > MAX_NAME_CHARS:
        raise Invalid("attribute-name-invalid", f"a name has at most {MAX_NAME_CHARS} characters")
    if not name.startswith(GIVEN):
        raise Invalid(
            "attribute-name-invalid",
            f"{name!r} is no attribute: names start with one of {', '.join(GIVEN)}",
            concerns=name,
        )
    if _NAME.fullmatch(name) is None:
        raise Invalid(
            "attribute-name-invalid",
            f"{name!r} is no attribute: after the namespace comes a letter or digit, then letters, "
            "digits and _ . : - as in custom:level",
            concerns=name,
        )
    return name


def check_value(name: str, value: object) -> AttributeValue:
    """Return a value that an attribute may have; a whole number as an int. Raises Invalid."""
    match value:
        case bool():
            return value
        case int() | float():
            if abs(value) > MAX_NUMBER or math.isnan(value):
                raise Invalid(
                    "attribute-value-invalid",
                    f"{name}: numbers go up to {MAX_NUMBER}: give a longer one as text",
                    concerns=name,
                )
            return int(value) if value == int(value) else value
        case str():
            if len(value) > MAX_TEXT_CHARS or not value.isprintable():
                raise Invalid(
                    "attribute-value-invalid",
                    f"{name}: a text has at most {MAX_TEXT_CHARS} characters, all of them printable",
                    concerns=name,
                )
            return value
        case _:
            raise Invalid(
                "attribute-value-invalid",
                f"{name}: a value is text, a number, true or false",
                concerns=name,
            )
