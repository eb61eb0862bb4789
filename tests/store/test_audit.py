"""The audit log: written in the transaction of the change, read by pages, forgotten in time."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from sqlalchemy.exc import IntegrityError

from appliance.identity.principals import LOCAL, SYSTEM
from appliance.live import LiveTailnet
from appliance.records import AuditEntry, TailnetID, UserID
from appliance.store import auditlog
from appliance.store.store import Database
from appliance.tailnet import nodes, users
from appliance.tailnet.snapshot import Rows
from tests.store import making
from tests.store.test_failures import fill

ENTRY = AuditEntry(
    making.NOW, "local", "socket", "node.rename", "node", 7, "desk",
    '{"name":"laptop"}', '{"name":"desk"}', "ticket 7",
)  # fmt: skip
ONE = TailnetID(1)


async def test_an_entry_comes_back_as_it_was(database: Database) -> None:
    """A2: on both databases."""
    await fill(database)
    strange = replace(ENTRY, name="жук\x00", reason="a'b\"c")
    await database.write(ONE, [Rows(puts=(making.TAILNET,), audit=(ENTRY, strange))])
    newest, first = await database.audit(ONE)
    assert first.entry == ENTRY
    assert newest.entry.name.startswith("жук")
    assert newest.id > first.id
    assert await database.audit(TailnetID(2)) == []


async def test_a_change_that_is_not_written_leaves_no_entry(database: Database) -> None:
    """A2: the same transaction."""
    ids = await fill(database)
    orphan = making.node(ids, UserID(99))
    with pytest.raises(IntegrityError):
        await database.write(ONE, [Rows(puts=(orphan,), audit=(ENTRY,))])
    assert await database.audit(ONE) == []


async def test_pages_and_filters(database: Database) -> None:
    await fill(database)
    entries = [
        replace(ENTRY, act=act, target=target, by=by, at=making.NOW + timedelta(days=target))
        for act, target, by in (
            ("node.rename", 1, "a"), ("node.tag", 2, "b"), ("nodes", 3, "b"), ("user.create", 4, "a"),
        )
    ]  # fmt: skip
    await database.write(ONE, [Rows(puts=(making.TAILNET,), audit=tuple(entries))])

    async def targets(**wanted: object) -> list[int]:
        found = await database.audit(ONE, **wanted)  # type: ignore[arg-type]  # as its arguments
        return [each.entry.target for each in found]

    assert await targets() == [4, 3, 2, 1]
    assert await targets(limit=2) == [4, 3]
    second = (await database.audit(ONE, limit=2))[-1].id
    assert await targets(before=second) == [2, 1]
    assert await targets(act="node") == [2, 1]
    assert await targets(act="node.tag") == [2]
    assert await targets(by="b") == [3, 2]
    assert await targets(kind="node", target=3) == [3]
    assert await targets(since=making.NOW + timedelta(days=3)) == [4, 3]


async def test_what_is_no_record_is_written_later(database: Database) -> None:
    """A node that expired while the database was away expired all the same."""
    await fill(database)
    database.note_audit(ONE, [ENTRY])
    assert [each.entry for each in await database.audit(ONE)] == [ENTRY]


async def test_old_entries_and_too_many_are_forgotten(database: Database) -> None:
    await fill(database)
    now = datetime.now(UTC)
    entries = [replace(ENTRY, at=now - timedelta(days=days)) for days in (500, 399, 2, 1)]
    await database.write(ONE, [Rows(puts=(making.TAILNET,), audit=tuple(entries))])

    def forget(retention: auditlog.Retention) -> int:
        with database._own.asking() as connection:
            return auditlog.forget(connection, retention, now)

    assert await database._call(lambda: forget(auditlog.Retention())) == 1
    assert await database._call(lambda: forget(auditlog.Retention(max_entries=2))) == 1
    assert len(await database.audit(ONE)) == 2


async def test_a_live_change_is_written_with_who_did_it(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    """A2, B5: from the edit to the disk and to the log, in one place."""
    caplog.set_level("INFO", "appliance.live.told")
    ids = await fill(database)
    (snapshot,), _ = await database.load()
    live = LiveTailnet(snapshot, database, ids)
    running = asyncio.create_task(live.run())
    node_id = next(iter(snapshot.nodes))
    was = snapshot.nodes[node_id].name
    try:
        async with live.edit(by=LOCAL, act="node.rename", reason="ticket 7") as edit:
            nodes.rename(edit, node_id, "desk")
        async with live.edit(by=SYSTEM, act="user.create") as edit:
            users.create(edit, "bob", making.NOW)
    finally:
        running.cancel()
        await asyncio.wait([running])
    second, first = (each.entry for each in await database.audit(ONE))
    assert (first.act, first.target, first.door, first.by) == (
        "node.rename", node_id, "local", "socket",
    )  # fmt: skip
    assert (second.act, second.name, second.door) == ("user.create", "bob", "system")
    renamed, created = caplog.records
    assert renamed.message == "node renamed"
    fields = renamed.__dict__
    assert (fields["node"], fields["by"], fields["tailnet"]) == ("desk", "local:socket", "home")
    assert fields["change"] == f"name: {was} -> desk"
    assert fields["reason"] == "ticket 7"
    assert (created.message, created.__dict__["user"]) == ("user created", "bob")
