"""Listeners: bytes in, the right door out."""
