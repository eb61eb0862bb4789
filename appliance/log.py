"""What a log line looks like: the closed list of fields, the two formats, and the limit on floods.

Not for deciding what is worth a line. ``server`` and the commands that run servers call ``set_up``.
"""

from __future__ import annotations

import asyncio
import json
import logging
import sys
import threading
from collections.abc import Callable
from contextlib import nullcontext
from datetime import UTC, datetime
from typing import Literal, TextIO

FIELDS = (
    "node",
    "user",
    "machine_key",
    "tailnet",
    "tailnet_version",
    "capver",
    "remote",
    "region",
    "reason",
    "duration_ms",
    "by",
    "path",
    "source",
    "attribute",
    "key",
    "change",
    "repeated",
    "loop",
    "version",
    "url",
    "addresses",
    "database",
    "relay",
    "tailnets",
)
"""Every field that a line may carry; a field of another name is a mistake that tests find."""

FROM_STRANGERS = frozenset(
    {
        "registration refused",
        "sign-in refused",
        "logout refused",
        "map refused",
        "relay client not admitted",
        "admission cannot be asked",
        # While the database is away, whoever asks for a change causes one.
        "commit failed",
        "database is not well",
        "lost the connection to the database; connecting again",
        "a commit of several tailnets failed; trying them one by one",
    }
)
"""Messages below a warning that anybody can cause, as often as they like."""

# -- what a flood may write: together under 100 KB a minute, so that it neither fills a disk nor hides
# what else happens. A line has some 250 bytes.

LINES_PER_MINUTE = 60
"""Of one kind of warning, error or FROM_STRANGERS without a traceback."""
TRACEBACKS_PER_MINUTE = 3
"""Of one kind: the first says what is wrong, and the next two whether it is always the same."""
ALL_LINES_PER_MINUTE = 200
"""Of all kinds together."""
ALL_TRACEBACKS_PER_MINUTE = 8
"""Of all kinds together."""
FIRST_OF_A_KIND = 2
"""So many of each kind pass although all kinds together have had their share, up to MAX_KINDS: a flood
of one must not hide another."""
MAX_KINDS = 64
"""Kinds that are told apart in one minute; what is beyond counts as one kind."""
MINUTE_S = 60.0
MAX_TRACEBACK_CHARS = 5_000
"""Of one traceback; the middle is left out, for the end says what failed and the beginning who asked."""
MAX_VALUE_CHARS = 500
"""Of a message or a field: paths and reasons can be a stranger's, and a request head has 16 KiB."""

Format = Literal["text", "json"]

_OURS = frozenset(FIELDS)
_STANDARD = frozenset(vars(logging.makeLogRecord({}))) | {"message", "asctime", "taskName"}
_NEEDS_QUOTES = frozenset(' "=\n\t\\')


def fields_of(record: logging.LogRecord) -> dict[str, object]:
    """Give the fields of a record in the order of the list."""
    return {name: record.__dict__[name] for name in FIELDS if name in record.__dict__}


def strange_fields(record: logging.LogRecord) -> set[str]:
    """Name the fields of a record that are not in the list."""
    return set(record.__dict__) - _STANDARD - _OURS


Kind = tuple[str, str, str]
"""Logger, message without its arguments, and the type of the exception; all of them are the program's."""
OTHERS: Kind = ("", "other messages", "")


