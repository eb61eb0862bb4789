"""The tables, as SQLAlchemy Core sees them.

Not for converting records (``rows``) and not for making the tables (``migrations``; a test holds
both against each other). Every row of a record names its tailnet.

There is no unique index over names, keys and addresses: ``tailnet.snapshot.Edit`` holds that rule,
``load`` checks it, and one edit may pass a name on from node to node, which a unique index would
refuse half way. Ids are given by ``Sequences``, never by the database.
"""

from __future__ import annotations

from datetime import UTC, datetime

from sqlalchemy import (
    BigInteger,
    Boolean,
    Column,
    DateTime,
    Dialect,
    ForeignKey,
    Index,
    Integer,
    LargeBinary,
    MetaData,
    Table,
    Text,
)
from sqlalchemy.types import TypeDecorator

SCHEMA_VERSION = 8
"""What this program reads and writes: the number of the newest migration."""

ID = BigInteger().with_variant(Integer(), "sqlite")
"""In SQLite only INTEGER makes a primary key the row id itself, without a second index."""


class UtcTime(TypeDecorator[datetime]):
    """An aware time in UTC: ``timestamptz``, or text without zone in SQLite (which has no times)."""

    impl = DateTime(timezone=True)
    cache_ok = True

    def process_bind_param(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002 SQLAlchemy's signature
    ) -> datetime | None:
        """Turn into UTC on the way in."""
        return None if value is None else value.astimezone(UTC)

    def process_result_value(
        self,
        value: datetime | None,
        dialect: Dialect,  # noqa: ARG002 SQLAlchemy's signature
    ) -> datetime | None:
        """Give aware UTC on the way out."""
        if value is None:
            return None
        return value.replace(tzinfo=UTC) if value.tzinfo is None else value.astimezone(UTC)


metadata = MetaData()

schema_state = Table(
    "schema_state",
    metadata,
    Column("id", Integer, primary_key=True),
    Column("schema_version", Integer, nullable=False),
    Column("oldest_reader", Integer, nullable=False),
    Column("oldest_program", Text, nullable=False),
    Column("written_by", Text, nullable=False),
)
"""One row: which schema this is, the oldest schema version whose programs can still work with it,
the oldest release that can, and the release that made it so."""

sequences = Table(
    "sequences",
    metadata,
    Column("name", Text, primary_key=True),
    Column("last", BigInteger, nullable=False),
)
"""The last id given out per kind, so that ids of deleted records are not used again."""

