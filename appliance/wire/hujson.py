"""HuJSON: JSON with comments and trailing commas, as policy files are written.

Not for messages between machines (``tailcfg``), nor for writing. Sits on ``errors``.
Every mistake comes with its line and column; every value knows where it stands, so that a later
check can point at it. Linear in the length of the text.
Source: RFC 8259; github.com/tailscale/hujson (comments ``//`` and ``/* */``, a comma before ``]``
or ``}``).
"""

from __future__ import annotations

import json
import math
import re
from bisect import bisect_right
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, NamedTuple, TypeAlias

from appliance.wire.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

MAX_TEXT_CHARS = 4 << 20
"""A policy with 10,000 rules has 2 MB."""
MAX_DEPTH = 64
"""Nesting; a policy needs 7."""
MAX_NUMBER_CHARS = 400
"""Longer than any number that a float can hold; bounds the work of reading it."""

JSON: TypeAlias = "dict[str, JSON] | list[JSON] | str | int | float | bool | None"
Path: TypeAlias = "tuple[str | int, ...]"

# No possessive groups: Python before 3.11.5 (Debian 12 has 3.11.2) takes them to match less than they
# do. None of these can go back far: what may follow a repetition is never what it repeats.
_GAP = re.compile(r"(?:[ \t\r\n]+|//[^\n]*|/\*[^*]*\*+(?:[^/*][^*]*\*+)*/)*")
# What stands between most values: one look instead of three. A comment, or the end of what is
# being read, behind it makes them miss.
_COMMA = re.compile(r"[ \t\r\n]*,[ \t\r\n]*(?![ \t\r\n/\]}])")
_COLON = re.compile(r"[ \t\r\n]*:[ \t\r\n]*(?![ \t\r\n/])")
_PLAIN_STRING = re.compile(r'"([^"\\\x00-\x1f]*)"')
_STRING_BODY = re.compile(r'"(?:[^"\\\x00-\x1f]+|\\(?:["\\/bfnrt]|u[0-9a-fA-F]{4}))*')
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(\.[0-9]+)?([eE][+-]?[0-9]+)?")
_WORD = re.compile(r"[A-Za-z_][A-Za-z_0-9]*")
_CONSTANTS: dict[str, bool | None] = {"true": True, "false": False, "null": None}
_SHOWN_CHARS = 20


class Spot(NamedTuple):
    """A place in the text; both count from 1, columns in characters."""

    line: int
    column: int


class HuJSONError(ProtocolError):
    """The text is not HuJSON; ``spot`` is where, ``problem`` is what."""

    def __init__(self, problem: str, spot: Spot) -> None:
        super().__init__(f"line {spot.line}, column {spot.column}: {problem}")
        self.problem = problem
        self.spot = spot


@dataclass(slots=True)
class _Members:
    """Where an object starts, its names, and the values of its members."""

    offset: int
    names: dict[str, int] = field(default_factory=dict)
    values: dict[str, _Mark] = field(default_factory=dict)


@dataclass(slots=True)
class _Items:
    """Where an array starts, and its elements."""

    offset: int
    values: list[_Mark] = field(default_factory=list)


_Mark: TypeAlias = "_Members | _Items | int"
"""Where a value starts, and the same for all in it; a number for what has nothing in it."""


class Document:
    """A value and the places of all its parts.

    ``duplicates`` are the paths of names that stand more than once in their object: the last one
    counts, as in Go, and all but the first are listed with their place.
    """

    __slots__ = ("_lines", "_marks", "duplicates", "value")

    def __init__(
        self, text: str, value: JSON, marks: _Mark, duplicates: list[tuple[Path, int]]
    ) -> None:
        self.value = value
        self._marks = marks
        self._lines = _Lines(text)
        self.duplicates = tuple((path, self._lines.spot(offset)) for path, offset in duplicates)

    def spot(self, *path: str | int) -> Spot:
        """Tell where the value at this path starts; of a missing one, where its parent does."""
        mark = self._marks
        for step in path:
            below = _step(mark, step)
            if below is None:
                break
            mark = below
        return self._lines.spot(mark if isinstance(mark, int) else mark.offset)

    def name_spot(self, *path: str | int) -> Spot:
        """Tell where the name of the member at this path stands; else as ``spot`` does."""
        mark: _Mark | None = self._marks
        for step in path[:-1]:
            mark = _step(mark, step) if mark is not None else None
        if isinstance(mark, _Members) and path and path[-1] in mark.names:
            return self._lines.spot(mark.names[str(path[-1])])
        return self.spot(*path)


