"""Bytes to values and back: every codec of the protocols that nodes and relays speak."""
