"""From every released schema to this one, and refusals that say what to do."""

from __future__ import annotations

import shutil
import sqlite3
import stat
from contextlib import closing
from datetime import UTC, datetime
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from pathlib import Path

import pytest
from alembic.autogenerate import compare_metadata
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy import Connection, inspect

from appliance.records import Attribute, AuthKeyID, NodeID, RegisterMethod, Role, UserID
from appliance.store import engine, schema, upgrade
from appliance.store.errors import DatabaseDamaged, DatabaseTooNew, StoreError
from appliance.store.store import Database
from appliance.tailnet.snapshot import Rows, Sequences
from tests.store import making

DUMPS = Path(__file__).parent / "dumps"

NEXT = schema.SCHEMA_VERSION + 1
LATER = f'''"""A migration of the future."""
import sqlalchemy as sa
from alembic import op

revision = "{NEXT:04}"
down_revision = "{schema.SCHEMA_VERSION:04}"
OLDEST_READER = {NEXT}
OLDEST_PROGRAM = "9.9.0"

def upgrade() -> None:
    with op.batch_alter_table("nodes") as nodes:
        nodes.add_column(sa.Column("colour", sa.Text, nullable=False, server_default="red"))
'''


def path_of(url: str) -> Path:
    return Path(url.removeprefix("sqlite:///"))


async def test_the_migrations_make_what_the_program_expects(database: Database) -> None:
    def differences() -> list[object]:
        connection = database._own.get()
        with connection.begin():
            context = MigrationContext.configure(connection, opts={"compare_type": True})
            return list(compare_metadata(context, schema.metadata))

    assert await database._call(differences) == []


def test_the_newest_migration_is_the_programs_schema() -> None:
    scripts = ScriptDirectory(upgrade.MIGRATIONS)
    revisions = [revision.revision for revision in scripts.walk_revisions()]
    assert revisions[0] == f"{schema.SCHEMA_VERSION:04}"
    assert len(revisions) == schema.SCHEMA_VERSION


def test_every_released_schema_has_a_dump() -> None:
    versions = {path.stem for path in DUMPS.glob("schema*.sql")}
    assert versions == {f"schema{n}" for n in range(1, schema.SCHEMA_VERSION + 1)}


def restored(dump: Path, directory: Path) -> Path:
    path = directory / "headwater.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.executescript(dump.read_text())
    return path


