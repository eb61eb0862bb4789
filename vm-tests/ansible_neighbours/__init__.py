"""Ansible on a host with neighbours: taken ports, failing runs, bad secrets, a proxy."""
