"""Ansible on a host that is tampered with: mended, or named."""
