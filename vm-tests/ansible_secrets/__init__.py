"""Ansible and secrets that go bad: renewed ones that are garbage, or for another name."""
