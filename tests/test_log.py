"""Log lines: both formats, the closed list of fields, and that the program keeps to it."""

from __future__ import annotations

import ast
import io
import json
import logging
from collections.abc import Iterator
from pathlib import Path

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


def test_what_strangers_cause_is_written_some_times_a_minute(ours: logging.Logger) -> None:
    stream = io.StringIO()
    log.set_up("info", "text", stream)
    for _ in range(500):
        ours.info("registration refused", extra={"reason": "auth-key-unknown"})
    ours.info("node registered")
    lines = stream.getvalue().splitlines()
    assert lines[-1].endswith("node registered")
    # The minute may have turned over meanwhile.
    assert log.STRANGERS_PER_MINUTE < len(lines) < 3 * log.STRANGERS_PER_MINUTE


def test_held_back_lines_are_counted() -> None:
    seldom = log.Seldom()
    kept = []
    for number in range(200):
        record = logging.makeLogRecord(
            {"msg": "registration refused", "created": 600.0 + number / 100}
        )
        kept.append(seldom.filter(record))
    assert sum(kept) == log.STRANGERS_PER_MINUTE
    later = logging.makeLogRecord({"msg": "registration refused", "created": 661.0})
    assert seldom.filter(later)
    assert later.getMessage() == "registration refused (140 more before)"


def test_messages_of_strangers_are_still_said() -> None:
    files = [path for path in PROGRAM.rglob("*.py") if path.name != "log.py"]
    source = "".join(path.read_text() for path in files)
    for message in log.FROM_STRANGERS:
        assert f'"{message}"' in source
