"""examples/cloud-init.yaml on a plain Debian: its first boot makes it a server."""
