"""YAML site files: the safe subset, bounded, with repeated keys refused and places in the messages.

Not for meaning (``settings``). A module of its own because importing YAML costs time that only
YAML files should pay.
"""

from __future__ import annotations

from typing import Any

import yaml

from appliance.config.bounds import MAX_PLAIN_SCALAR, Growth, TooLarge

_Base = yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader


class _Loader(_Base):  # type: ignore[misc,valid-type]  # either is a safe loader
    """A safe loader that refuses a key written twice."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[object, object]:
        """Build a mapping. Raises yaml.MarkedYAMLError for a repeated key."""
        seen: set[object] = set()
        for key_node, _ in node.value:
            if isinstance(key_node, yaml.ScalarNode):
                if key_node.value in seen:
                    raise yaml.constructor.ConstructorError(
                        None,
                        None,
                        f"the key {key_node.value[:80]!r} is there twice",
                        key_node.start_mark,
                    )
                seen.add(key_node.value)
        mapping: dict[object, object] = super().construct_mapping(node, deep)
        return mapping


def parse(text: str) -> object:
    """Read a document. Raises ValueError with line and column."""
    try:
        _check_size(text)
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        raise ValueError(
            f"{_place(error.problem_mark)}{(error.problem or 'no YAML')[:200]}"
        ) from error
    except yaml.YAMLError as error:
        raise ValueError(str(error)[:200]) from error
    except (ArithmeticError, LookupError, TypeError, AttributeError) as error:
        # What PyYAML's constructors raise for dates and numbers that are none.
        raise ValueError("a number or a date that cannot be read; write it in quotes") from error


def dump(value: object) -> str:
    """Write plain values, keys in their order."""
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    return text


def _place(mark: Any) -> str:  # the C parser has a mark of its own
    return "" if mark is None else f"line {mark.line + 1}, column {mark.column + 1}: "


def _check_size(text: str) -> None:
    """Count the nodes of a document before they are made. Raises ValueError with the place."""
    growth = Growth()
    for event in yaml.parse(text, Loader=_Base):
        try:
            _count(event, growth)
        except TooLarge as error:
            raise ValueError(_place(event.start_mark) + str(error)) from error


def _count(event: yaml.Event, growth: Growth) -> None:
    match event:
        case yaml.ScalarEvent():
            _refuse_tag(event.tag)
            if event.implicit[0] and len(event.value) > MAX_PLAIN_SCALAR:
                raise TooLarge(f"a value of {len(event.value)} characters; write it in quotes")
            growth.scalar(event.anchor)
        case yaml.AliasEvent():
            growth.alias(event.anchor or "")
        case yaml.CollectionStartEvent():
            _refuse_tag(event.tag)
            growth.begin(event.anchor)
        case yaml.CollectionEndEvent():
            growth.end()


def _refuse_tag(tag: str | None) -> None:
    """Refuse a type that is written out: what it makes of a value is no plain value."""
    if tag not in (None, "!"):
        raise TooLarge(f"the tag {tag[:60]!r}; write the value without it")
