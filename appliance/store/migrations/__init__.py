"""Alembic's home: ``env`` joins it to our connection, ``versions`` holds the migrations.

Forward only; never edited once released; never importing ``records`` or ``schema``.
"""
