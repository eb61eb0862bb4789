"""Ansible on Debian 13: fresh, again, looked at, changed, refused, emptied."""
