"""A policy text laid out anew: the same words and comments, indented and spaced as one house.

Not for reading (``document``): nothing is checked but that the text is HuJSON. Values that fit on
one line and had no line break inside stay on it. Sits on ``wire.hujson``.
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from appliance.policy.text.mistakes import BYTE_ORDER_MARK, parse

INDENT = "  "
MAX_WIDTH = 100

_TOKEN = re.compile(
    r"(?P<space>[ \t\r]+)|(?P<newline>\n)|(?P<line>//[^\n]*)|(?P<block>/\*.*?\*/)"
    r'|(?P<string>"(?:[^"\\]|\\.)*")|(?P<mark>[{}\[\],:])|(?P<word>[^\s{}\[\],:"/]+)',
    re.DOTALL,
)


@dataclass(slots=True)
class _Item:
    """A value, or a member with its name, and the comments around it.

    ``parts`` are what stands between brackets; None for anything else, whose text is ``text``.
    """

    name: str = ""
    text: str = ""
    parts: list[_Item] | None = None
    before: list[str] = field(default_factory=list)
    behind: str = ""
    blank_before: bool = False
    was_split: bool = False
    closing: list[str] = field(default_factory=list)


def lay_out(text: str) -> str:
    """Return the text in the house's layout; doing it twice changes nothing. Raises PolicyError."""
    parse(text)
    text = text.removeprefix(BYTE_ORDER_MARK)
    if not text.strip():
        return "{}\n"
    reader = _Reader(text)
    item = reader.value()
    tail = reader.rest()
    lines = [*item.before, *_lines(item, 0, is_last=True), *tail]
    return "\n".join(lines) + "\n"


class _Reader:
    def __init__(self, text: str) -> None:
        self._tokens = [
            (match.lastgroup or "", match.group())
            for match in _TOKEN.finditer(text)
            if match.lastgroup != "space"
        ]
        self._at = 0

    def _gap(self, item: _Item, *, first: bool) -> None:
        """Take the comments and blank lines in front of a value."""
        newlines = 0
        while self._at < len(self._tokens):
            kind, text = self._tokens[self._at]
            if kind == "newline":
                newlines += 1
            elif kind in ("line", "block"):
                if newlines > 1 and not item.before:
                    item.blank_before = not first
                item.before.append(_comment(kind, text))
                newlines = 0
            else:
                break
            self._at += 1
        if newlines > 1 and not item.before:
            item.blank_before = not first

    def _peek(self) -> str:
        return self._tokens[self._at][1] if self._at < len(self._tokens) else ""

    def value(self, *, first: bool = True) -> _Item:
        """Read one value, or one member with its name."""
        item = _Item()
        self._gap(item, first=first)
        _, text = self._tokens[self._at]
        self._at += 1
        after = _Item()
        saved = self._at
        self._gap(after, first=True)
        if self._peek() == ":":
            self._at += 1
            inner = self.value()
            item.name, item.text, item.parts = text, inner.text, inner.parts
            item.was_split, item.closing = inner.was_split, inner.closing
            item.before += after.before + inner.before
            return item
        self._at = saved
        if text in "{[":
            self._parts(item, text)
        else:
            item.text = text
        return item

    def _parts(self, item: _Item, opening: str) -> None:
        item.text, item.parts = opening, []
        item.was_split = self._peek() == "\n"
        while True:
            gap = _Item()
            saved = self._at
            self._gap(gap, first=True)
            if self._peek() in ("}", "]"):
                self._at += 1
                item.closing = gap.before
                return
            self._at = saved
            part = self.value(first=not item.parts)
            item.parts.append(part)
            self._comma(part)

    def _comma(self, part: _Item) -> None:
        """Step over a comma, and take a comment that stands on the same line behind it."""
        between = _Item()
        saved = self._at
        self._gap(between, first=True)
        if self._peek() == ",":
            part.before += between.before
            self._at += 1
        else:
            self._at = saved
        kind, text = self._tokens[self._at] if self._at < len(self._tokens) else ("", "")
        if kind in ("line", "block") and "\n" not in text:
            part.behind = _comment(kind, text)
            self._at += 1

    def rest(self) -> list[str]:
        """Return the comments behind the last value."""
        item = _Item()
        self._gap(item, first=True)
        return item.before


def _comment(kind: str, text: str) -> str:
    if kind == "line":
        return text.rstrip()
    return "\n".join(line.rstrip() for line in text.split("\n"))


def _lines(item: _Item, depth: int, *, is_last: bool) -> list[str]:
    head = f"{item.name}: " if item.name else ""
    tail = "" if is_last and depth == 0 else ","
    behind = f" {item.behind}" if item.behind else ""
    pad = INDENT * depth
    if item.parts is None:
        return [f"{pad}{head}{item.text}{tail}{behind}"]
    short = None if item.was_split else _short(item)
    if short is not None and len(pad + head + short) < MAX_WIDTH:
        return [f"{pad}{head}{short}{tail}{behind}"]
    lines = [f"{pad}{head}{item.text}"]
    for part in item.parts:
        if part.blank_before:
            lines.append("")
        inner = INDENT * (depth + 1)
        lines += [inner + line for comment in part.before for line in [comment]]
        lines += _lines(part, depth + 1, is_last=False)
    lines += [INDENT * (depth + 1) + comment for comment in item.closing]
    lines.append(f"{pad}{'}' if item.text == '{' else ']'}{tail}{behind}")
    return lines


def _short(item: _Item) -> str | None:
    """Return a value on one line; None if comments stand inside."""
    head = f"{item.name}: " if item.name else ""
    if item.parts is None:
        return item.text
    texts = []
    for part in item.parts:
        inner = _short(part)
        if inner is None or part.before or part.behind or part.was_split:
            return None
        name = f"{part.name}: " if part.name else ""
        texts.append(name + inner)
    if item.closing or (head and "\n" in head):
        return None
    closing = "}" if item.text == "{" else "]"
    return f"{item.text}{', '.join(texts)}{closing}"