journal = Table(
    "journal",
    metadata,
    Column("tailnet_id", ID, primary_key=True, autoincrement=False),
    Column("version", ID, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
    Column("writer", Text, nullable=False),
    sqlite_with_rowid=False,
)
"""One row per commit and tailnet: its version, when, and which run of which server made it. A
commit adds the version that follows the one its server knows; the primary key lets only one server
do so (``store.journal``). The newest rows are kept. ``tailnet_id`` is no foreign key: the row is
written first, before that of a new tailnet."""

tailnets = Table(
    "tailnets",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=False),
    Column("name", Text, nullable=False, unique=True),
    Column("domain", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
)

users = Table(
    "users",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=False),
    Column("tailnet_id", ID, ForeignKey("tailnets.id"), nullable=False),
    Column("name", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("display_name", Text, nullable=False),
    Column("email", Text, nullable=False),
    Column("profile_pic_url", Text, nullable=False),
    Column("provider", Text, nullable=False),
    Column("provider_id", Text, nullable=False),
    Column("issuer", Text, nullable=False, server_default=""),
    Column("subject", Text, nullable=False, server_default=""),
    Column("groups", Text, nullable=False, server_default="[]"),
    Column("role", Text, nullable=False, server_default="member"),
)

auth_keys = Table(
    "auth_keys",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=False),
    Column("tailnet_id", ID, ForeignKey("tailnets.id"), nullable=False),
    Column("prefix", Text, nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("user_id", ID, ForeignKey("users.id")),
    Column("tags", Text, nullable=False),
    Column("reusable", Boolean, nullable=False),
    Column("ephemeral", Boolean, nullable=False),
    Column("expires_at", UtcTime),
    Column("used_at", UtcTime),
)

api_keys = Table(
    "api_keys",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=False),
    Column("tailnet_id", ID, ForeignKey("tailnets.id"), nullable=False),
    Column("prefix", Text, nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("user_id", ID, ForeignKey("users.id")),
    Column("expires_at", UtcTime),
    Column("last_used_at", UtcTime),
    Column("created_by", Text, nullable=False),
    Column("description", Text, nullable=False),
)

oauth_clients = Table(
    "oauth_clients",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=False),
    Column("tailnet_id", ID, ForeignKey("tailnets.id"), nullable=False),
    Column("prefix", Text, nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("scopes", Text, nullable=False),
    Column("tags", Text, nullable=False),
    Column("user_id", ID, ForeignKey("users.id")),
    Column("last_used_at", UtcTime),
    Column("created_by", Text, nullable=False),
    Column("description", Text, nullable=False),
)
"""Tokens of a client are not kept: they say themselves what they are for, and are signed."""

nodes = Table(
    "nodes",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=False),
    Column("tailnet_id", ID, ForeignKey("tailnets.id"), nullable=False),
    Column("stable_id", Text, nullable=False),
    Column("machine_key", Text, nullable=False),
    Column("node_key", Text, nullable=False),
    Column("name", Text, nullable=False),
    Column("hostname", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("user_id", ID, ForeignKey("users.id")),
    Column("tags", Text, nullable=False),
    Column("disco_key", Text),
    Column("ipv4", Text),
    Column("ipv6", Text),
    Column("hostinfo", Text, nullable=False),
    Column("net_info", Text),
    Column("endpoints", Text, nullable=False),
    Column("home_derp", BigInteger, nullable=False),
    Column("capver", BigInteger, nullable=False),
    Column("expires_at", UtcTime),
    Column("ephemeral", Boolean, nullable=False),
    Column("auth_key_id", ID),
    Column("register_method", Text, nullable=False),
    Column("name_pinned", Boolean, nullable=False),
    Column("approved_routes", Text, nullable=False),
    Column("lock_key", Text),
    Column("key_signature", LargeBinary, nullable=False),
    Column("attributes", Text, nullable=False, server_default="[]"),
)
"""``auth_key_id`` is no foreign key: a node outlives the key that it came with."""

sessions = Table(
    "sessions",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=False),
    Column("tailnet_id", ID, ForeignKey("tailnets.id"), nullable=False),
    Column("user_id", ID, ForeignKey("users.id"), nullable=False),
    Column("secret_hash", Text, nullable=False),
    Column("method", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("expires_at", UtcTime, nullable=False),
    Column("last_used_at", UtcTime, nullable=False),
    Column("login_expires_at", UtcTime),
    Column("agent", Text, nullable=False),
    Column("source", Text, nullable=False),
)

credentials = Table(
    "credentials",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=False),
    Column("tailnet_id", ID, ForeignKey("tailnets.id"), nullable=False),
    Column("user_id", ID, ForeignKey("users.id"), nullable=False),
    Column("kind", Text, nullable=False),
    Column("lookup", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("name", Text, nullable=False),
    Column("public_id", LargeBinary, nullable=False),
    Column("public_key", LargeBinary, nullable=False),
    Column("sign_count", BigInteger, nullable=False),
    Column("expires_at", UtcTime),
    Column("used_at", UtcTime),
)

policies = Table(
    "policies",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=False),
    Column("tailnet_id", ID, ForeignKey("tailnets.id"), nullable=False),
    Column("text", Text, nullable=False),
    Column("created_at", UtcTime, nullable=False),
    Column("source", Text, nullable=False),
    Column("created_by", Text, nullable=False),
)
"""Policies as they were written; of each tailnet the newest is in force, some older ones stay."""

last_seen = Table(
    "last_seen",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=False),
    Column("at", UtcTime, nullable=False),
)
"""When a node was last connected, by node id: apart from ``nodes``, because it is written for all
nodes every half minute and a row here is 30 bytes, not 2,000. Rows without a node may occur."""

audit = Table(
    "audit",
    metadata,
    Column("id", ID, primary_key=True, autoincrement=True),
    Column("tailnet_id", ID, nullable=False),
    Column("at", UtcTime, nullable=False),
    Column("door", Text, nullable=False),
    Column("by", Text, nullable=False),
    Column("act", Text, nullable=False),
    Column("kind", Text, nullable=False),
    Column("target", ID, nullable=False),
    Column("name", Text, nullable=False),
    Column("before", Text, nullable=False),
    Column("after", Text, nullable=False),
    Column("reason", Text, nullable=False),
    Index("audit_by_tailnet", "tailnet_id", "id"),
    Index("audit_by_time", "at"),
)
"""Who changed what, written in the transaction of the change; kept for a time (``store.auditlog``)."""
