"""A playbook of somebody else's, with the collection from its archive, on a host with nothing on it."""
