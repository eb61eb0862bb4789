"""Sessions of people, and what proves them without an identity provider."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0008"
down_revision = "0007"

OLDEST_READER = 8
"""An older program would delete a user whom sessions and passkeys refer to."""
OLDEST_PROGRAM = "0.1.0"


def upgrade() -> None:
    """Make the tables; nobody is signed in yet."""
    key = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
    time = sa.DateTime(timezone=True)

    def owner() -> list[sa.Column[int]]:
        return [
            sa.Column("id", key, primary_key=True, autoincrement=False),
            sa.Column("tailnet_id", key, sa.ForeignKey("tailnets.id"), nullable=False),
            sa.Column("user_id", key, sa.ForeignKey("users.id"), nullable=False),
        ]

    def text(name: str) -> sa.Column[str]:
        return sa.Column(name, sa.Text, nullable=False)

    op.create_table(
        "sessions",
        *owner(),
        text("secret_hash"),
        text("method"),
        sa.Column("created_at", time, nullable=False),
        sa.Column("expires_at", time, nullable=False),
        sa.Column("last_used_at", time, nullable=False),
        sa.Column("login_expires_at", time),
        text("agent"),
        text("source"),
    )
    op.create_table(
        "credentials",
        *owner(),
        text("kind"),
        text("lookup"),
        sa.Column("created_at", time, nullable=False),
        text("name"),
        sa.Column("public_id", sa.LargeBinary, nullable=False),
        sa.Column("public_key", sa.LargeBinary, nullable=False),
        sa.Column("sign_count", sa.BigInteger, nullable=False),
        sa.Column("expires_at", time),
        sa.Column("used_at", time),
    )
