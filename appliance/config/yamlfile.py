"""YAML site files: the safe subset, with repeated keys refused and places in the messages.

Not for meaning (``config``). A module of its own because importing YAML costs time that only
YAML files should pay.
"""

from __future__ import annotations

import yaml


class _Loader(yaml.CSafeLoader if hasattr(yaml, "CSafeLoader") else yaml.SafeLoader):  # type: ignore[misc]  # either is a safe loader
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
                        f"the key {key_node.value!r} is there twice",
                        key_node.start_mark,
                    )
                seen.add(key_node.value)
        mapping: dict[object, object] = super().construct_mapping(node, deep)
        return mapping


def parse(text: str) -> object:
    """Read a document. Raises ValueError with line and column."""
    try:
        return yaml.load(text, Loader=_Loader)  # noqa: S506  # a subclass of the safe loader
    except yaml.MarkedYAMLError as error:
        mark = error.problem_mark
        where = f"line {mark.line + 1}, column {mark.column + 1}: " if mark else ""
        raise ValueError(f"{where}{error.problem}") from error
    except yaml.YAMLError as error:
        raise ValueError(str(error)) from error


def dump(value: object) -> str:
    """Write plain values, keys in their order."""
    text: str = yaml.safe_dump(value, sort_keys=False, allow_unicode=True, width=100)
    return text
