"""The journal: the version of each tailnet, advanced by every commit."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0004"
down_revision = "0003"

OLDEST_READER = 4
"""An older program would commit without advancing the version, past every other server's check."""
OLDEST_PROGRAM = "0.1.0"


def upgrade() -> None:
    """Make the journal; the counter of commits, which PostgreSQL alone had, is no longer kept."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    op.create_table(
        "journal",
        sa.Column("tailnet_id", key, primary_key=True, autoincrement=False),
        sa.Column("version", key, primary_key=True, autoincrement=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        sa.Column("writer", sa.Text, nullable=False),
        sqlite_with_rowid=False,
    )
    sequences = sa.table("sequences", sa.column("name"))
    op.execute(sequences.delete().where(sequences.c.name == "commits"))
