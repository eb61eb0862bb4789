"""Everything in the database as snapshots, checked on the way.

Records go through ``Edit.put``, which builds the indexes and refuses names, keys and addresses that
two nodes share. Not for writing. Blocking; runs in the database's thread only.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from sqlalchemy import Connection, Table, delete, func, select

from appliance.errors import Conflict
from appliance.records import OFFLINE, Tailnet, TailnetID
from appliance.store import schema
from appliance.store.errors import DatabaseDamaged
from appliance.store.kinds import KEPT, TABLES
from appliance.store.rows import Loaded, row_to_node, row_to_policy, row_to_tailnet
from appliance.tailnet.snapshot import Edit, Sequences, Snapshot

T = TypeVar("T")

_OF_ITS_OWN = {schema.tailnets, schema.nodes, schema.policies}
_PLAIN = tuple(kept for kept in KEPT if kept.table not in _OF_ITS_OWN)
"""The kinds whose rows are put as they are."""


def load(connection: Connection) -> tuple[list[Snapshot], dict[str, int]]:
    """Read all tailnets, in order of id, and the id counters by table name.

    Raises DatabaseDamaged if a row cannot be read or contradicts another one.
    """
    _check_whole(connection)
    _drop_orphans(connection)
    tailnets = [
        _read(row_to_tailnet, row, schema.tailnets) for row in _rows(connection, schema.tailnets)
    ]
    plain = [(kept, _by_tailnet(connection, kept.table)) for kept in _PLAIN]
    nodes = _by_tailnet(connection, schema.nodes)
    policies = _by_tailnet(connection, schema.policies)
    seen = {row["id"]: row["at"] for row in _rows(connection, schema.last_seen)}
    snapshots = []
    for tailnet in tailnets:
        edit = Edit(Snapshot(tailnet), Sequences())
        for kept, rows in plain:
            for row in rows[tailnet.id]:
                edit.put(_read(kept.from_row, row, kept.table))
        for row in nodes[tailnet.id]:
            _put_node(edit, tailnet, row)
            if (at := seen.get(row["id"])) is not None:
                edit.set_presence(row["id"], replace(OFFLINE, last_seen=at))
        for row in policies[tailnet.id][-1:]:
            edit.put(_read(row_to_policy, row, schema.policies))
        snapshots.append(edit.finish()[0])
    return snapshots, _counters(connection)


def read_counters(connection: Connection) -> dict[str, int]:
    """Read the table of counters as it is."""
    return {row["name"]: row["last"] for row in _rows(connection, schema.sequences)}


def _counters(connection: Connection) -> dict[str, int]:
    """Read the counters; never lower than the ids in use, should somebody have added rows."""
    counters = read_counters(connection)
    for table in TABLES:
        highest = connection.scalar(select(func.max(table.c.id))) or 0
        counters[table.name] = max(highest, counters.get(table.name, 0))
    return counters


def _check_whole(connection: Connection) -> None:
    """Raise DatabaseDamaged for a SQLite file that is not whole, or has rows without their owner.

    PostgreSQL keeps both itself.
    """
    if connection.dialect.name != "sqlite":
        return
    verdict = connection.exec_driver_sql("PRAGMA quick_check(1)").scalar()
    if verdict != "ok":
        raise DatabaseDamaged(f"the database is not whole ({verdict}); restore a backup")
    broken = connection.exec_driver_sql("PRAGMA foreign_key_check").fetchall()
    if broken:
        table, number, parent = broken[0][:3]
        raise DatabaseDamaged(
            f"{table}, id {number}: its row of {parent} is missing, and {len(broken) - 1} more such "
            "rows; restore a backup, or delete these rows"
        )


def _drop_orphans(connection: Connection) -> None:
    """Delete last-seen times of nodes that never made it into the database."""
    known = select(schema.nodes.c.id)
    connection.execute(delete(schema.last_seen).where(schema.last_seen.c.id.not_in(known)))


def _rows(connection: Connection, table: Table) -> list[Loaded]:
    key = next(iter(table.primary_key.columns))
    try:
        return [dict(row) for row in connection.execute(select(table).order_by(key)).mappings()]
    except (ValueError, TypeError) as error:  # a time that is none, for one
        raise DatabaseDamaged(
            f"{table.name}: a row cannot be read: {error}; restore a backup"
        ) from error


def _by_tailnet(connection: Connection, table: Table) -> dict[TailnetID, list[Loaded]]:
    grouped: dict[TailnetID, list[Loaded]] = defaultdict(list)
    for row in _rows(connection, table):
        grouped[row["tailnet_id"]].append(row)
    return grouped


def _put_node(edit: Edit, tailnet: Tailnet, row: Loaded) -> None:
    try:
        edit.put(_read(row_to_node, row, schema.nodes))
    except Conflict as error:
        raise DatabaseDamaged(
            f"node {row['id']} of tailnet {tailnet.name}: {error.sentence}; "
            "restore a backup, or remove one of the two nodes from the database"
        ) from error


def _read(convert: Callable[[Loaded], T], row: Loaded, table: Table) -> T:
    try:
        return convert(row)
    except Exception as error:
        raise DatabaseDamaged(
            f"{table.name}, id {row['id']}: the row cannot be read: {error}"
        ) from error
