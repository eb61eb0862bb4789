"""Messages between a node and the control plane."""
