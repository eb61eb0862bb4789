"""Who may write: each commit adds the version that follows the one this server knows, or nothing.

The journal has one row per commit and tailnet; its primary key is tailnet and version. A server
that loads a tailnet claims it with a row of its own. A commit adds version n+1 only if version n is
there and was written by this run of this server, and the key lets n+1 be added once. So another
server that has loaded the tailnet, an older copy put in its place and a fail-over that lost commits
all have the same effect: the row is not added, and the transaction does not commit.

Not for locks, which are a courtesy to whom starts a second server by mistake (``engine``). Blocking;
runs in the database's thread only.
"""

from __future__ import annotations

import os
import secrets
import socket
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from datetime import datetime

from sqlalchemy import Connection, Dialect, and_, delete, func, select

from appliance.records import TailnetID
from appliance.store import schema
from appliance.store.errors import NotOurs, StoreError
from appliance.store.statements import execute, time_processor

KEPT_VERSIONS = 1000
"""Rows kept per tailnet: enough to say how far two histories lie apart, 100 KB at most."""
CLAIM_ATTEMPTS = 20
"""How often a claim is tried again because the server before it commits in that very moment."""

Heads = dict[TailnetID, int]


@dataclass(frozen=True, slots=True)
class Head:
    """The newest version of a tailnet that the database has."""

    version: int
    writer: str
    at: datetime


def new_writer() -> str:
    """Name this run of this server: host, process and a token that no other run has."""
    return f"{socket.gethostname()}/{os.getpid()}/{secrets.token_hex(8)}"


