"""What was written is what is loaded."""

from __future__ import annotations

import asyncio
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from sqlalchemy import select

from appliance.policy.text.document import MAX_TEXT_CHARS
from appliance.records import Attribute, AuthKey, Node, NodeID
from appliance.store import schema
from appliance.store.errors import DatabaseClosed, DatabaseDamaged
from appliance.store.store import Database
from appliance.store.writer import BLOCK_ROWS, KEPT_POLICIES
from appliance.tailnet.snapshot import Edit, Rows, Sequences, Snapshot
from tests.store import making

COMPARED = (
    "tailnet", "users", "nodes", "auth_keys", "policy_text",
    "sessions", "credentials", "by_session_hash", "by_credential",
    "by_node_key", "by_machine_key", "by_name", "by_address", "by_key_prefix",
    "api_keys", "by_api_key_prefix", "oauth_clients", "by_client_id",
)  # fmt: skip


def assert_same(loaded: Snapshot, expected: Snapshot) -> None:
    for name in COMPARED:
        assert getattr(loaded, name) == getattr(expected, name), name


@settings(
    max_examples=100,
    suppress_health_check=[HealthCheck.function_scoped_fixture, HealthCheck.too_slow],
    deadline=None,
)
@given(data=st.data())
def test_random_edits_load_as_they_were_written(database: Database, data: st.DataObject) -> None:
    """Each example is one more tailnet in the same database."""

    async def run() -> None:
        _, ids = await database.load()
        name = f"t{ids.tailnet}"
        tailnet = await database.create_tailnet(ids, name=name, domain=name, created_at=making.NOW)
        snapshot = Snapshot(tailnet)
        batch: list[Rows] = []
        for _ in range(data.draw(st.integers(1, 4))):
            edit = Edit(snapshot, ids)
            for _ in range(data.draw(st.integers(1, 5))):
                data.draw(making.change(ids, edit))
            snapshot, rows = edit.finish()
            batch.append(rows)
            if data.draw(st.booleans()):
                await database.write(tailnet.id, batch)
                batch = []
        await database.write(tailnet.id, batch)
        loaded, counters = await database.load()
        assert_same(next(s for s in loaded if s.tailnet.id == tailnet.id), snapshot)
        assert (counters.user, counters.node, counters.auth_key, counters.policy) == (
            ids.user,
            ids.node,
            ids.auth_key,
            ids.policy,
        )
        for name in ("api_keys", "oauth_clients"):
            assert counters.more[name] == ids.more.get(name, 0)

    asyncio.run(run())


async def policy_ids(database: Database) -> list[tuple[int, int]]:
    """Give tailnet and id of every policy that is kept."""

    def read() -> list[tuple[int, int]]:
        with database._own.get().begin():
            table = schema.policies
            rows = database._own.get().execute(
                select(table.c.tailnet_id, table.c.id).order_by(table.c.id)
            )
            return [(row.tailnet_id, row.id) for row in rows]

    return await database._call(read)


@pytest.mark.parametrize("is_one_batch", [True, False])
async def test_only_the_newest_policies_of_each_tailnet_are_kept(
    database: Database, is_one_batch: bool
) -> None:
    ids = Sequences(tailnet=1)
    other = await database.create_tailnet(ids, name="lab", domain="lab", created_at=making.NOW)
    theirs = making.policy(ids)
    await database.write(making.TAILNET.id, [Rows(puts=(making.TAILNET,))])
    await database.write(other.id, [Rows(puts=(theirs,))])
    ours = [making.policy(ids, f"// {n}\n{{}}") for n in range(KEPT_POLICIES + 5)]
    batches = [[Rows(puts=(each,)) for each in ours]]
    if not is_one_batch:
        batches = [[rows] for rows in batches[0]]
    for batch in batches:
        await database.write(making.TAILNET.id, batch)
    kept = [(making.TAILNET.id, each.id) for each in ours[-KEPT_POLICIES:]]
    assert await policy_ids(database) == [(other.id, theirs.id), *kept]
    loaded, counters = await database.load()
    assert {s.tailnet.id: s.policy_text for s in loaded} == {
        making.TAILNET.id: ours[-1],
        other.id: theirs,
    }
    assert counters.policy == ids.policy


async def test_a_policy_of_the_largest_size_is_kept_as_it_is(database: Database) -> None:
    ids = Sequences(tailnet=1)
    record = making.policy(ids, "// \U0001f512 \r\n\t" + "x" * MAX_TEXT_CHARS)
    await database.write(making.TAILNET.id, [Rows(puts=(making.TAILNET, record))])
    (loaded,), _ = await database.load()
    assert loaded.policy_text == record


async def written(database: Database, count: int) -> tuple[list[Node], Sequences]:
    """Write that many nodes in one batch."""
    ids = Sequences(tailnet=1)
    nodes = [making.node(ids) for _ in range(count)]
    await database.write(making.TAILNET.id, [Rows(puts=(making.TAILNET, *nodes))])
    return nodes, ids


@pytest.mark.parametrize("count", [1, BLOCK_ROWS[0], sum(BLOCK_ROWS) + BLOCK_ROWS[-2] - 1])
async def test_any_number_of_rows_is_written(database: Database, count: int) -> None:
    nodes, _ = await written(database, count)
    (loaded,), _ = await database.load()
    assert list(loaded.nodes.values()) == nodes


