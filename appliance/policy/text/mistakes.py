"""Strict reading of a policy document: every mistake is noted with its place, none is raised early.

Not for what the words mean (``document`` and its sections). A ``Reader`` walks a decoded HuJSON
value; at the end all mistakes become one ``PolicyError``. Sits on ``wire.hujson`` and ``errors``.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from itertools import islice

from appliance.errors import Invalid
from appliance.wire.hujson import JSON, Document, HuJSONError, Path, Spot, decode_document

BYTE_ORDER_MARK = "\ufeff"

MAX_MISTAKES = 20
"""Shown at once; a text that is no policy at all would name one per word otherwise."""
MAX_MISTAKE_CHARS = 1000
"""Words are repeated in mistakes; one may be as long as the text."""
MAX_COMPARED = 500
"""Known words that a suggestion looks at: comparing texts is slow."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong, where it stands, and what it should be where we can tell."""

    spot: Spot
    text: str

    def __str__(self) -> str:
        return f"line {self.spot.line}, column {self.spot.column}: {self.text}"


class PolicyError(Invalid):
    """A policy that is refused; ``mistakes`` are in the order of the text."""

    def __init__(self, mistakes: Iterable[Mistake]) -> None:
        self.mistakes = tuple(mistakes)
        lines = [str(mistake) for mistake in self.mistakes[:MAX_MISTAKES]]
        if len(self.mistakes) > MAX_MISTAKES:
            lines.append(f"and {len(self.mistakes) - MAX_MISTAKES} more")
        super().__init__("policy-invalid", "\n".join(lines))

    @classmethod
    def from_hujson(cls, error: HuJSONError) -> PolicyError:
        """Return the error for a text that is not even HuJSON."""
        return cls([Mistake(error.spot, error.problem)])


def parse(text: str | bytes) -> Document:
    """Parse the text of a policy; an empty one is ``{}``. Raises PolicyError.

    Editors on Windows put a byte order mark before a text, which is not part of it.
    """
    mark = BYTE_ORDER_MARK if isinstance(text, str) else BYTE_ORDER_MARK.encode()
    if not text.strip():
        text = "{}"
    try:
        return decode_document(text.removeprefix(mark))  # type: ignore[arg-type]  # same type
    except HuJSONError as error:
        raise PolicyError.from_hujson(error) from None


def suggestion(word: str, known: Iterable[str]) -> str:
    """Return ``; did you mean "…"?`` for a word that is close to a known one, else nothing."""
    by_fold = {each.lower(): each for each in islice(known, MAX_COMPARED)}
    close = get_close_matches(word.lower()[:64], by_fold, n=1, cutoff=0.7)
    return f'; did you mean "{by_fold[close[0]]}"?' if close else ""


class Reader:
    """Reads the parts of one document and collects what is wrong with them.

    Field names are compared as Go's decoder compares them, without regard to case. A null is the
    same as an absent field.
    """

    __slots__ = ("_document", "_mistakes", "_seen", "_suggestions_left")

    def __init__(self, document: Document) -> None:
        self._document = document
        self._mistakes: list[Mistake] = []
        self._seen: set[Mistake] = set()
        self._suggestions_left = MAX_MISTAKES

    def suggest(self, word: str, known: Iterable[str]) -> str:
        """Return a suggestion as ``suggestion`` does, for the first mistakes only."""
        self._suggestions_left -= 1
        return suggestion(word, known) if self._suggestions_left >= 0 else ""

    def note(self, path: Path, text: str, *, at_name: bool = False) -> None:
        """Note a mistake at this place."""
        find = self._document.name_spot if at_name else self._document.spot
        if len(text) > MAX_MISTAKE_CHARS:
            text = text[:MAX_MISTAKE_CHARS] + "…"
        mistake = Mistake(find(*path), text)
        if mistake not in self._seen and len(self._mistakes) <= 50 * MAX_MISTAKES:
            self._seen.add(mistake)
            self._mistakes.append(mistake)

    def spot(self, path: Path) -> Spot:
        """Return where the value at this path stands."""
        return self._document.spot(*path)

    def finish(self) -> None:
        """Raise PolicyError if anything was noted."""
        for path, spot in self._document.duplicates:
            mistake = Mistake(spot, f'duplicate name "{path[-1]}"')
            self._mistakes.append(mistake)
        if self._mistakes:
            raise PolicyError(sorted(self._mistakes, key=lambda mistake: mistake.spot))

    def fields(self, value: JSON, path: Path, known: Iterable[str]) -> dict[str, JSON]:
        """Read an object with a fixed set of names; give its values by the known spelling."""
        found: dict[str, JSON] = {}
        seen: dict[str, str] = {}
        known = tuple(known)
        by_fold = {name.lower(): name for name in known}
        for name, part in self.members(value, path):
            if name.startswith("#"):
                continue
            here = by_fold.get(name.lower())
            if here is None:
                text = f'unknown field "{name}"{self.suggest(name, known)}'
                self.note((*path, name), text, at_name=True)
            elif seen.setdefault(here, name) != name:
                # Which one counts is a guess, and the other one may be what shuts somebody out.
                self.note((*path, name), f'"{name}" and "{seen[here]}" are one field', at_name=True)
            elif part is not None:
                found[here] = part
                found[_PATH + here] = name
        return found

    def members(self, value: JSON, path: Path) -> Iterator[tuple[str, JSON]]:
        """Walk over the members of an object."""
        if value is None:
            return
        if not isinstance(value, dict):
            self.note(path, f"expected an object, found {_kind(value)}")
            return
        yield from value.items()

    def items(self, value: JSON, path: Path) -> Iterator[tuple[JSON, Path]]:
        """Walk over the elements of a list, each with its path."""
        if value is None:
            return
        if not isinstance(value, list):
            self.note(path, f"expected a list, found {_kind(value)}")
            return
        for index, item in enumerate(value):
            yield item, (*path, index)

    def texts(self, value: JSON, path: Path) -> Iterator[tuple[str, Path]]:
        """Walk over the elements of a list of strings, without the blanks around them."""
        for item, where in self.items(value, path):
            if isinstance(item, str):
                yield item.strip(), where
            else:
                self.note(where, f"expected a string, found {_kind(item)}")

    def text(self, value: JSON, path: Path) -> str:
        """Read a string, without the blanks around it; absent is empty."""
        if isinstance(value, str):
            return value.strip()
        if value is not None:
            self.note(path, f"expected a string, found {_kind(value)}")
        return ""

    def flag(self, value: JSON, path: Path) -> bool:
        """Read true or false; absent is false."""
        if isinstance(value, bool):
            return value
        if value is not None:
            self.note(path, f"expected true or false, found {_kind(value)}")
        return False

    def either(self, fields: dict[str, JSON], path: Path, name: str, old: str) -> str:
        """Return the name of a field that has an old name too; both at once are a mistake."""
        if old not in fields:
            return name
        if name in fields:
            spelled = name_in(fields, old)
            self.note((*path, spelled), f'"{spelled}" is the old name of "{name}"', at_name=True)
            return name
        return old


_PATH = "\0"


def name_in(fields: dict[str, JSON], name: str) -> str:
    """Return the spelling that the document uses for a field that ``Reader.fields`` found."""
    spelling = fields.get(_PATH + name, name)
    return spelling if isinstance(spelling, str) else name


def _kind(value: JSON) -> str:
    match value:
        case None:
            return "null"
        case bool():
            return "true or false"
        case int() | float():
            return "a number"
        case str():
            return "a string"
        case list():
            return "a list"
        case _:
            return "an object"
