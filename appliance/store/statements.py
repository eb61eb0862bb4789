"""Statements of a commit, on the shortest way to the driver, and times as the driver takes them.

For what every commit does: for SQLite this goes past SQLAlchemy, which takes several times longer
for a statement than the database does (47 us against 9 for one row, measured). Everything else
(loading, pages of the audit log, upgrades) is SQLAlchemy's. Blocking; runs in the database's thread
only.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from datetime import UTC, datetime

from sqlalchemy import Connection, Dialect
from sqlalchemy.exc import DBAPIError

from appliance.store import schema

_UTC_CHARS = len("2026-01-31 12:30:15.123456")


def execute(connection: Connection, text: str, values: tuple[object, ...] = ()) -> int:
    """Execute a statement within a transaction; return how many rows it touched.

    Raises DBAPIError, as SQLAlchemy does.
    """
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        return connection.exec_driver_sql(text, values).rowcount
    try:
        return driver.execute(text, values).rowcount
    except sqlite3.Error as error:
        raise DBAPIError.instance(text, values, error, sqlite3.Error) from error


def time_processor(dialect: Dialect) -> Callable[[datetime | None], object]:
    """Return the function that makes a parameter of a time, the same that ``schema.UtcTime`` makes."""
    if dialect.name == "sqlite":
        return _sqlite_time
    processor = schema.UtcTime().dialect_impl(dialect).bind_processor(dialect)
    return processor if processor is not None else lambda time: time


def _sqlite_time(time: datetime | None) -> str | None:
    if time is None:
        return None
    return time.astimezone(UTC).isoformat(" ", "microseconds")[:_UTC_CHARS]
