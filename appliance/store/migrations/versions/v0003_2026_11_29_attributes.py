"""Posture attributes of nodes."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"

OLDEST_READER = 3
"""An older program would take every attribute for not set, which some postures ask for."""
OLDEST_PROGRAM = "0.1.0"


def upgrade() -> None:
    """Make room for attributes; no node has any until somebody sets them."""
    op.add_column("nodes", sa.Column("attributes", sa.Text, nullable=False, server_default="[]"))
