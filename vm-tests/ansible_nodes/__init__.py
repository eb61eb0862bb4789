"""Machines that Ansible enrols: the client's own service, a key in a file, no trace of the key."""
