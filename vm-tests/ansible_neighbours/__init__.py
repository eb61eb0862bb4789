"""Ansible on a host with neighbours: taken ports, failing first runs, a proxy."""
