"""What a tailnet is and how it may change."""
