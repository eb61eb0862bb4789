"""The door that nodes use."""
