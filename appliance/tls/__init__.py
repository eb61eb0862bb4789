"""Which certificate is served and where it comes from."""
