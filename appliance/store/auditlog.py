"""The audit log in the database: pages of it, newest first, and what is forgotten.

Entries are written with the rows of their change (``writer``). Blocking; runs in the database's
thread only.
"""

from __future__ import annotations

from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import NamedTuple

from sqlalchemy import Connection, delete, func, select

from appliance.records import AuditEntry, TailnetID
from appliance.store import schema
from appliance.store.rows import row_to_audit_entry

MAX_PAGE = 1000
"""Entries of one page: 1 MB at most, so that nobody waits for the database's thread."""


@dataclass(frozen=True, slots=True)
class Retention:
    """How much of the audit log is kept: what is older goes, and the oldest of what is too many.

    An entry takes about 500 bytes.
    """

    max_age: timedelta = timedelta(days=400)
    max_entries: int = 200_000


class Found(NamedTuple):
    """An entry and its number, which grows with time; the next page is asked for by it."""

    id: int
    entry: AuditEntry


def page(
    connection: Connection,
    tailnet_id: TailnetID,
    *,
    before: int | None,
    limit: int,
    act: str,
    by: str,
    kind: str,
    target: int | None,
    since: datetime | None,
) -> list[Found]:
    """Read entries, newest first."""
    table = schema.audit
    wanted = select(table).where(table.c.tailnet_id == tailnet_id)
    if before is not None:
        wanted = wanted.where(table.c.id < before)
    if act:
        wanted = wanted.where(
            (table.c.act == act) | table.c.act.startswith(f"{act}.", autoescape=True)
        )
    if by:
        wanted = wanted.where(table.c.by == by)
    if kind:
        wanted = wanted.where(table.c.kind == kind)
    if target is not None:
        wanted = wanted.where(table.c.target == target)
    if since is not None:
        wanted = wanted.where(table.c.at >= since)
    rows = connection.execute(wanted.order_by(table.c.id.desc()).limit(min(limit, MAX_PAGE)))
    return [Found(row["id"], row_to_audit_entry(dict(row))) for row in rows.mappings()]


def forget(connection: Connection, retention: Retention, now: datetime) -> int:
    """Delete what is too old, and the oldest of what is too much; give how many entries went."""
    table = schema.audit
    newest = connection.scalar(select(func.max(table.c.id))) or 0
    old = (table.c.at < now - retention.max_age) | (table.c.id <= newest - retention.max_entries)
    return connection.execute(delete(table).where(old)).rowcount