def _step(mark: _Mark, step: str | int) -> _Mark | None:
    match mark, step:
        case _Members(values=members), str():
            return members.get(step)
        case _Items(values=items), int() if 0 <= step < len(items):
            return items[step]
        case _:
            return None


class _Lines:
    """Offsets to lines and columns; finds the line ends when first asked."""

    __slots__ = ("_starts", "_text")

    def __init__(self, text: str) -> None:
        self._text = text
        self._starts: list[int] = []

    def spot(self, offset: int) -> Spot:
        if not self._starts:
            self._starts = [0, *(match.end() for match in re.finditer("\n", self._text))]
        line = bisect_right(self._starts, offset)
        return Spot(line, offset - self._starts[line - 1] + 1)


def decode(text: str | bytes) -> JSON:
    """Give the plain value of a text. Raises HuJSONError (a ProtocolError)."""
    return decode_document(text).value


def decode_document(text: str | bytes) -> Document:
    """Give the value of a text and the places of its parts. Raises HuJSONError."""
    if isinstance(text, bytes):
        text = _decode_utf8(text)
    return _Parser(text).document()


def _decode_utf8(data: bytes) -> str:
    try:
        return data.decode()
    except UnicodeDecodeError as error:
        before = data[: error.start].decode()
        spot = _Lines(before).spot(len(before))
        raise HuJSONError("the text is not valid UTF-8", spot) from None


_NOT_STORABLE = re.compile("[\0\ud800-\udfff]")
"""What databases do not keep, even in a comment: NUL (PostgreSQL), halves of surrogate pairs (all)."""