async def test_several_tailnets_load_apart_and_in_order(database: Database) -> None:
    ids = Sequences()
    tailnets = [
        await database.create_tailnet(ids, name=name, domain=name, created_at=making.NOW)
        for name in ("b", "a")
    ]
    nodes = [making.node(ids) for _ in tailnets]
    await asyncio.gather(
        *(database.write(t.id, [Rows(puts=(n,))]) for t, n in zip(tailnets, nodes, strict=True))
    )
    loaded, counters = await database.load()
    assert [snapshot.tailnet for snapshot in loaded] == tailnets
    assert [list(snapshot.nodes.values()) for snapshot in loaded] == [[node] for node in nodes]
    assert counters.tailnet == 2


async def test_an_id_is_not_used_again_after_the_highest_is_dropped(
    database: Database, url: str
) -> None:
    nodes, _ = await written(database, 3)
    put_and_dropped = replace(making.node(Sequences(node=6)), name="short lived")
    await database.write(
        making.TAILNET.id,
        [Rows(drops=(nodes[2],)), Rows(puts=(put_and_dropped,)), Rows(drops=(put_and_dropped,))],
    )
    await database.close()
    again = Database.open(url)
    try:
        (loaded,), ids = await again.load()
        assert list(loaded.nodes.values()) == nodes[:2]
        assert ids.next_node() == 8
    finally:
        await again.close()


async def test_last_seen_is_written_at_close_and_comes_back(database: Database, url: str) -> None:
    nodes, _ = await written(database, 3)
    database.note_last_seen([(nodes[0].id, making.NOW), (nodes[1].id, making.NOW)])
    later = making.NOW + timedelta(seconds=5)
    database.note_last_seen([(nodes[1].id, later), (NodeID(999), later)])
    await database.close()
    again = Database.open(url)
    try:
        (loaded,), _ = await again.load()
    finally:
        await again.close()
    times = {node.id: loaded.presence_of(node.id).last_seen for node in nodes}
    assert times == {nodes[0].id: making.NOW, nodes[1].id: later, nodes[2].id: None}
    assert not any(presence.online for presence in loaded.presence.values())


async def test_last_seen_is_written_in_the_course_of_time(url: str) -> None:
    database = Database.open(url, last_seen_period_s=0.01)
    try:
        await database.migrate()
        nodes, _ = await written(database, 1)
        database.note_last_seen([(nodes[0].id, making.NOW)])
        for _ in range(1000):
            (loaded,), _ = await database.load()
            if loaded.presence:
                break
            await asyncio.sleep(0.01)
        assert loaded.presence_of(nodes[0].id).last_seen == making.NOW
    finally:
        await database.close()


async def test_names_pass_between_nodes_in_one_edit(database: Database) -> None:
    (one, two), _ = await written(database, 2)
    swapped = replace(one, name=two.name), replace(two, name=one.name)
    await database.write(making.TAILNET.id, [Rows(puts=swapped)])
    (loaded,), _ = await database.load()
    assert tuple(loaded.nodes.values()) == swapped


async def test_an_auth_key_goes_and_its_nodes_stay(database: Database) -> None:
    ids = Sequences()
    key = AuthKey(ids.next_auth_key(), "prefix", "hash", making.NOW)
    node = replace(making.node(ids), auth_key_id=key.id)
    await database.write(making.TAILNET.id, [Rows(puts=(making.TAILNET, key, node))])
    await database.write(making.TAILNET.id, [Rows(drops=(key,))])
    (loaded,), _ = await database.load()
    assert loaded.nodes == {node.id: node}
    assert not loaded.auth_keys


async def test_a_node_and_its_user_go_in_one_edit(database: Database) -> None:
    ids = Sequences()
    user = making.user(ids)
    node = making.node(ids, user.id)
    await database.write(making.TAILNET.id, [Rows(puts=(making.TAILNET, user, node))])
    await database.write(making.TAILNET.id, [Rows(drops=(user, node))])
    (loaded,), _ = await database.load()
    assert not loaded.users
    assert not loaded.nodes


async def test_an_attribute_keeps_the_type_of_its_value(database: Database) -> None:
    node = making.node(Sequences())
    for value in (True, 1, 1.0, "1", False):
        written = replace(node, attributes=(Attribute("custom:x", value),))
        await database.write(making.TAILNET.id, [Rows(puts=(making.TAILNET, written))])
        (loaded,), _ = await database.load()
        (attribute,) = loaded.nodes[node.id].attributes
        assert (attribute.value, type(attribute.value)) == (value, type(value))


async def test_text_that_no_database_keeps_is_mended(database: Database) -> None:
    """A NUL or half a surrogate in a name must not fail everybody's commit."""
    node = replace(making.node(Sequences()), hostname="a\0b", name="x\ud800y")
    await database.write(making.TAILNET.id, [Rows(puts=(making.TAILNET, node))])
    (loaded,), _ = await database.load()
    assert loaded.nodes[node.id].hostname == "a\ufffdb"
    assert loaded.nodes[node.id].name == "x?y"


async def test_two_nodes_with_one_name_are_reported(database: Database) -> None:
    ids = Sequences()
    one, two = making.node(ids), replace(making.node(ids), name="node1")
    await database.write(making.TAILNET.id, [Rows(puts=(making.TAILNET, one, two))])
    with pytest.raises(DatabaseDamaged, match=r"node 2 of tailnet home: the name 'node1' belongs"):
        await database.load()


async def test_a_closed_database_refuses(database: Database) -> None:
    await database.close()
    await database.close()
    with pytest.raises(DatabaseClosed):
        await database.load()
