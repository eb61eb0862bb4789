"""Ansible on a host to which the only way in is closed by the new firewall: the host opens it again."""
