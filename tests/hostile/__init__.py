"""Hostile peers against a real server, while well-behaved clients beside them must notice nothing."""
