"""Accounts at identity providers, with which users sign in, and the groups that come from there."""

from __future__ import annotations

import sqlalchemy as sa
from alembic import op

revision = "0006"
down_revision = "0005"

OLDEST_READER = 6
"""An older program would make a second user of everybody who signs in."""
OLDEST_PROGRAM = "0.1.0"


def upgrade() -> None:
    """Make room; nobody has signed in so far."""
    for name, default in (("issuer", ""), ("subject", ""), ("groups", "[]")):
        op.add_column("users", sa.Column(name, sa.Text, nullable=False, server_default=default))
