"""What Alembic runs for each command: the migrations on the connection that ``upgrade`` gives.

Not for configuration: there is no alembic.ini, ``appliance.store.upgrade`` sets everything.
"""

from __future__ import annotations

from alembic import context


def run() -> None:
    """Run the migrations inside the transaction that the caller began."""
    context.configure(connection=context.config.attributes["connection"], render_as_batch=True)
    context.run_migrations()


# Alembic executes this file with a context set up; a plain import (by a test) has none.
if hasattr(context, "config"):
    run()
