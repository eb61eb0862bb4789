"""Edits to SQL: what one commit must write, and statements that write many rows at once.

A commit keeps only the last state of each record, and writes it with multi-row upserts of fixed
sizes. Sizes are fixed so that the drivers know the statements already; many rows go in one
statement because each statement executed gives up the interpreter lock, and getting it back from
a busy event loop takes up to 5 ms (measured: 690 us per row with executemany, under load).

Not for transactions (``store``). Blocking; runs in the database's thread only.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from itertools import chain
from operator import itemgetter
from typing import Any

from sqlalchemy import Connection, Dialect, Table, delete, select
from sqlalchemy.types import TypeEngine

from appliance.records import Record, TailnetID
from appliance.store import schema
from appliance.store.kinds import KEPT_AS, TABLES
from appliance.store.rows import Row, audit_entry_to_row
from appliance.store.statements import execute, time_processor
from appliance.tailnet.snapshot import Rows

BLOCK_ROWS = (256, 128, 64, 32, 16, 8, 4, 2, 1)
"""Rows per statement: a commit of less than 256 rows takes one statement for each bit of their number.
256 nodes are 6,900 parameters, of 32,766 that SQLite takes."""

_UNDROPPED = {schema.tailnets, schema.users, schema.policies}
_DROPPED = tuple(table for table in reversed(TABLES) if table not in _UNDROPPED)
"""What is deleted before anything is written; users are last, when nothing refers to them."""

KEPT_POLICIES = 20
"""Policies kept of each tailnet: enough to go back by some days of work, 20 MB at most."""


class Changes:
    """What one commit must leave in the database: the last state of each record.

    ``counters`` are the highest ids seen per table, also of records that are dropped again.
    """

    __slots__ = ("_drops", "_puts", "audit", "counters")

    def __init__(self) -> None:
        self.audit: list[Row] = []
        self._puts: dict[Table, dict[int, tuple[TailnetID, Record]]] = {}
        self._drops: dict[Table, dict[int, None]] = {}
        self.counters: dict[str, int] = {}

    def add(self, tailnet_id: TailnetID, batch: Iterable[Rows]) -> None:
        """Take in the rows of some edits, in order."""
        for rows in batch:
            self.audit += [audit_entry_to_row(tailnet_id, entry) for entry in rows.audit]
            for record in rows.drops:
                table = KEPT_AS[type(record)].table
                self._puts.get(table, {}).pop(record.id, None)
                self._drops.setdefault(table, {})[record.id] = None
                self._count(table, record.id)
            for record in rows.puts:
                table = KEPT_AS[type(record)].table
                self._drops.get(table, {}).pop(record.id, None)
                self._puts.setdefault(table, {})[record.id] = tailnet_id, record
                self._count(table, record.id)

    def _count(self, table: Table, record_id: int) -> None:
        if record_id > self.counters.get(table.name, 0):
            self.counters[table.name] = record_id

    def puts(self, table: Table) -> list[Row]:
        """Give the rows to write into a table."""
        return [
            KEPT_AS[type(record)].to_row(tailnet_id, record)
            for tailnet_id, record in self._puts.get(table, {}).values()
        ]

    def drops(self, table: Table) -> list[Row]:
        """Give the keys of the rows to delete from a table."""
        return [{"id": record_id} for record_id in self._drops.get(table, ())]


class Writer:
    """The statements of one dialect, made once."""

    def __init__(self, dialect: Dialect) -> None:
        self._dialect = dialect
        self._upserts = {
            table: _Upsert(table, dialect)
            for table in (*TABLES, schema.last_seen, schema.sequences)
        }
        self._audit = _Insert(schema.audit, dialect)
        self._deletes = {
            table: _Delete(table, dialect) for table in (*_DROPPED, schema.users, schema.last_seen)
        }

    def apply(self, connection: Connection, changes: Changes) -> None:
        """Write the changes, in an order that no foreign key minds."""
        self._deletes[schema.last_seen].run(connection, changes.drops(schema.nodes))
        for table in _DROPPED:
            self._deletes[table].run(connection, changes.drops(table))
        for table in TABLES:
            self._upserts[table].run(connection, changes.puts(table))
        for tailnet_id in {row["tailnet_id"] for row in changes.puts(schema.policies)}:
            _forget_policies(connection, tailnet_id)
        self._deletes[schema.users].run(connection, changes.drops(schema.users))
        self.add_audit(connection, changes.audit)

    def add_audit(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Write entries of the audit log."""
        self._audit.run(connection, rows)

    def put(self, connection: Connection, table: Table, rows: Sequence[Row]) -> None:
        """Insert or replace rows."""
        self._upserts[table].run(connection, rows)


