"""Plain values (from TOML, YAML or JSON) into Structs: strictly, and with all mistakes at once.

Not for what the settings mean (``config`` has the tree) and not for wire messages (unknown fields
are ignored there). Knows types, not keys.
"""

from __future__ import annotations

import difflib
import math
import re
import types
import typing
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import timedelta
from ipaddress import (
    IPv4Address,
    IPv4Network,
    IPv6Address,
    IPv6Network,
)
from pathlib import Path
from typing import Annotated, Literal, NamedTuple, TypeVar, Union, get_args, get_origin

import msgspec

from appliance import durations
from appliance.redaction import is_secret, redact

T = TypeVar("T", bound=msgspec.Struct)

MAX_MISTAKES = 100
"""A wrong file type can make thousands; nobody reads more than a screen or two."""

MAX_SHOWN = 80
"""Characters of a wrong value that are repeated: enough to know it again."""
MAX_SHOWN_VALUES = 4
"""The same of a list."""
MAX_REDACTED = 4096
"""Of a longer text only the beginning is searched for secrets, and shown."""
MAX_INT = (1 << 63) - 1
"""More than any number here means; Python refuses to write those of thousands of digits."""
MAX_PATH = 4096
"""Linux's PATH_MAX."""
_CONTROL = re.compile(r"[\x00-\x1f\x7f\ud800-\udfff]")
_CONTROL_IN_TEXT = re.compile(r"[\x00-\x08\x0b\x0c\x0e-\x1f\x7f\ud800-\udfff]")
"""Lone surrogates with them: JSON can write them, and nothing can send them on."""

MAX_PLAIN_DEPTH = 32
"""A policy has six levels."""
MAX_PLAIN_VALUES = 100_000
"""More than the largest policy has; YAML's aliases make billions of values out of a short text."""


@dataclass(frozen=True, slots=True)
class Mistake:
    """One thing that is wrong: where, what was found, what is allowed and how to put it right."""

    path: str
    found: str
    allowed: str
    fix: str = ""

    def __str__(self) -> str:
        text = f"{self.path or '(the file)'}: found {self.found}; allowed: {self.allowed}"
        return f"{text}; {self.fix}" if self.fix else text


class Endpoint(NamedTuple):
    """An address to listen on: ``HOST:PORT``, ``[V6]:PORT`` or ``:PORT`` for every address."""

    host: str
    port: int

    @classmethod
    def parse(cls, text: str) -> Endpoint:
        """Read the text form. Raises ValueError with what is wrong."""
        host, colon, digits = text.rpartition(":")
        is_port = (
            digits.isascii() and digits.isdigit() and len(digits) <= 5
        )  # int() is for few digits
        if not colon or not is_port or int(digits) > 65535:
            raise ValueError("HOST:PORT with a port up to 65535, like 0.0.0.0:443 or [::]:443")
        if host.startswith("[") and host.endswith("]"):
            host = host[1:-1]
        elif ":" in host:
            raise ValueError("an IPv6 address in brackets, like [::]:443")
        return cls(host, int(digits))

    def __str__(self) -> str:
        return f"[{self.host}]:{self.port}" if ":" in self.host else f"{self.host}:{self.port}"


class FileMode(int):
    """Permission bits of a file. Text is octal (``"0770"``); TOML's ``0o770`` is the number."""

    @classmethod
    def parse(cls, value: object) -> FileMode:
        """Read text or number. Raises ValueError with what is allowed."""
        allowed = 'octal permissions as text, like "0770"'
        if isinstance(value, str):
            if not re.fullmatch(r"0?o?[0-7]{3}", value):
                raise ValueError(allowed)
            return cls(int(value.replace("o", ""), 8))
        if isinstance(value, bool) or not isinstance(value, int) or not 0 < value <= 0o777:
            raise ValueError(allowed)
        return cls(value)

    def __str__(self) -> str:
        return f"0{int(self):o}"