@pytest.mark.parametrize("dump", sorted(DUMPS.glob("schema*.sql")), ids=lambda path: path.stem)
async def test_a_dump_of_a_released_schema_loads(dump: Path, tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{restored(dump, tmp_path)}")
    try:
        await database.migrate()
        (snapshot,), ids = await database.load()
    finally:
        await database.close()
    assert snapshot.tailnet.name == "default"
    assert snapshot.users[UserID(1)].login_name == "alice@example.com"
    key = snapshot.auth_keys[AuthKeyID(1)]
    assert (key.prefix, key.tags, key.reusable) == ("abcdefghijkl", ("tag:web",), True)
    laptop, server = snapshot.nodes[NodeID(1)], snapshot.nodes[NodeID(2)]
    assert str(laptop.node_key) == "nodekey:" + "02" * 32
    assert laptop.addresses == (IPv4Address("100.64.0.1"), IPv6Address("fd7a:115c:a1e0::1"))
    assert laptop.hostinfo.os == "linux"
    assert laptop.net_info is not None
    assert laptop.net_info.preferred_derp == 900
    assert [str(endpoint) for endpoint in laptop.endpoints] == [
        "192.0.2.1:41641",
        "[2001:db8::1]:41641",
    ]
    assert laptop.expires_at == datetime(2027, 1, 2, 3, 4, 5, 678901, tzinfo=UTC)
    assert server.tags == ("tag:web",)
    assert server.register_method is RegisterMethod.AUTH_KEY
    assert server.approved_routes == (IPv4Network("10.0.0.0/8"),)
    assert server.key_signature == b"\x00\xff"
    assert snapshot.presence_of(laptop.id).last_seen == datetime(2026, 11, 21, 12, tzinfo=UTC)
    assert (ids.tailnet, ids.user, ids.auth_key, ids.node) == (1, 1, 1, 7)


async def test_policies_and_roles_of_the_second_schema_load(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{restored(DUMPS / 'schema2.sql', tmp_path)}")
    try:
        await database.migrate()
        (snapshot,), ids = await database.load()
    finally:
        await database.close()
    newest = snapshot.policy_text
    assert newest is not None
    assert (newest.id, newest.source, newest.created_by) == (3, "file", "system:headwater")
    assert newest.text.startswith("// Für alle\n{")
    assert newest.created_at == datetime(2026, 11, 22, 11, tzinfo=UTC)
    assert snapshot.users[UserID(1)].role is Role.NETWORK_ADMIN
    assert ids.policy == 3


async def test_users_of_the_first_schema_are_members_and_have_no_policy(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{restored(DUMPS / 'schema1.sql', tmp_path)}")
    try:
        await database.migrate()
        (snapshot,), ids = await database.load()
    finally:
        await database.close()
    assert {user.role for user in snapshot.users.values()} == {Role.MEMBER}
    assert (snapshot.policy_text, ids.policy) == (None, 0)


async def test_attributes_of_the_third_schema_load(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{restored(DUMPS / 'schema3.sql', tmp_path)}")
    try:
        await database.migrate()
        (snapshot,), _ = await database.load()
    finally:
        await database.close()
    assert snapshot.nodes[NodeID(1)].attributes == (
        Attribute("custom:level", 4),
        Attribute("custom:managed", True),
        Attribute("custom:team", "Bücher", datetime(2026, 11, 30, 8, 0, 0, 250000, tzinfo=UTC)),
        Attribute("ip:country", "DE"),
    )
    assert snapshot.nodes[NodeID(2)].attributes == ()


async def test_sessions_and_credentials_of_the_eighth_schema_load(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{restored(DUMPS / 'schema8.sql', tmp_path)}")
    try:
        await database.migrate()
        (snapshot,), ids = await database.load()
    finally:
        await database.close()
    (session,) = snapshot.sessions.values()
    assert (session.method, session.source, session.login_expires_at) == (
        "passkey",
        "192.0.2.7",
        None,
    )
    assert snapshot.by_session_hash[session.secret_hash] == session.id == 3
    (passkey,) = snapshot.credentials.values()
    assert (passkey.public_id, passkey.public_key, passkey.sign_count) == (b"\1\2", b"\xa5\1", 7)
    assert snapshot.by_credential[passkey.lookup] == passkey.id == 5
    assert (ids.next("sessions"), ids.next("credentials")) == (4, 10)


async def test_nodes_of_the_second_schema_have_no_attributes(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{restored(DUMPS / 'schema2.sql', tmp_path)}")
    try:
        await database.migrate()
        (snapshot,), _ = await database.load()
    finally:
        await database.close()
    assert {node.attributes for node in snapshot.nodes.values()} == {()}


async def test_keys_of_the_seventh_schema_load(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{restored(DUMPS / 'schema7.sql', tmp_path)}")
    try:
        await database.migrate()
        (snapshot,), ids = await database.load()
    finally:
        await database.close()
    key = snapshot.api_keys[snapshot.by_api_key_prefix["0123456789ab"]]
    assert (key.id, key.scopes, key.user_id) == (2, ("policy_file:read", "users"), UserID(1))
    assert key.expires_at == datetime(2027, 2, 28, 18, tzinfo=UTC)
    assert key.last_used_at == datetime(2026, 11, 30, 18, 30, tzinfo=UTC)
    client = snapshot.oauth_clients[snapshot.by_client_id["ba9876543210"]]
    assert (client.scopes, client.tags, client.user_id) == (("auth_keys",), ("tag:web",), None)
    assert ids.more["api_keys"] == 2


def later_scripts(tmp_path: Path, text: str = LATER) -> Path:
    scripts = tmp_path / "migrations"
    shutil.copytree(upgrade.MIGRATIONS, scripts, ignore=shutil.ignore_patterns("__pycache__"))
    (scripts / "versions" / f"v{NEXT:04}_later.py").write_text(text)
    return scripts


async def migrated_by_the_future(database: Database, scripts: Path, at: datetime) -> Path | None:
    return await database._call(
        lambda: upgrade.migrate(
            database._opened, database._own.get(), at, scripts=scripts, version=NEXT
        )
    )


async def test_an_upgrade_keeps_the_records_and_a_copy_of_before(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/headwater.db"
    database = Database.open(url)
    try:
        await database.migrate()
        ids = Sequences(tailnet=1)
        user = making.user(ids)
        nodes = [making.node(ids, user.id) for _ in range(3)]
        await database.write(making.TAILNET.id, [Rows(puts=(making.TAILNET, user, *nodes))])
        copy = await migrated_by_the_future(database, later_scripts(tmp_path), making.NOW)
        again = await migrated_by_the_future(database, later_scripts(tmp_path / "2"), making.NOW)
        (loaded,), _ = await database.load()
    finally:
        await database.close()
    assert list(loaded.nodes.values()) == nodes
    assert again is None
    assert copy is not None
    stem = "headwater.db.before-upgrade-20260301T123015Z"
    assert copy.name == f"{stem}-schema{schema.SCHEMA_VERSION}"
    assert stat.S_IMODE(copy.stat().st_mode) == 0o600
    older = Database.open(f"sqlite:///{copy}")
    try:
        await older.migrate()
        (before,), _ = await older.load()
    finally:
        await older.close()
    assert before.nodes == loaded.nodes
    with pytest.raises(DatabaseTooNew, match=r"use headwater 9\.9\.0 or newer"):
        await open_and_migrate(url)


async def open_and_migrate(url: str) -> None:
    database = Database.open(url)
    try:
        await database.migrate()
    finally:
        await database.close()


async def test_a_failing_upgrade_changes_nothing(database: Database, tmp_path: Path) -> None:
    scripts = later_scripts(tmp_path, LATER + "    op.drop_table('nowhere')\n")
    with pytest.raises(Exception, match="nowhere"):
        await migrated_by_the_future(database, scripts, making.NOW)
    await database.migrate()
    columns = await database._call(lambda: columns_of(database._own.get(), "nodes"))
    assert "colour" not in columns


async def test_only_some_copies_are_kept(tmp_path: Path) -> None:
    path = tmp_path / "headwater.db"
    await open_and_migrate(f"sqlite:///{path}")
    for day in range(1, upgrade.KEPT_BACKUPS + 3):
        opened = engine.open_engine(f"sqlite:///{path}")
        with opened.engine.connect() as connection:
            upgrade.back_up_before(path, connection, 1, datetime(2026, 1, day, tzinfo=UTC))
        opened.close()
    copies = names_in(tmp_path, "*before-upgrade*")
    assert len(copies) == upgrade.KEPT_BACKUPS
    assert "20260105" in copies[-1]


async def test_an_older_program_works_with_a_newer_database_that_allows_it(
    database: Database, caplog: pytest.LogCaptureFixture
) -> None:
    await set_state(database, "schema_version = 99, oldest_reader = 1")
    await database.migrate()
    assert "a newer release wrote this database" in caplog.text


async def test_an_older_program_refuses_what_it_cannot_read(database: Database) -> None:
    await set_state(database, "schema_version = 99, oldest_reader = 98, oldest_program = '3.2'")
    with pytest.raises(DatabaseTooNew, match=r"use headwater 3\.2 or newer"):
        await database.migrate()


def columns_of(connection: Connection, table: str) -> set[str]:
    with connection.begin():
        return {column["name"] for column in inspect(connection).get_columns(table)}


def names_in(directory: Path, pattern: str) -> list[str]:
    return sorted(path.name for path in directory.glob(pattern))


async def set_state(database: Database, values: str) -> None:
    def work() -> None:
        with database._own.get().begin():
            statement = f"UPDATE schema_state SET {values}"  # noqa: S608 values of this test
            database._own.get().exec_driver_sql(statement)

    await database._call(work)


async def test_a_foreign_database_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "other.db"
    with closing(sqlite3.connect(path)) as connection:
        connection.execute("CREATE TABLE songs (title TEXT)")
    with pytest.raises(DatabaseDamaged, match="another program"):
        await open_and_migrate(f"sqlite:///{path}")


async def test_a_file_that_is_no_database_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "headwater.db"
    path.write_text("this is text " * 100)
    with pytest.raises(DatabaseDamaged, match="not a database; restore"):
        await open_and_migrate(f"sqlite:///{path}")


@pytest.mark.parametrize("url", ["mysql://x/y", "nonsense"])
def test_an_unknown_kind_of_database_is_refused(url: str) -> None:
    with pytest.raises(StoreError, match=r"sqlite:///… or postgresql://…"):
        Database.open(url)


async def test_files_are_for_the_owner_only(tmp_path: Path) -> None:
    directory = tmp_path / "state"
    database = Database.open(f"sqlite:///{directory}/headwater.db")
    try:
        await database.migrate()
        modes = {p.name: stat.S_IMODE(p.stat().st_mode) for p in directory.iterdir()}
    finally:
        await database.close()
    assert stat.S_IMODE(directory.stat().st_mode) == 0o700
    assert modes == dict.fromkeys(
        ("headwater.db", "headwater.db-shm", "headwater.db-wal", "headwater.db.lock"), 0o600
    )


async def test_a_live_database_can_be_copied(tmp_path: Path) -> None:
    database = Database.open(f"sqlite:///{tmp_path}/headwater.db")
    try:
        await database.migrate()
        ids = Sequences(tailnet=1)
        await database.write(making.TAILNET.id, [Rows(puts=(making.TAILNET, making.node(ids)))])
        await database.back_up(tmp_path / "copy.db")
    finally:
        await database.close()
    copy = Database.open(f"sqlite:///{tmp_path}/copy.db")
    try:
        (snapshot,), _ = await copy.load()
    finally:
        await copy.close()
    assert list(snapshot.nodes) == [1]
    assert names_in(tmp_path, "copy*") == ["copy.db", "copy.db.lock"]
