"""Snapshot to database and back: ``store.Database`` is the face, the other modules are its parts.

Only this package knows SQL. It sits between the records and ``live``.
"""
