"""The local socket: made with the right permissions, taken over only from a dead server.

Not for what is spoken on it (``api``).
"""

from __future__ import annotations

import os
import socket
import stat
from pathlib import Path

from appliance.serve.statedir import StateError

BACKLOG = 64
"""People and scripts, not fleets."""
MAX_PATH_BYTES = 107
"""What the kernel's address has room for. Source: unix(7)."""


def bind(path: Path, mode: int) -> socket.socket:
    """Listen at a path. Raises StateError if another server does, or if it cannot be made."""
    if len(os.fsencode(path)) > MAX_PATH_BYTES:
        raise StateError(
            f"the socket path {path} is longer than {MAX_PATH_BYTES} bytes: shorten it"
        )
    sock = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        path.parent.mkdir(mode=0o755, parents=True, exist_ok=True)
        _clear(path)
        # Nobody may connect between bind and chmod.
        old = os.umask(0o777)
        try:
            sock.bind(str(path))
        finally:
            os.umask(old)
        path.chmod(mode)
        sock.listen(BACKLOG)
        sock.setblocking(False)
    except OSError as error:
        sock.close()
        raise StateError(
            f"the socket {path} cannot be made: {error.strerror}; name another with 'socket.path'"
        ) from error
    except StateError:
        sock.close()
        raise
    return sock


def _clear(path: Path) -> None:
    """Remove the socket of a server that is gone."""
    try:
        if not stat.S_ISSOCK(path.lstat().st_mode):
            raise StateError(f"{path} is there and is no socket; remove it or name another path")
    except FileNotFoundError:
        return
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as probe:
        probe.settimeout(1)
        try:
            probe.connect(str(path))
        except ConnectionRefusedError:
            path.unlink(missing_ok=True)
        except OSError as error:
            raise StateError(f"{path} is there and cannot be tried: {error.strerror}") from error
        else:
            raise StateError(f"another server answers at {path}; stop it first")
