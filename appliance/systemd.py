"""What systemd is told: that we are ready, that we reload, that we stop.

Not for units (the packages have them). Does nothing where nobody listens.
Source: systemd sd_notify(3).
"""

from __future__ import annotations

import os
import socket
import time


def notify(*assignments: str) -> bool:
    """Send assignments such as ``READY=1``; tell whether somebody was there to hear them."""
    address = os.environ.get("NOTIFY_SOCKET", "")
    if not address.startswith(("/", "@")):
        return False
    if address.startswith("@"):
        address = "\0" + address[1:]
    try:
        with socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM | socket.SOCK_CLOEXEC) as sock:
            sock.connect(address)
            sock.sendall("\n".join(assignments).encode())
    except OSError:
        return False
    return True


def ready(status: str) -> bool:
    """Say that start or reload is done."""
    return notify("READY=1", f"STATUS={status}")


def reloading() -> bool:
    """Say that a reload begins; ``ready`` ends it."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> bool:
    """Say that the server stops."""
    return notify("STOPPING=1", "STATUS=stopping")
