"""From any released schema to this program's, or a clear refusal.

A database says which schema it has and which is the oldest that can still work with it
(``schema_state``). Before a migration of an existing SQLite database a verified copy is made
beside it. Migrations run in one transaction: they happen whole or not at all. Alembic is imported
only when there is something to do, it costs as much as the rest of the start.

Not for the migrations themselves (``migrations.versions``).
"""

from __future__ import annotations

import logging
import sqlite3
from datetime import datetime
from pathlib import Path
from typing import cast

from sqlalchemy import Connection, Row, insert, inspect, select, update

from appliance import __version__
from appliance.store import engine, schema
from appliance.store.errors import DatabaseDamaged, DatabaseTooNew

log = logging.getLogger(__name__)

KEPT_BACKUPS = 3
"""Copies from before a migration that are kept; older ones are removed at the next migration."""

MIGRATIONS = Path(__file__).parent / "migrations"

State = Row[tuple[int, int, str, str]]


def migrate(
    opened: engine.Opened,
    connection: Connection,
    now: datetime,
    *,
    scripts: Path = MIGRATIONS,
    version: int = schema.SCHEMA_VERSION,
) -> Path | None:
    """Bring the database to this program's schema; give the path of the copy made before, if any.

    Raises DatabaseTooNew, or DatabaseDamaged for a database that is not ours.
    """
    with connection.begin():
        state = _read_state(connection)
    if state is None:
        _run_migrations(opened, connection, scripts, version)
        return None
    if state.schema_version > version:
        _accept_newer(state)
        return None
    if state.schema_version == version:
        return None
    copy = None
    if opened.path is None:
        log.info("migrating the database; a copy beforehand is the server's business")
    else:
        copy = back_up_before(opened.path, connection, state.schema_version, now)
    _run_migrations(opened, connection, scripts, version)
    return copy


def is_empty(connection: Connection) -> bool:
    """Tell whether nobody has made a table yet."""
    with connection.begin():
        return not inspect(connection).get_table_names()


def _read_state(connection: Connection) -> State | None:
    tables = inspect(connection).get_table_names()
    if schema.schema_state.name not in tables:
        if tables:
            raise DatabaseDamaged(
                "this database belongs to another program; give headwater its own"
            )
        return None
    table = schema.schema_state.c
    row = connection.execute(
        select(table.schema_version, table.oldest_reader, table.oldest_program, table.written_by)
    ).one_or_none()
    if row is None:
        raise DatabaseDamaged("the database does not say which schema it has; restore a backup")
    return cast(State, row)


def _accept_newer(state: State) -> None:
    if state.oldest_reader > schema.SCHEMA_VERSION:
        raise DatabaseTooNew(
            f"headwater {state.written_by} wrote this database (schema {state.schema_version}); "
            f"this is {__version__} (schema {schema.SCHEMA_VERSION}), which cannot read it: "
            f"use headwater {state.oldest_program} or newer, or restore the copy made before "
            "the upgrade"
        )
    log.warning("a newer release wrote this database; this one can work with it")


def back_up_before(path: Path, connection: Connection, version: int, now: datetime) -> Path:
    """Make a verified copy beside the database, and remove the oldest such copies."""
    stem = f"{path.name}.before-upgrade-"
    target = path.with_name(f"{stem}{now:%Y%m%dT%H%M%SZ}-schema{version}")
    engine.back_up(driver_connection(connection), target)
    log.info("copied the database before the upgrade to %s", target.name)
    copies = sorted(p for p in path.parent.glob(f"{stem}*") if p.suffix != ".part")
    for old in copies[:-KEPT_BACKUPS]:
        old.unlink()
    return target


def driver_connection(connection: Connection) -> sqlite3.Connection:
    """Give SQLite's own connection, for its online backup."""
    driver = connection.connection.driver_connection
    if not isinstance(driver, sqlite3.Connection):
        raise TypeError("only SQLite is copied by us")
    return driver


def _run_migrations(
    opened: engine.Opened, connection: Connection, scripts: Path, version: int
) -> None:
    from alembic import command
    from alembic.config import Config
    from alembic.script import ScriptDirectory

    config = Config(attributes={"connection": connection})
    config.set_main_option("script_location", str(scripts).replace("%", "%%"))
    config.set_main_option("path_separator", "newline")
    head = ScriptDirectory.from_config(config).get_revision("head").module
    if opened.is_sqlite:
        # SQLite alters tables by making them anew, which foreign keys would take for deletion;
        # and they cannot be switched off within a transaction.
        driver_connection(connection).execute("PRAGMA foreign_keys = OFF")
    try:
        with connection.begin():
            command.upgrade(config, "head")
            if opened.is_sqlite:
                broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
                if broken:
                    raise DatabaseDamaged(
                        f"the upgrade left {len(broken)} rows without their owner"
                    )
            _write_state(connection, version, head.OLDEST_READER, head.OLDEST_PROGRAM)
    finally:
        if opened.is_sqlite:
            driver_connection(connection).execute("PRAGMA foreign_keys = ON")


def _write_state(
    connection: Connection, version: int, oldest_reader: int, oldest_program: str
) -> None:
    values = {
        "schema_version": version,
        "oldest_reader": oldest_reader,
        "oldest_program": oldest_program,
        "written_by": __version__,
    }
    if connection.execute(update(schema.schema_state).values(values)).rowcount == 0:
        connection.execute(insert(schema.schema_state).values(id=1, **values))
