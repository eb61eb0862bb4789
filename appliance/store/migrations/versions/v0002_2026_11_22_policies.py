"""Policies and the roles of users."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0002"
down_revision = "0001"

OLDEST_READER = 2
"""An older program would not know the policy, and let everything reach everything."""
OLDEST_PROGRAM = "0.1.0"


def upgrade() -> None:
    """Make the table of policies; every user is a member until somebody says otherwise."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

    def text(name: str) -> sa.Column[str]:
        return sa.Column(name, sa.Text, nullable=False)

    op.create_table(
        "policies",
        sa.Column("id", key, primary_key=True, autoincrement=False),
        sa.Column("tailnet_id", key, sa.ForeignKey("tailnets.id"), nullable=False),
        text("text"),
        sa.Column("created_at", sa.DateTime(timezone=True), nullable=False),
        text("source"),
        text("created_by"),
    )
    op.add_column("users", sa.Column("role", sa.Text, nullable=False, server_default="member"))
