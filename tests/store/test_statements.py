"""The shortest way to SQLite behaves as SQLAlchemy's own does."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st
from sqlalchemy import Connection, create_engine
from sqlalchemy.dialects import sqlite
from sqlalchemy.exc import IntegrityError, OperationalError

from appliance.store import schema
from appliance.store.statements import execute, time_processor
from appliance.store.writer import BLOCK_ROWS, _blocks

DIALECT = sqlite.dialect()
ZONES = st.integers(-14 * 60, 14 * 60).map(lambda minutes: timezone(timedelta(minutes=minutes)))
TIMES = st.datetimes(
    min_value=datetime(2, 1, 1),  # noqa: DTZ001 the zone is the other strategy's
    max_value=datetime(9998, 1, 1),  # noqa: DTZ001
    timezones=st.just(UTC) | ZONES,
)


@pytest.fixture
def connection() -> Iterator[Connection]:
    engine = create_engine("sqlite://")
    with engine.connect() as connection:
        connection.exec_driver_sql("CREATE TABLE things (id INTEGER PRIMARY KEY)")
        yield connection
    engine.dispose()


@given(time=st.none() | TIMES)
def test_times_are_written_as_the_column_type_writes_them(time: datetime | None) -> None:
    theirs = schema.UtcTime().dialect_impl(DIALECT).bind_processor(DIALECT)
    assert theirs is not None
    assert time_processor(DIALECT)(time) == theirs(time)


def test_rows_touched_are_counted(connection: Connection) -> None:
    assert execute(connection, "INSERT INTO things VALUES (?), (?)", (1, 2)) == 2
    assert execute(connection, "DELETE FROM things WHERE id IN (?, ?)", (2, 3)) == 1


def test_failures_are_of_the_kind_that_sqlalchemy_raises(connection: Connection) -> None:
    execute(connection, "INSERT INTO things VALUES (?)", (1,))
    with pytest.raises(IntegrityError):
        execute(connection, "INSERT INTO things VALUES (?)", (1,))
    with pytest.raises(OperationalError):
        execute(connection, "INSERT INTO nothing VALUES (1)")


@given(count=st.integers(0, 3 * BLOCK_ROWS[0]))
def test_blocks_cover_all_rows_in_few_statements(count: int) -> None:
    blocks = list(_blocks(count))
    assert [at for size, start in blocks for at in range(start, start + size)] == list(range(count))
    assert len(blocks) <= count // BLOCK_ROWS[0] + len(BLOCK_ROWS)
