"""Snapshot to database and back."""