class Reader:
    """Reads one document and collects what is wrong with it in ``mistakes``.

    ``renamed`` maps the dotted path of an old key to the advice that replaces "unknown key".
    """

    def __init__(self, renamed: Mapping[str, str] | None = None) -> None:
        self.mistakes: list[Mistake] = []
        self._renamed = renamed or {}
        self._plain_left = MAX_PLAIN_VALUES

    def struct(self, kind: type[T], value: object, path: str = "") -> T | None:
        """Read a mapping into a Struct; what is wrong in it is noted and keeps its default.

        None if it is no mapping, or if something is wrong or missing that has no default.
        """
        if not isinstance(value, dict):
            self._wrong(path, value, "a mapping of keys to values")
            return None
        known = {field.encode_name: field for field in msgspec.structs.fields(kind)}
        for key in value:
            if key not in known and not self.is_full:
                self._unknown(path, key, list(known))
        read: dict[str, object] = {}
        complete = True
        for name, field in known.items():
            inside = _join(path, name)
            before = len(self.mistakes)
            if name in value:
                member = self.value(field.type, value[name], inside)
                if len(self.mistakes) == before or member is not None:
                    read[field.name] = member
            elif field.required:
                self._add(Mistake(inside, "nothing", f"{describe(field.type)} (required)"))
            complete = complete and (field.name in read or not field.required)
        return kind(**read) if complete else None

    def value(self, kind: typing.Any, value: object, path: str) -> object:
        """Read a value of any type that the settings use."""
        origin = get_origin(kind)
        if origin is Annotated:
            return self._annotated(kind, value, path)
        if origin is Literal:
            return self._literal(get_args(kind), value, path)
        if origin in (Union, types.UnionType):
            return self._union(get_args(kind), value, path)
        if origin is tuple:
            return self._list(get_args(kind)[0], value, path)
        if origin is dict:
            return self._mapping(get_args(kind)[1], value, path)
        if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
            return self.struct(kind, value, path)
        if kind is object:
            return self._plain(value, path)
        return self._scalar(kind, value, path)

    def _plain(self, value: object, path: str, depth: int = 1) -> object:
        """Read a value of any shape that JSON has too."""
        self._plain_left -= 1
        if depth > MAX_PLAIN_DEPTH or self._plain_left < 0:
            limits = f"{MAX_PLAIN_DEPTH} levels and {MAX_PLAIN_VALUES} values"
            self._wrong(path, "(more inside)", limits)
            return None
        if isinstance(value, dict):
            read: dict[str, object] = {}
            for key, each in value.items():
                if self._plain_left < 0:
                    break
                read[str(key)] = self._plain(each, _join(path, key), depth + 1)
            return read
        if isinstance(value, list):
            found: list[object] = []
            for i, each in enumerate(value):
                if self._plain_left < 0:
                    break
                found.append(self._plain(each, f"{path}[{i}]", depth + 1))
            return found
        if value is None or _is_plain(value):
            return value
        self._wrong(path, value, "text, a number, true, false, null, a list or a mapping")
        return None

    @property
    def is_full(self) -> bool:
        """Tell whether no further mistake is noted."""
        return len(self.mistakes) >= MAX_MISTAKES

    def has_mistake(self, path: str) -> bool:
        """Tell whether something is wrong at this place."""
        return any(mistake.path == path for mistake in self.mistakes)

    def refuse(self, path: str, found: object, allowed: str, fix: str = "") -> None:
        """Note a mistake that lies in the meaning rather than in the form."""
        self._add(Mistake(path, show(found, path), allowed, fix))

    def _scalar(self, kind: type, value: object, path: str) -> object:
        accepts, parse, allowed = _SCALARS[kind]
        if not isinstance(value, accepts) or (isinstance(value, bool) and bool not in accepts):
            self._wrong(path, value, allowed)
            return None
        try:
            return parse(value)
        except ValueError as error:
            self._wrong(path, value, str(error) if kind in _SPEAKS else allowed)
            return None

    def _annotated(self, kind: typing.Any, value: object, path: str) -> object:
        base, *notes = get_args(kind)
        before = len(self.mistakes)
        read = self.value(base, value, path)
        if len(self.mistakes) == before and read is not None:
            for note in notes:
                if isinstance(note, msgspec.Meta) and not _fits(note, read):
                    self._wrong(path, value, describe(kind))
                    return None
        return read

    def _literal(self, allowed: tuple[object, ...], value: object, path: str) -> object:
        if value is False and "off" in allowed:
            return "off"  # YAML 1.1 reads a bare off as false
        if value in allowed and not isinstance(value, bool):
            return value
        close = difflib.get_close_matches(str(value), [str(word) for word in allowed], n=1)
        self.refuse(path, value, _either(allowed), f"did you mean {close[0]!r}?" if close else "")
        return None

    def _union(self, kinds: tuple[typing.Any, ...], value: object, path: str) -> object:
        rest = tuple(kind for kind in kinds if kind is not types.NoneType)
        if value is None and len(rest) < len(kinds):
            return None
        if len(rest) == 1:
            return self.value(rest[0], value, path)
        for kind in rest:
            trial = Reader(self._renamed)
            read = trial.value(kind, value, path)
            if not trial.mistakes:
                return read
        self._wrong(path, value, " or ".join(dict.fromkeys(describe(kind) for kind in rest)))
        return None

    def _list(self, kind: typing.Any, value: object, path: str) -> object:
        if not isinstance(value, list):
            self._wrong(path, value, "a list", "write it as a list, even with one member")
            return None
        read = [self.value(kind, each, f"{path}[{i}]") for i, each in enumerate(value)]
        return tuple(each for each in read if each is not None)

    def _mapping(self, kind: typing.Any, value: object, path: str) -> object:
        if not isinstance(value, dict):
            self._wrong(path, value, "a mapping of names to values")
            return None
        read = {str(key): self.value(kind, each, _join(path, key)) for key, each in value.items()}
        return {key: each for key, each in read.items() if each is not None}

    def _unknown(self, path: str, key: object, known: list[str]) -> None:
        inside = _join(path, key)
        if inside in self._renamed:
            self._add(
                Mistake(inside, "a key of another name", "no such key", self._renamed[inside])
            )
            return
        close = difflib.get_close_matches(str(key), known, n=1)
        fix = f"did you mean {close[0]!r}?" if close else "remove it"
        self._add(Mistake(inside, "an unknown key", ", ".join(sorted(known)), fix))

    def _wrong(self, path: str, value: object, allowed: str, fix: str = "") -> None:
        self._add(Mistake(path, show(value, path), allowed, fix))

    def _add(self, mistake: Mistake) -> None:
        if not self.is_full and not self.has_mistake(mistake.path):
            self.mistakes.append(mistake)


