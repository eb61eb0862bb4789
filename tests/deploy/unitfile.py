"""Unit files as values, so that two of them can be compared by what they mean."""

from __future__ import annotations

_WORDS = {"true": "yes", "false": "no", "on": "yes", "off": "no"}
_LISTS = frozenset(
    {"After", "Before", "Wants", "Requires", "Sockets", "WantedBy", "Conflicts", "PartOf"}
)
"""Directives whose value is words in any order, on one line or on several."""

Values = dict[tuple[str, str], list[str]]


class Unit:
    """Directives by section and name; booleans are yes and no, lists of units one by one."""

    def __init__(self, values: Values) -> None:
        self.values = values

    def __getitem__(self, place: tuple[str, str]) -> list[str]:
        return self.values.get(place, [])

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Unit) and self.values == other.values

    __hash__ = None  # type: ignore[assignment]  # a value that may be changed

    def __repr__(self) -> str:
        return f"Unit({self.values})"


def parse(text: str) -> Unit:
    """Read a unit file. Raises ValueError for a line that is none of one."""
    values: Values = {}
    section = ""
    for line in text.splitlines():
        if not line.strip() or line.startswith(("#", ";")):
            continue
        if line.startswith("["):
            section = line.strip("[]")
            continue
        key, equals, value = line.partition("=")
        if not equals or not section:
            raise ValueError(f"no directive: {line!r}")
        found = values.setdefault((section, key), [])
        found.extend(value.split() if key in _LISTS else [_WORDS.get(value, value)])
    return Unit(values)
