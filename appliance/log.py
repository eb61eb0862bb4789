"""What a log line looks like: the closed list of fields, and the two formats.

Not for deciding what is worth a line. ``server`` and the commands that run servers call ``set_up``.
"""

from __future__ import annotations

import json
import logging
import sys
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
"""Messages that anybody can cause, as often as he likes."""
STRANGERS_PER_MINUTE = 60
"""How often each of them is written: enough to see what goes on, too little to fill a disk."""

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


class Seldom(logging.Filter):
    """Holds back what strangers cause too often; the next line of the kind says how much."""

    def __init__(self) -> None:
        super().__init__()
        self._minute = 0
        self._written: dict[str, int] = {}
        self._left_out: dict[str, int] = {}

    def filter(self, record: logging.LogRecord) -> bool:
        """Tell whether the record is written."""
        message = record.msg
        if message not in FROM_STRANGERS:
            return True
        minute = int(record.created // 60)
        if minute != self._minute:
            self._minute = minute
            self._written.clear()
        written = self._written.get(message, 0)
        if written >= STRANGERS_PER_MINUTE:
            self._left_out[message] = self._left_out.get(message, 0) + 1
            return False
        self._written[message] = written + 1
        left_out = self._left_out.pop(message, 0)
        if left_out:
            record.msg = f"{message} ({left_out} more before)"
        return True


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
        return self.formatException(record.exc_info) if record.exc_info else ""


class JsonFormat(logging.Formatter):
    """One JSON object a line."""

    def format(self, record: logging.LogRecord) -> str:
        """Write one line."""
        line: dict[str, object] = {
            "time": _time(record),
            "level": record.levelname.lower(),
            "logger": record.name.removeprefix("appliance."),
            "message": record.getMessage(),
        }
        line.update({k: _plain(v) for k, v in fields_of(record).items()})
        if record.exc_info:
            line["traceback"] = self.formatException(record.exc_info)
        return json.dumps(line, ensure_ascii=False)


def set_up(level: str, form: Format, stream: TextIO | None = None) -> None:
    """Send log lines to ``stream`` (standard error) in the given form; may be called again."""
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(JsonFormat() if form == "json" else TextFormat())
    handler.addFilter(Seldom())
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
    return record.getMessage().replace("\n", "\\n")


def _plain(value: object) -> object:
    return value if value is None or isinstance(value, bool | int | float | str) else str(value)


def _value(value: object) -> str:
    text = str(value)
    return json.dumps(text, ensure_ascii=False) if not text or _NEEDS_QUOTES & set(text) else text
