"""Log lines: both formats, the closed list of fields, and that the program keeps to it."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from appliance import log

PROGRAM = Path(log.__file__).parent


@pytest.fixture
def ours() -> Iterator[logging.Logger]:
    root, package = logging.getLogger(), logging.getLogger("appliance")
    kept = (root.handlers[:], root.level, package.handlers[:], package.level, package.propagate)
    yield logging.getLogger("appliance.room")
    root.handlers[:], root.level, package.handlers[:], package.level, package.propagate = kept


def test_text_line_has_fields_in_order(ours: logging.Logger) -> None:
    stream = io.StringIO()
    log.set_up("info", "text", stream)
    ours.info("node registered", extra={"by": "local:socket", "node": "a b", "capver": 130})
    line = stream.getvalue()
    assert line.endswith('Z info room: node registered node="a b" capver=130 by=local:socket\n')


def test_text_line_cannot_be_forged(ours: logging.Logger) -> None:
    stream = io.StringIO()
    log.set_up("info", "text", stream)
    ours.info("x %s", "a\nb", extra={"node": 'c\n"d'})
    assert stream.getvalue().count("\n") == 1


def test_json_line_is_one_object(ours: logging.Logger) -> None:
    stream = io.StringIO()
    log.set_up("debug", "json", stream)
    try:
        int("boom")
    except ValueError:
        ours.exception("failed", extra={"node": "n", "duration_ms": 1.5})
    line = json.loads(stream.getvalue())
    assert line["level"] == "error"
    assert line["logger"] == "room"
    assert line["duration_ms"] == 1.5
    assert "boom" in line["traceback"]


def test_level_changes_hot_and_set_up_twice_writes_once(ours: logging.Logger) -> None:
    stream = io.StringIO()
    log.set_up("info", "text", stream)
    log.set_up("info", "text", stream)
    ours.debug("hidden")
    log.set_level("debug")
    ours.debug("seen")
    assert stream.getvalue().count("seen") == 1
    assert "hidden" not in stream.getvalue()


def test_strange_field_is_found() -> None:
    record = logging.makeLogRecord({"msg": "x", "node": 1, "colour": "red"})
    assert log.strange_fields(record) == {"colour"}


def test_program_uses_only_known_fields() -> None:
    strange: list[str] = []
    for path in PROGRAM.rglob("*.py"):
        for call in ast.walk(ast.parse(path.read_text())):
            if not isinstance(call, ast.Call):
                continue
            for keyword in call.keywords:
                if keyword.arg == "extra" and isinstance(keyword.value, ast.Dict):
                    strange.extend(
                        f"{path.name}: {key.value!r}"
                        for key in keyword.value.keys
                        if isinstance(key, ast.Constant) and key.value not in log.FIELDS
                    )
    assert not strange


class Flooded:
    """A flood limit whose clock and timers are the test's."""

    def __init__(self) -> None:
        self.said: list[str] = []
        self.due: list[tuple[float, Callable[[], None]]] = []
        self.limit = log.FloodLimit(
            lambda record: self.said.append(
                f"{record.levelname} {record.name}: {record.getMessage()}"
            ),
            lambda seconds, call: self.due.append((seconds, call)),
        )

    def passes(self, message: str, at: float, **more: object) -> bool:
        record = logging.makeLogRecord(
            {
                "msg": message,
                "created": at,
                "levelno": logging.INFO,
                "levelname": logging.getLevelName(int(str(more.get("levelno", logging.INFO)))),
                "name": "appliance.room",
                **more,
            }
        )
        return self.limit.filter(record)


def an_error(error: Exception | None = None) -> dict[str, object]:
    error = error or ValueError("boom")
    return {"exc_info": (type(error), error, None), "levelno": logging.ERROR}


def test_what_strangers_cause_is_written_some_times_a_minute() -> None:
    flood = Flooded()
    kept = [flood.passes("registration refused", 600.0 + n / 100) for n in range(200)]
    assert sum(kept) == log.LINES_PER_MINUTE
    assert all(flood.passes("node registered", 602.0) for _ in range(1000))


def test_count_is_said_when_the_flood_ends() -> None:
    flood = Flooded()
    for n in range(200):
        flood.passes("registration refused", 600.0 + n / 100)
    ((seconds, call),) = flood.due
    assert 59 < seconds < 60
    assert not flood.said
    call()
    assert flood.said == ["INFO appliance.room: registration refused … and 140 more"]
    call()
    assert len(flood.said) == 1
    assert flood.passes("registration refused", 661.0)


