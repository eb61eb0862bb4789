"""Programs of other people that use the API, driven as they are."""