def to_plain(value: object) -> object:
    """Write settings as plain values, which read back to equal ones."""
    if isinstance(value, msgspec.Struct):
        return {
            field.encode_name: to_plain(getattr(value, field.name))
            for field in msgspec.structs.fields(type(value))
        }
    if isinstance(value, Endpoint | FileMode):
        return str(value)
    if isinstance(value, tuple | list):
        return [to_plain(each) for each in value]
    if isinstance(value, dict):
        return {key: to_plain(each) for key, each in value.items()}
    if isinstance(value, timedelta):
        return durations.to_text(value)
    if value is None or isinstance(value, bool | int | float | str):
        return value
    return str(value)


def describe(kind: typing.Any) -> str:
    """Say in words what a type accepts."""
    origin = get_origin(kind)
    arguments = get_args(kind)
    if origin is Annotated:
        limits = [limit for note in arguments[1:] for limit in _limits(note)]
        return " ".join([describe(arguments[0]), *limits])
    if origin is Literal:
        return _either(arguments)
    if origin in (Union, types.UnionType):
        words = dict.fromkeys(describe(each) for each in arguments if each is not types.NoneType)
        return " or ".join(words) + (" or null" if types.NoneType in arguments else "")
    if origin is tuple:
        return f"a list, each {describe(arguments[0])}"
    if origin is dict:
        return f"a mapping of names to {describe(arguments[1])}"
    if isinstance(kind, type) and issubclass(kind, msgspec.Struct):
        return "a mapping"
    if kind is object:
        return "anything"
    return _SCALARS[kind][2]