def test_count_is_said_with_the_next_line_where_no_timer_runs() -> None:
    flood = Flooded()
    for _ in range(5):
        flood.passes("a route failed", 600.0, **an_error())
    assert flood.passes("node registered", 660.0)
    assert flood.said == ["ERROR appliance.room: a route failed (ValueError) … and 2 more"]


def test_tracebacks_are_held_back_by_message_and_kind_of_error() -> None:
    flood = Flooded()
    for kept in (True, True, True, False):
        assert flood.passes("a route failed", 600.0, **an_error()) is kept
    assert flood.passes("a route failed", 600.0, **an_error(KeyError("other")))
    assert flood.passes("another message", 600.0, **an_error())


def test_one_flood_does_not_hide_another_kind() -> None:
    flood = Flooded()
    for kind in range(20):
        for _ in range(100):
            flood.passes(f"flood {kind}", 600.0, levelno=logging.WARNING)
            flood.passes(f"flood {kind}", 600.0, **an_error())
    assert flood.passes("commit failed", 601.0, levelno=logging.WARNING)
    assert flood.passes("commit failed", 601.0, **an_error())


def test_kinds_are_bounded() -> None:
    flood = Flooded()
    kept = sum(flood.passes(f"task {n} failed", 600.0, **an_error()) for n in range(10_000))
    assert kept <= log.ALL_TRACEBACKS_PER_MINUTE + log.MAX_KINDS
    assert len(flood.limit._written) <= log.MAX_KINDS + 1


def test_messages_of_libraries_are_one_kind() -> None:
    """asyncio writes the task, and so an address, into the message."""
    flood = Flooded()
    kept = sum(
        flood.passes(f"exception of <Task {n}>", 600.0, name="asyncio", **an_error())
        for n in range(100)
    )
    assert kept == log.TRACEBACKS_PER_MINUTE


def test_clock_that_goes_back_begins_a_new_minute() -> None:
    flood = Flooded()
    for at in (600.0, 100.0):
        kept = sum(flood.passes("registration refused", at) for _ in range(100))
        assert kept == log.LINES_PER_MINUTE


def test_lines_are_bounded(ours: logging.Logger) -> None:
    """H4: a path or a reason can be a stranger's, and a traceback can be as deep as he likes."""

    def deep(levels: int) -> None:
        if levels:
            deep(levels - 1)
        raise ValueError("x" * 100_000)

    for form in ("text", "json"):
        stream = io.StringIO()
        log.set_up("info", form, stream)
        ours.info("asked " + "m" * 10_000, extra={"path": "p" * 10_000})
        assert len(stream.getvalue()) < 3 * log.MAX_VALUE_CHARS
        try:
            deep(200)
        except ValueError:
            ours.exception("failed")
        assert len(stream.getvalue()) < 2 * log.MAX_TRACEBACK_CHARS


@pytest.fixture
def minute() -> Iterator[None]:
    """Let every record be of one moment, however slow the machine is."""
    make = logging.getLogRecordFactory()

    def of_one_moment(*args: Any, **kwargs: Any) -> logging.LogRecord:
        record = make(*args, **kwargs)
        record.created = 1_000_000.0
        return record

    logging.setLogRecordFactory(of_one_moment)
    yield
    logging.setLogRecordFactory(make)


def fail(depth: int) -> None:
    if depth:
        fail(depth - 1)
    raise RuntimeError("a bug that a stranger found")


@pytest.mark.usefixtures("minute")
@pytest.mark.parametrize("form", ["text", "json"])
def test_any_mixture_of_floods_is_under_100_kb_a_minute(ours: logging.Logger, form: Any) -> None:
    """H4: bytes are counted, of everything at once that strangers were seen to cause."""
    stream = io.StringIO()
    log.set_up("info", form, stream)
    rooms = [logging.getLogger(f"appliance.{name}") for name in ("front.http", "api", "control")]
    for number in range(300):
        for room in rooms:
            room.warning("commit failed", extra={"reason": "database or disk is full " * 10})
            try:
                fail(10)
            except RuntimeError:
                room.exception("request failed", extra={"path": f"/{number}" * 2000})
        for message in log.FROM_STRANGERS:
            ours.info(message, extra={"remote": "192.0.2.1", "reason": "auth-key-unknown"})
    assert 1_000 < len(stream.getvalue().encode()) < 100_000


def test_messages_of_strangers_are_still_said() -> None:
    files = [path for path in PROGRAM.rglob("*.py") if path.name != "log.py"]
    source = "".join(path.read_text() for path in files)
    for message in log.FROM_STRANGERS:
        assert f'"{message}"' in source