class FloodLimit(logging.Filter):
    """Holds back what comes too often, and says how much that was when the minute is over.

    Looked at are warnings, errors, everything with a traceback, and FROM_STRANGERS. ``emit`` writes the
    line that says the count; it comes with the first line of a later minute, or by ``call_later``.
    """

    def __init__(
        self,
        emit: Callable[[logging.LogRecord], None],
        call_later: Callable[[float, Callable[[], None]], object] | None = None,
    ) -> None:
        super().__init__()
        self._emit = emit
        self._call_later = call_later or _on_the_loop
        self._lock = threading.Lock()
        self._began = 0.0
        self._written: dict[Kind, int] = {}
        self._held_back: dict[Kind, tuple[int, int]] = {}
        """The count and the level of each kind."""
        self._lines = 0
        self._tracebacks = 0

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is written."""
        with self._lock:
            over = self._turn(record.created)
            passes, is_first = self._passes(record)
        self._say(over)
        if is_first:
            self._call_later(max(0.0, self._began + MINUTE_S - record.created), self.end_minute)
        return passes

    def end_minute(self) -> None:
        """Say what was held back until now."""
        with self._lock:
            over, self._held_back = self._held_back, {}
            self._began = 0.0
        self._say(over)

    def _turn(self, now: float) -> dict[Kind, tuple[int, int]]:
        """Begin a new minute if the old one is over; return what was held back in the old one."""
        if 0 <= now - self._began < MINUTE_S:
            return {}
        over, self._held_back = self._held_back, {}
        self._began = now
        self._written.clear()
        self._lines = self._tracebacks = 0
        return over

    def _passes(self, record: logging.LogRecord) -> tuple[bool, bool]:
        """Count a record; return whether it passes, and whether it is the first one held back."""
        is_ordinary = record.levelno < logging.WARNING and not record.exc_info
        if is_ordinary and record.msg not in FROM_STRANGERS:
            return True, False
        kind = _kind(record)
        if kind not in self._written and len(self._written) >= MAX_KINDS:
            kind = OTHERS
        written = self._written.get(kind, 0)
        if self._may_write(written, has_traceback=bool(record.exc_info)):
            self._written[kind] = written + 1
            return True, False
        is_first = not self._held_back
        count, level = self._held_back.get(kind, (0, 0))
        self._held_back[kind] = (count + 1, max(level, record.levelno))
        return False, is_first

    def _may_write(self, written: int, *, has_traceback: bool) -> bool:
        if has_traceback:
            most, all_have = TRACEBACKS_PER_MINUTE, self._tracebacks >= ALL_TRACEBACKS_PER_MINUTE
        else:
            most, all_have = LINES_PER_MINUTE, self._lines >= ALL_LINES_PER_MINUTE
        first = 1 if has_traceback else FIRST_OF_A_KIND
        if written >= (first if all_have else most):
            return False
        if has_traceback:
            self._tracebacks += 1
        else:
            self._lines += 1
        return True

    def _say(self, over: dict[Kind, tuple[int, int]]) -> None:
        for (logger, message, error), (count, level) in over.items():
            what = f"{message} ({error})" if error else message
            self._emit(
                logging.makeLogRecord(
                    {
                        "name": logger,
                        "levelno": level,
                        "levelname": logging.getLevelName(level),
                        "msg": "%s … and %d more",
                        "args": (what, count),
                    }
                )
            )


def _kind(record: logging.LogRecord) -> Kind:
    error = record.exc_info[0] if record.exc_info else None
    is_ours = record.name.startswith("appliance")
    # asyncio puts tasks and addresses into its messages, so that each would be a kind of its own.
    message = str(record.msg) if is_ours else f"messages of {record.name}"
    return record.name, message, "" if error is None else error.__name__


def _on_the_loop(seconds: float, call: Callable[[], None]) -> None:
    """Call later if this thread has an event loop; else the next line of a later minute does it."""
    try:
        loop = asyncio.get_running_loop()
    except RuntimeError:
        return
    loop.call_later(seconds, call)


class TextFormat(logging.Formatter):
    """``time level logger: message key=value …``; values with blanks are quoted."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line, and the traceback below it if there is one."""
        room = record.name.removeprefix("appliance.")
        pairs = "".join(f" {key}={_value(value)}" for key, value in fields_of(record).items())
        line = f"{_time(record)} {record.levelname.lower()} {room}: {_one_line(record)}{pairs}"
        trace = self._trace(record)
        return f"{line}\n{trace}" if trace else line

    def _trace(self, record: logging.LogRecord) -> str:
        return _cut_middle(self.formatException(record.exc_info)) if record.exc_info else ""


class JsonFormat(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("appliance."),
            "message": _cut(record.getMessage()),
        }
        line.update({k: _plain(v) for k, v in fields_of(record).items()})
        if record.exc_info:
            line["traceback"] = _cut_middle(self.formatException(record.exc_info))
        return json.dumps(line, ensure_ascii=False)


def set_up(level: str, form: Format, stream: TextIO | None = None) -> None:
    """Send log lines to ``stream`` (standard error) in the given form; may be called again."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormat() if form == "json" else TextFormat())

    def write(record: logging.LogRecord) -> None:
        with handler.lock or nullcontext():
            handler.emit(record)

    handler.addFilter(FloodLimit(write))
    ours = logging.getLogger("appliance")
    for old in tuple(ours.handlers):
        ours.removeHandler(old)
    ours.addHandler(handler)
    ours.propagate = False
    set_level(level)
    # Libraries speak up only when something is wrong.
    root = logging.getLogger()
    for old in tuple(root.handlers):
        if getattr(old, "is_headwater", False):
            root.removeHandler(old)
    handler.is_headwater = True  # type: ignore[attr-defined]  # our own mark
    root.addHandler(handler)
    root.setLevel(logging.WARNING)


def set_level(level: str) -> None:
    """Change the least serious level that is written."""
    logging.getLogger("appliance").setLevel(level.upper())


def _time(record: logging.LogRecord) -> str:
    moment = datetime.fromtimestamp(record.created, UTC)
    return moment.isoformat(timespec="milliseconds").replace("+00:00", "Z")


def _one_line(record: logging.LogRecord) -> str:
    return _cut(record.getMessage()).replace("\n", "\\n")


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float) else _cut(str(value))


def _value(value: object) -> str:
    text = _cut(str(value))
    return json.dumps(text, ensure_ascii=False) if not text or _NEEDS_QUOTES & set(text) else text


def _cut(text: str) -> str:
    return text if len(text) <= MAX_VALUE_CHARS else text[:MAX_VALUE_CHARS] + "…"


def _cut_middle(text: str) -> str:
    if len(text) <= MAX_TRACEBACK_CHARS:
        return text
    head = MAX_TRACEBACK_CHARS // 4
    tail = MAX_TRACEBACK_CHARS - head
    return f"{text[:head]}\n  …\n{text[-tail:]}"
