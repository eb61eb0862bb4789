"""The first schema: tailnets, users, auth keys, nodes, last-seen times, id counters."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0001"
down_revision = None

OLDEST_READER = 1
OLDEST_PROGRAM = "0.1.0"


def upgrade() -> None:
    """Make the tables."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    time = sa.DateTime(timezone=True)

    def primary() -> sa.Column[int]:
        return sa.Column("id", key, primary_key=True, autoincrement=False)

    def tailnet() -> sa.Column[int]:
        return sa.Column("tailnet_id", key, sa.ForeignKey("tailnets.id"), nullable=False)

    def text(name: str) -> sa.Column[str]:
        return sa.Column(name, sa.Text, nullable=False)

    def flag(name: str) -> sa.Column[bool]:
        return sa.Column(name, sa.Boolean, nullable=False)

    op.create_table(
        "schema_state",
        sa.Column("id", sa.Integer, primary_key=True),
        sa.Column("schema_version", sa.Integer, nullable=False),
        sa.Column("oldest_reader", sa.Integer, nullable=False),
        text("oldest_program"),
        text("written_by"),
    )
    op.create_table(
        "sequences",
        sa.Column("name", sa.Text, primary_key=True),
        sa.Column("last", sa.BigInteger, nullable=False),
    )
    op.create_table(
        "tailnets",
        primary(),
        sa.Column("name", sa.Text, nullable=False, unique=True),
        text("domain"),
        sa.Column("created_at", time, nullable=False),
    )
    op.create_table(
        "users",
        primary(),
        tailnet(),
        text("name"),
        sa.Column("created_at", time, nullable=False),
        text("display_name"),
        text("email"),
        text("profile_pic_url"),
        text("provider"),
        text("provider_id"),
    )
    op.create_table(
        "auth_keys",
        primary(),
        tailnet(),
        text("prefix"),
        text("secret_hash"),
        sa.Column("created_at", time, nullable=False),
        sa.Column("user_id", key, sa.ForeignKey("users.id")),
        text("tags"),
        flag("reusable"),
        flag("ephemeral"),
        sa.Column("expires_at", time),
        sa.Column("used_at", time),
    )
    op.create_table(
        "nodes",
        primary(),
        tailnet(),
        text("stable_id"),
        text("machine_key"),
        text("node_key"),
        text("name"),
        text("hostname"),
        sa.Column("created_at", time, nullable=False),
        sa.Column("user_id", key, sa.ForeignKey("users.id")),
        text("tags"),
        sa.Column("disco_key", sa.Text),
        sa.Column("ipv4", sa.Text),
        sa.Column("ipv6", sa.Text),
        text("hostinfo"),
        sa.Column("net_info", sa.Text),
        text("endpoints"),
        sa.Column("home_derp", sa.BigInteger, nullable=False),
        sa.Column("capver", sa.BigInteger, nullable=False),
        sa.Column("expires_at", time),
        flag("ephemeral"),
        sa.Column("auth_key_id", key),
        text("register_method"),
        flag("name_pinned"),
        text("approved_routes"),
        sa.Column("lock_key", sa.Text),
        sa.Column("key_signature", sa.LargeBinary, nullable=False),
    )
    op.create_table(
        "last_seen",
        primary(),
        sa.Column("at", time, nullable=False),
    )
