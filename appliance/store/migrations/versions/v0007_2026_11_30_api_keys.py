"""API keys and OAuth clients: what programs prove themselves with."""

from __future__ import annotations

from typing import Any

import sqlalchemy as sa
from alembic import op

revision = "0007"
down_revision = "0006"

OLDEST_READER = 7
"""An older program cannot delete a user whom a key belongs to."""
OLDEST_PROGRAM = "0.1.0"


def upgrade() -> None:
    """Make the tables."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

    def text(name: str) -> sa.Column[str]:
        return sa.Column(name, sa.Text, nullable=False)

    def common() -> tuple[sa.Column[Any], ...]:
        return (
            sa.Column("id", key, primary_key=True, autoincrement=False),
            sa.Column("tailnet_id", key, sa.ForeignKey("tailnets.id"), nullable=False),
            text("prefix"),
            text("secret_hash"),
            sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
            text("scopes"),
            sa.Column("user_id", key, sa.ForeignKey("users.id")),
            sa.Column("last_used_at", sa.DateTime(timezone=True)),
            text("created_by"),
            text("description"),
        )

    op.create_table("api_keys", *common(), sa.Column("expires_at", sa.DateTime(timezone=True)))
    op.create_table("oauth_clients", *common(), text("tags"))