class _Parser:
    __slots__ = ("duplicates", "path", "position", "text")

    def __init__(self, text: str) -> None:
        self.text = text
        self.position = 0
        self.path: list[str | list[JSON]] = []
        """Names, and arrays as far as they are read: their next index is their length."""
        self.duplicates: list[tuple[Path, int]] = []
        if len(text) > MAX_TEXT_CHARS:
            raise self.error(f"the text is longer than {MAX_TEXT_CHARS} characters", MAX_TEXT_CHARS)
        strange = _NOT_STORABLE.search(text)
        if strange is not None:
            raise self.error(f"the character {strange[0]!r} is no text", strange.start())

    def document(self) -> Document:
        self.skip_gap()
        value, marks = self.value()
        self.skip_gap()
        if self.position < len(self.text):
            raise self.error(f"unexpected {self.shown()} after the end of the value")
        return Document(self.text, value, marks, self.duplicates)

    def error(self, problem: str, offset: int | None = None) -> HuJSONError:
        offset = self.position if offset is None else offset
        return HuJSONError(problem, _Lines(self.text).spot(offset))

    def shown(self) -> str:
        """Name what stands here, for an error."""
        word = _WORD.match(self.text, self.position)
        if word is not None:
            return repr(word.group()[:_SHOWN_CHARS])
        here = self.text[self.position : self.position + 1]
        return repr(here) if here else "end of the text"

    def skip_gap(self) -> None:
        match = _GAP.match(self.text, self.position)
        self.position = match.end() if match else self.position
        if self.text.startswith("/*", self.position):
            raise self.error("the comment has no end")

    def value(self) -> tuple[JSON, _Mark]:
        start = self.position
        plain = _PLAIN_STRING.match(self.text, start)
        if plain is not None:
            self.position = plain.end()
            return plain[1], start
        first = self.text[start : start + 1]
        if first == "{":
            return self.object()
        if first == "[":
            return self.array()
        if first == '"':
            return self.string(), start
        if first == "-" or first.isdigit():
            return self.number(), start
        return self.constant(), start

    def constant(self) -> bool | None:
        word = _WORD.match(self.text, self.position)
        if word is None or word.group() not in _CONSTANTS:
            raise self.error(f"unexpected {self.shown()}, want a value")
        self.position = word.end()
        return _CONSTANTS[word.group()]

    def enter(self) -> None:
        if len(self.path) >= MAX_DEPTH:
            raise self.error(f"nested deeper than {MAX_DEPTH} levels")
        self.position += 1
        self.skip_gap()

    def more(self, end: str, what: str) -> bool:
        """Step over the comma behind a member, or over the end of its object or array."""
        comma = _COMMA.match(self.text, self.position)
        if comma is not None:
            self.position = comma.end()
            return True
        self.skip_gap()
        here = self.text[self.position : self.position + 1]
        if here == ",":
            self.position += 1
            self.skip_gap()
            here = self.text[self.position : self.position + 1]
        elif here != end:
            raise self.error(f"unexpected {self.shown()}, want ',' or {end!r} after {what}")
        return here != end

    def colon(self) -> None:
        """Step over the colon behind a name."""
        colon = _COLON.match(self.text, self.position)
        if colon is not None:
            self.position = colon.end()
            return
        self.skip_gap()
        if self.text[self.position : self.position + 1] != ":":
            raise self.error(f"unexpected {self.shown()}, want ':' after the name")
        self.position += 1
        self.skip_gap()

    def object(self) -> tuple[dict[str, JSON], _Members]:
        members: dict[str, JSON] = {}
        mark = _Members(self.position)
        self.enter()
        going = self.text[self.position : self.position + 1] != "}"
        self.path.append("")
        while going:
            start = self.position
            if self.text[start : start + 1] != '"':
                raise self.error(f"unexpected {self.shown()}, want a name in double quotes")
            name = self.path[-1] = self.string()
            self.colon()
            if name in members:
                self.duplicates.append((self.here(), start))
            members[name], mark.values[name] = self.value()
            mark.names[name] = start
            going = self.more("}", "the value")
        self.path.pop()
        self.position += 1
        return members, mark

    def array(self) -> tuple[list[JSON], _Items]:
        items: list[JSON] = []
        mark = _Items(self.position)
        self.enter()
        going = self.text[self.position : self.position + 1] != "]"
        self.path.append(items)
        while going:
            item, below = self.value()
            items.append(item)
            mark.values.append(below)
            going = self.more("]", "the element")
        self.path.pop()
        self.position += 1
        return items, mark

    def here(self) -> Path:
        """Give the path of the value that is being read."""
        return tuple(step if isinstance(step, str) else len(step) for step in self.path)

    def string(self) -> str:
        plain = _PLAIN_STRING.match(self.text, self.position)
        if plain is not None:
            self.position = plain.end()
            return plain.group(1)
        body = _STRING_BODY.match(self.text, self.position)
        end = body.end() if body else self.position
        if self.text[end : end + 1] != '"':
            raise self.error(_string_problem(self.text[end : end + 1]), end)
        text: str = json.loads(self.text[self.position : end + 1])
        self.position = end + 1
        # Half a surrogate pair is no character; Go puts U+FFFD in its place.
        return text.encode("utf-16", "surrogatepass").decode("utf-16", "replace")

    def number(self) -> int | float:
        match = _NUMBER.match(self.text, self.position)
        if match is None:
            raise self.error("not a number")
        if match.end() - match.start() > MAX_NUMBER_CHARS:
            raise self.error(f"the number is longer than {MAX_NUMBER_CHARS} characters")
        whole = match.group(1) is None and match.group(2) is None
        read: Callable[[str], int | float] = int if whole else float
        number = read(match.group())
        if not whole and math.isinf(number):
            raise self.error("the number is too large")
        self.position = match.end()
        return number


def _string_problem(here: str) -> str:
    if here == "":
        return "the text has no end"
    if here == "\\":
        return "not an escape that JSON knows"
    if here == "\n":
        return "the text must end on its line"
    return f"the control character {here!r} must be written as an escape"
