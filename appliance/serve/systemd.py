"""systemd's side of a service: inherited sockets, notifications, the watchdog.

Not for units (``deploy``). Does nothing where no systemd is.
Source: systemd sd_listen_fds(3), sd_notify(3), sd_watchdog_enabled(3).
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
import time
from collections.abc import AsyncIterator, Mapping, MutableMapping

from appliance.loops import Loop

FIRST_DESCRIPTOR = 3
MAX_DESCRIPTORS = 256
"""Far more sockets than a site has addresses; a larger number is damage."""
EXTENSION_S = 60.0
"""By how much the start timeout is extended at a time."""

Inherited = Mapping[str, tuple[socket.socket, ...]]
"""Sockets that systemd made and bound, by purpose (``FileDescriptorName=``)."""


def inherited(
    environ: MutableMapping[str, str] = os.environ, first: int = FIRST_DESCRIPTOR
) -> Inherited:
    """Take the sockets that systemd passes, by ``FileDescriptorName=``; once, then they are gone.

    Raises OSError for a descriptor that is no socket.
    """
    count, names = environ.pop("LISTEN_FDS", ""), environ.pop("LISTEN_FDNAMES", "")
    if environ.pop("LISTEN_PID", "") != str(os.getpid()) or not count.isdecimal():
        return {}
    found: dict[str, tuple[socket.socket, ...]] = {}
    called = names.split(":")
    for i in range(min(int(count), MAX_DESCRIPTORS)):
        sock = socket.socket(fileno=first + i)
        sock.set_inheritable(False)
        sock.setblocking(False)
        name = called[i] if i < len(called) else "unknown"
        found[name] = (*found.get(name, ()), sock)
    return found


def notify(*assignments: str) -> bool:
    """Send assignments such as ``READY=1``; return whether a service manager got them."""
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
    """Notify that start or reload is done."""
    return notify("READY=1", f"STATUS={status}")


def reloading() -> bool:
    """Notify that a reload begins; ``ready`` ends it."""
    return notify("RELOADING=1", f"MONOTONIC_USEC={time.monotonic_ns() // 1000}")


def stopping() -> bool:
    """Notify that the process stops."""
    return notify("STOPPING=1", "STATUS=stopping")


def watchdog_s() -> float | None:
    """Return the watchdog's interval in seconds; None without a watchdog."""
    interval = os.environ.get("WATCHDOG_USEC", "")
    if not interval.isdecimal() or int(interval) == 0:
        return None
    if os.environ.get("WATCHDOG_PID", str(os.getpid())) != str(os.getpid()):
        return None
    return int(interval) / 1_000_000


def loops() -> tuple[Loop, ...]:
    """Return the loop that pings systemd's watchdog; a blocked event loop misses the ping."""
    interval = watchdog_s()
    if interval is None:
        return ()
    return (Loop("watchdog", ping, interval / 3, max_backoff_s=interval / 3),)


def ping() -> None:
    """Ping the watchdog once."""
    notify("WATCHDOG=1")


@contextlib.asynccontextmanager
async def extend_start_timeout(
    status: str, *, every_s: float = EXTENSION_S / 4
) -> AsyncIterator[None]:
    """Extend the start timeout for as long as the block runs."""

    async def ask() -> None:
        while True:
            await asyncio.sleep(every_s)
            notify(f"EXTEND_TIMEOUT_USEC={round(EXTENSION_S * 1_000_000)}", f"STATUS={status}")

    asking = asyncio.create_task(ask(), name="start timeout")
    try:
        yield
    finally:
        asking.cancel()
