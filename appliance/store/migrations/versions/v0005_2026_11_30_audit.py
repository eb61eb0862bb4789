"""The audit log: who changed what."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0005"
down_revision = "0004"

OLDEST_READER = 5
"""An older program would make changes of which nothing is written down."""
OLDEST_PROGRAM = "0.1.0"


def upgrade() -> None:
    """Make the table; of what was before nobody knows who did it."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")

    def text(name: str) -> sa.Column[str]:
        return sa.Column(name, sa.Text, nullable=False)

    op.create_table(
        "audit",
        sa.Column("id", key, primary_key=True, autoincrement=True),
        sa.Column("tailnet_id", key, nullable=False),
        sa.Column("at", sa.DateTime(timezone=True), nullable=False),
        text("door"),
        text("by"),
        text("act"),
        text("kind"),
        sa.Column("target", key, nullable=False),
        text("name"),
        text("before"),
        text("after"),
        text("reason"),
    )
    op.create_index("audit_by_tailnet", "audit", ["tailnet_id", "id"])
    op.create_index("audit_by_time", "audit", ["at"])