def _limits(note: object) -> list[str]:
    if not isinstance(note, msgspec.Meta):
        return []
    limits = []
    if note.ge is not None and note.le is not None:
        limits.append(f"from {note.ge} to {note.le}")
    elif note.ge is not None:
        limits.append(f"of at least {note.ge}")
    if note.description is not None:
        limits.append(note.description)
    return limits


def _fits(note: msgspec.Meta, value: object) -> bool:
    if isinstance(value, str):
        return note.pattern is None or re.fullmatch(note.pattern, value) is not None
    if isinstance(value, int | float):
        low = -math.inf if note.ge is None else note.ge
        return low <= value <= (math.inf if note.le is None else note.le)
    return True


def _either(words: tuple[object, ...]) -> str:
    return " or ".join(str(word) for word in words)


def _join(path: str, key: object) -> str:
    name = _cut(str(key))
    return f"{path}.{name}" if path else name


def show(value: object, path: str = "") -> str:
    """Write a value for people: short, and without the secrets that stand in it or are it."""
    if isinstance(value, str):
        if value.startswith("("):  # our own words for it
            return value
        if value and is_secret(path.rpartition(".")[2]):
            return "(a secret)"
        # Redacted before it is cut: half a URL shows no longer what is a password in it.
        return _cut(repr(_cut(redact(value[:MAX_REDACTED]))))
    if isinstance(value, dict):
        return f"a mapping of {len(value)} key(s)" if value else "{}"
    if isinstance(value, list | tuple):
        if any(isinstance(each, list | dict) for each in value[:MAX_SHOWN_VALUES]):
            return f"a list of {len(value)} value(s)"
        inner = [show(each, path) for each in value[:MAX_SHOWN_VALUES]]
        more = ["..."] if len(value) > MAX_SHOWN_VALUES else []
        return _cut(f"[{', '.join(inner + more)}]")
    if isinstance(value, int) and abs(value) > MAX_INT:
        return "a very large number"  # which Python may refuse to write, too
    return _cut(repr(value))


def _cut(text: str) -> str:
    return text if len(text) <= MAX_SHOWN else text[: MAX_SHOWN - 3] + "..."


def _path(value: str) -> Path:
    if not value or len(value) > MAX_PATH or _CONTROL.search(value):
        raise ValueError("no path")
    return Path(value)


def _whole(value: int) -> int:
    if abs(value) > MAX_INT:
        raise ValueError("too large")
    return value


def _finite(value: float) -> float:
    if abs(value) > MAX_INT or not math.isfinite(value):
        raise ValueError("no number to reckon with")
    return float(value)


def _is_plain(value: object) -> bool:
    """Tell whether JSON has this value too, and whether it can be written as JSON."""
    if isinstance(value, str):
        return _CONTROL_IN_TEXT.search(value) is None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return isinstance(value, bool)
    return abs(value) <= MAX_INT and math.isfinite(value)


def _text(value: str) -> str:
    if _CONTROL_IN_TEXT.search(value):
        raise ValueError("text without control characters")
    return value


_Row = tuple[tuple[type, ...], Callable[[typing.Any], object], str]
_SCALARS: dict[type, _Row] = {
    bool: ((bool,), bool, "true or false"),
    int: ((int,), _whole, "a whole number"),
    float: ((int, float), _finite, "a number"),
    str: ((str,), _text, "text"),
    timedelta: ((str,), durations.parse, "a duration"),
    Path: ((str,), _path, "the path of a file"),
    Endpoint: ((str,), Endpoint.parse, "HOST:PORT"),
    FileMode: ((str, int), FileMode.parse, "octal permissions"),
    IPv4Address: ((str,), IPv4Address, "an IPv4 address"),
    IPv6Address: ((str,), IPv6Address, "an IPv6 address"),
    IPv4Network: ((str,), IPv4Network, "an IPv4 prefix without host bits, like 100.64.0.0/10"),
    IPv6Network: (
        (str,),
        IPv6Network,
        "an IPv6 prefix without host bits, like fd7a:115c:a1e0::/48",
    ),
}
_SPEAKS = frozenset({str, timedelta, Endpoint, FileMode})
"""The types whose ValueError says what is allowed."""

__all__ = [
    "Endpoint",
    "FileMode",
    "Mistake",
    "Reader",
    "describe",
    "to_plain",
]
