"""What can go wrong with the database so that an operator must act.

Not for failed writes of single edits (those raise what the driver raises; ``live`` reports them).
"""

from __future__ import annotations


class StoreError(Exception):
    """The database cannot be used; the text says why and what to do."""


class DatabaseInUse(StoreError):
    """Another process has this database open."""


class DatabaseTooNew(StoreError):
    """A newer program wrote this database, in a form that this one cannot read."""


class DatabaseDamaged(StoreError):
    """The records contradict each other, or the file is not whole."""


class DatabaseInDoubt(StoreError):
    """A commit was reported as failed but was taken: only a restart, which loads again, helps."""


class DatabaseClosed(StoreError):
    """The database was closed already."""