def _forget_policies(connection: Connection, tailnet_id: object) -> None:
    """Delete the oldest policies of a tailnet."""
    table = schema.policies
    mine = select(table.c.id).where(table.c.tailnet_id == tailnet_id)
    kept = mine.order_by(table.c.id.desc()).limit(KEPT_POLICIES)
    last = connection.scalars(kept).all()[-1]
    connection.execute(delete(table).where(table.c.tailnet_id == tailnet_id, table.c.id < last))


class _Statement(ABC):
    """A statement text that repeats a group of placeholders once per row."""

    def __init__(self, columns: Sequence[str], table: Table, dialect: Dialect) -> None:
        self._pick: Callable[[Row], Any] = itemgetter(*columns)
        self._single = len(columns) == 1
        self._processors = [
            (index, processor)
            for index, name in enumerate(columns)
            if (processor := _processor(table.c[name].type, dialect))
        ]
        mark = "?" if dialect.paramstyle == "qmark" else "%s"
        group = f"({', '.join([mark] * len(columns))})"
        self._texts = {size: self._text(", ".join([group] * size)) for size in BLOCK_ROWS}

    @abstractmethod
    def _text(self, groups: str) -> str:
        """Give the statement for these groups of placeholders."""

    def run(self, connection: Connection, rows: Sequence[Row]) -> None:
        """Execute for all rows, in blocks."""
        if not rows:
            return
        picked = [self._pick(row) for row in rows]
        for size, start in _blocks(len(rows)):
            block = picked[start : start + size]
            values = block if self._single else list(chain.from_iterable(block))
            width = len(values) // size
            for index, processor in self._processors:
                for at in range(index, len(values), width):
                    values[at] = processor(values[at])
            execute(connection, self._texts[size], tuple(values))


def _processor(kind: TypeEngine[Any], dialect: Dialect) -> Callable[[Any], object] | None:
    if isinstance(kind, schema.UtcTime):
        return time_processor(dialect)
    return kind.dialect_impl(dialect).bind_processor(dialect)


class _Upsert(_Statement):
    def __init__(self, table: Table, dialect: Dialect) -> None:
        self._table = table
        super().__init__([column.name for column in table.columns], table, dialect)

    def _text(self, groups: str) -> str:
        table = self._table
        key = next(iter(table.primary_key.columns)).name
        names = [column.name for column in table.columns]
        updates = ", ".join(f"{name} = excluded.{name}" for name in names if name != key)
        return (  # names come from the schema, values are parameters
            f"INSERT INTO {table.name} ({', '.join(names)}) VALUES {groups} "  # noqa: S608
            f"ON CONFLICT ({key}) DO UPDATE SET {updates}"
        )


class _Insert(_Statement):
    """New rows, whose ids the database gives."""

    def __init__(self, table: Table, dialect: Dialect) -> None:
        self._table = table
        self._names = [column.name for column in table.columns if column.name != "id"]
        super().__init__(self._names, table, dialect)

    def _text(self, groups: str) -> str:
        # As above.
        return f"INSERT INTO {self._table.name} ({', '.join(map(_quoted, self._names))}) VALUES {groups}"  # noqa: S608


class _Delete(_Statement):
    def __init__(self, table: Table, dialect: Dialect) -> None:
        self._table = table
        super().__init__(["id"], table, dialect)

    def _text(self, groups: str) -> str:
        # As above; each group is one id in brackets.
        return f"DELETE FROM {self._table.name} WHERE id IN ({groups})"  # noqa: S608


def _quoted(name: str) -> str:
    """Quote a column's name: some are words of SQL's."""
    return f'"{name}"'


def _blocks(count: int) -> Iterator[tuple[int, int]]:
    """Divide so many rows into blocks: size, and where it begins."""
    start = 0
    for size in BLOCK_ROWS:
        while count - start >= size:
            yield size, start
            start += size
