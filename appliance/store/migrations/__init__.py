"""Forward-only migrations of the database."""
