"""Ansible by ssh, as operators use it: ways in, drift, a lock-out that ends by itself."""
