"""What can go wrong with the database so that an operator must act.

Not for failed writes of single edits (those raise what the driver raises; ``live`` reports them).
"""

from __future__ import annotations

from appliance.errors import Fatal

POOLED = (
    "a connection pooler stands before this PostgreSQL database and changes the session from one "
    "transaction to the next; headwater needs the session to be its own: let it connect to the "
    "server itself, or give it a pool in session mode (PgBouncer: pool_mode=session)"
)
READ_ONLY = (
    "this PostgreSQL database is read-only (a standby, or default_transaction_read_only is set); "
    "name the primary, or all hosts with target_session_attrs=read-write"
)


class StoreError(Exception):
    """The database cannot be used; the text says why and what to do."""


class DatabaseInUse(StoreError):
    """Another process has this database open."""


class DatabaseTooNew(StoreError):
    """A newer program wrote this database, in a form that this one cannot read."""


class DatabaseDamaged(StoreError):
    """The records contradict each other, or the file is not whole."""


class DatabaseMissing(StoreError):
    """The database is empty, though there is more that belongs to it."""


class DatabaseAway(StoreError):
    """The database does not answer, or does not take what it is sent; it may by itself."""


class NotOurs(StoreError, Fatal):
    """The database is not what this server left: its memory is not the truth any more.

    The server must end, so that its next start loads what is true.
    """


class DatabaseClosed(StoreError):
    """The database was closed already."""


def is_databases(error: BaseException) -> bool:
    """Tell whether a failure is the database's, and not a bug of ours."""
    return isinstance(error, StoreError) or getattr(error, "orig", None) is not None


def reason(error: BaseException) -> str:
    """Give the driver's own words for a failure, without the statement and its parameters."""
    return str(getattr(error, "orig", None) or error).strip()
