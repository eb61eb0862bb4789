"""Ansible on Debian 12: the same as on Debian 13."""
