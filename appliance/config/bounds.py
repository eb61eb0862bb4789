"""How large and how deep a document may be, found out before and while it is put together.

A parser that calls itself for every level ends the process at some depth, and YAML's aliases make
billions of values out of a few hundred bytes: so YAML is counted from its events, which need no
stack, and TOML and JSON by their brackets. Not for what the values mean. Pure.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

MAX_DEPTH = 64
"""The tree of settings has six levels, a policy in it six more; Python's stack has a thousand."""
MAX_VALUES = 250_000
"""Keys count too. The largest policy that is read has 100,000 values (``reader``)."""
MAX_PLAIN_SCALAR = 4096
"""A number or a date is shorter; YAML works a long one out digit by digit."""

TOO_DEEP = f"more than {MAX_DEPTH} levels inside one another"
TOO_MANY = f"more than {MAX_VALUES} values, counting those that aliases repeat"

# A key of TOML with more parts than there may be levels; each part is tried once (atomic groups).
_LONG_KEY = (
    r"""(?<![\w"'.-])(?>(?>"[^"\n]*"|'[^'\n]*'|[\w-]+)[ \t]*\.[ \t]*)"""
    rf"{{{MAX_DEPTH}}}"
)
# Texts and comments first, so that brackets in them are not counted. Compiled when a file is read.
_TOKENS = {
    "json": r'"(?:[^"\\]|\\.)*+"|[\[{]|[\]}]',
    "toml": r'"""(?:[^\\]|\\.)*?"""|\'\'\'.*?\'\'\'|"(?:[^"\\\n]|\\.)*+"|\'[^\'\n]*+\'|#[^\n]*+'
    r"|[\[{]|[\]}]",
}


class TooLarge(ValueError):
    """The document is larger or deeper than one may be."""


def check_brackets(text: str, form: str) -> None:
    """Check the depth of JSON or TOML before it is parsed. Raises TooLarge.

    Broken text is counted somehow; the parser finds what is wrong with it.
    """
    if form == "toml" and re.search(_LONG_KEY, text):
        raise TooLarge(TOO_DEEP)
    depth = 0
    for token in re.finditer(_TOKENS[form], text, re.DOTALL):
        first = token[0][0]
        if first in "[{":
            depth += 1
            if depth > MAX_DEPTH:
                raise TooLarge(TOO_DEEP)
        elif first in "]}":
            depth = max(0, depth - 1)


def check_values(document: object) -> None:
    """Check the depth and the number of values of a parsed document. Raises TooLarge.

    Walks without calling itself: TOML's dotted keys make levels that no bracket shows.
    """
    count, level = 0, [document]
    for _ in range(MAX_DEPTH):
        inner: list[object] = []
        for value in level:
            if isinstance(value, dict):
                inner += value.values()
                count += len(value)
            elif isinstance(value, list):
                inner += value
        count += len(level)
        if count > MAX_VALUES:
            raise TooLarge(TOO_MANY)
        level = inner
        if not level:
            return
    raise TooLarge(TOO_DEEP)


@dataclass(slots=True)
class Growth:
    """Counts the nodes of a YAML document as its events come, aliases with all that they repeat."""

    total: int = 0
    _open: list[tuple[str | None, int]] = field(default_factory=list)
    """Anchor and the total before, of every collection that has begun."""
    _sizes: dict[str, int] = field(default_factory=dict)

    def scalar(self, anchor: str | None) -> None:
        """Count one value. Raises TooLarge."""
        self._add(1)
        if anchor is not None:
            self._sizes[anchor] = 1

    def alias(self, anchor: str) -> None:
        """Count all that an alias repeats. Raises TooLarge, also for one inside what it names."""
        if any(anchor == name for name, _ in self._open):
            raise TooLarge(f"*{anchor[:40]} inside what it stands for")
        self._add(self._sizes.get(anchor, 1))

    def begin(self, anchor: str | None) -> None:
        """Enter a list or a mapping. Raises TooLarge."""
        self._open.append((anchor, self.total))
        self._add(1)
        if len(self._open) > MAX_DEPTH:
            raise TooLarge(TOO_DEEP)

    def end(self) -> None:
        """Leave the innermost list or mapping."""
        anchor, before = self._open.pop()
        if anchor is not None:
            self._sizes[anchor] = self.total - before

    def _add(self, count: int) -> None:
        self.total += count
        if self.total > MAX_VALUES:
            raise TooLarge(TOO_MANY)
