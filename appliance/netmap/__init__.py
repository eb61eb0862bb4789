"""What one node is told."""
