"""Upgrade to a new release, and back from broken ones, while two nodes talk."""
