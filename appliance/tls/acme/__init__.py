"""Certificates by ACME: a child process that speaks with the authority, and an order that survives."""
