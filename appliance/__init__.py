"""Headwater: a self-contained coordination server for stock Tailscale clients.

This package is the whole program; the distribution and the command are named ``headwater``.
It holds no import-time work. ``appliance.serve.server`` joins the parts, ``appliance.cli`` speaks to people.
"""

__version__ = "0.1.0"
