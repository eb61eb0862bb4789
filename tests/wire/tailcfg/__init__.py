"""Messages between a node and control."""
