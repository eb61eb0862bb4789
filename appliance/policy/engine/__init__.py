"""Compiled policies: filters, visibility, routes, SSH rules and node attributes, kept up to date.

Not for reading texts (``policy.text``) nor for explaining decisions (``policy.answers``).
"""