class Journal:
    """The versions that this server knows; ``heads`` follow the database, commit by commit."""

    def __init__(self, dialect: Dialect) -> None:
        self.writer = new_writer()
        self.heads: Heads = {}
        mark = "?" if dialect.paramstyle == "qmark" else "%s"
        add = (
            "INSERT INTO journal (tailnet_id, version, at, writer) SELECT "
            f"CAST({mark} AS BIGINT), CAST({mark} AS BIGINT), {mark}, {mark} WHERE {{}} "
            "ON CONFLICT DO NOTHING"
        )
        found = "EXISTS (SELECT 1 FROM journal WHERE tailnet_id = "
        self._add_first = add.format(f"NOT {found}{mark})")
        self._add_next = add.format(f"{found}{mark} AND version = {mark} AND writer = {mark})")
        self._process_time = time_processor(dialect)

    def claim(self, connection: Connection, now: datetime) -> Heads:
        """Add a row of this server's to every tailnet; give the heads once that is committed.

        From then on no other server can commit to them.
        """
        claimed: Heads = {}
        for tailnet_id in connection.scalars(select(schema.tailnets.c.id)).all():
            for _ in range(CLAIM_ATTEMPTS):
                head = self._head(connection, tailnet_id)
                version = 1 if head is None else head.version + 1
                after = (tailnet_id,) if head is None else (tailnet_id, head.version, head.writer)
                if self._add(connection, tailnet_id, version, now, after):
                    claimed[tailnet_id] = version
                    break
            else:
                raise StoreError("another server writes to this database all the time; stop it")
        return claimed

    def advance(
        self, connection: Connection, tailnet_ids: Iterable[TailnetID], now: datetime
    ) -> Heads:
        """Add the next version of these tailnets; give the heads once that is committed.

        Raises NotOurs if the database is not at the version that this server knows.
        """
        advanced: Heads = {}
        for tailnet_id in tailnet_ids:
            known = self.heads.get(tailnet_id, 0)
            after = (tailnet_id, known, self.writer) if known else (tailnet_id,)
            if not self._add(connection, tailnet_id, known + 1, now, after):
                self.check(connection)  # which says more
                raise NotOurs(f"tailnet {tailnet_id} was written to by another server just now")
            advanced[tailnet_id] = known + 1
        return advanced

    def _add(
        self,
        connection: Connection,
        tailnet_id: TailnetID,
        version: int,
        now: datetime,
        after: tuple[object, ...],
    ) -> bool:
        text = self._add_first if len(after) == 1 else self._add_next
        row = (tailnet_id, version, self._process_time(now), self.writer)
        return execute(connection, text, (*row, *after)) == 1

    def check(self, connection: Connection, *, commit: Heads | None = None) -> Heads:
        """Compare the database with what this server knows; give the heads it has by now.

        ``commit`` are the heads of a commit whose answer was lost: they, or newer ones of this run
        of the server, count as known if they are there. Raises NotOurs, saying how far apart the
        two are.
        """
        found = self.read(connection)
        known = dict(self.heads)
        for tailnet_id, version in (commit or {}).items():
            head = found.get(tailnet_id)
            if head is not None and head.writer == self.writer and head.version >= version:
                known[tailnet_id] = head.version
        for tailnet_id in found.keys() | known.keys():
            if not self._is_at(found, tailnet_id, known.get(tailnet_id, 0)):
                head = found.get(tailnet_id)
                raise NotOurs(self._explain(connection, tailnet_id, head, known.get(tailnet_id, 0)))
        return known

    def _is_at(self, found: Mapping[TailnetID, Head], tailnet_id: TailnetID, known: int) -> bool:
        head = found.get(tailnet_id)
        return head is not None and head.version == known and head.writer == self.writer

    def _explain(
        self, connection: Connection, tailnet_id: TailnetID, head: Head | None, known: int
    ) -> str:
        """Say how many commits each of the two has that the other has not."""
        table = schema.journal.c
        name = connection.scalar(
            select(schema.tailnets.c.name).where(schema.tailnets.c.id == tailnet_id)
        )
        place = f"tailnet {name or tailnet_id}"
        if head is None:
            return (
                f"the database has nothing of {place}: {_commits(known)} of this server are missing"
            )
        shared = connection.scalar(
            select(func.max(table.version)).where(
                and_(
                    table.tailnet_id == tailnet_id,
                    table.writer == self.writer,
                    table.version <= known,
                )
            )
        )
        base = min(head.version, known) if shared is None else shared
        missing, unknown = known - base, head.version - base
        parts = []
        if unknown:
            by = "" if head.writer == self.writer else f", the newest by {described(head)}"
            parts.append(f"it has {_commits(unknown)} that this server does not know{by}")
        if missing:
            parts.append(f"{_commits(missing)} of this server are missing from it")
        if not parts:
            parts.append(f"its newest commit is by {described(head)}")
        return f"the database went on without this server: of {place}, " + " and ".join(parts)

    def read(self, connection: Connection) -> dict[TailnetID, Head]:
        """Read the newest version of every tailnet."""
        table = schema.journal
        newest = (
            select(table.c.tailnet_id, func.max(table.c.version).label("version"))
            .group_by(table.c.tailnet_id)
            .subquery()
        )
        rows = connection.execute(
            select(table).join(
                newest,
                and_(
                    table.c.tailnet_id == newest.c.tailnet_id,
                    table.c.version == newest.c.version,
                ),
            )
        )
        return {TailnetID(row.tailnet_id): Head(row.version, row.writer, row.at) for row in rows}

    def _head(self, connection: Connection, tailnet_id: TailnetID) -> Head | None:
        table = schema.journal
        row = connection.execute(
            select(table)
            .where(table.c.tailnet_id == tailnet_id)
            .order_by(table.c.version.desc())
            .limit(1)
        ).one_or_none()
        return None if row is None else Head(row.version, row.writer, row.at)

    def trim(self, connection: Connection) -> None:
        """Delete all but the newest rows of each tailnet."""
        table = schema.journal
        for tailnet_id, version in self.heads.items():
            old = and_(table.c.tailnet_id == tailnet_id, table.c.version <= version - KEPT_VERSIONS)
            connection.execute(delete(table).where(old))


def described(head: Head) -> str:
    """Say who wrote a version, and when."""
    host, _, rest = head.writer.partition("/")
    pid = rest.partition("/")[0]
    return f"pid {pid} on {host} at {head.at:%Y-%m-%d %H:%M:%S} UTC"


def _commits(count: int) -> str:
    return f"{count} commit{'' if count == 1 else 's'}"
