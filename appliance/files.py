"""A text file that somebody else writes: read whole, and again when it has changed.

Not for what the text means, and not for certificates (``tls.certificates`` has pairs of files).
Knows replaced files, switched links and files written in place. Blocking: call it in a thread.
"""

from __future__ import annotations

import errno
import os
import stat
import time
from collections.abc import Callable
from pathlib import Path

FRESH_NS = 2_000_000_000
"""A file that changed this recently may change again without looking different: clocks of file
systems tick every 4 ms to 2 s. It is read again at the next look."""

Signature = tuple[int, ...]


class Unreadable(Exception):
    """The file cannot be read as text; the sentence names it and the fix."""


class WatchedText:
    """One file, through links; ``news`` gives its text when that is another one than before."""

    def __init__(
        self, path: Path, *, max_bytes: int, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._clock_ns = clock_ns
        self._signature: Signature | None = None
        self._is_fresh = True
        self._text: str | None = None

    def news(self) -> str | None:
        """Give the text if it differs from the last one given. Raises Unreadable, at every call."""
        try:
            seen = self.path.stat()
            if _signature(seen) == self._signature and not self._is_fresh:
                return None
            text, seen = self._read()
        except (OSError, ValueError) as error:
            self.forget()
            raise Unreadable(f"{self.path}: {_explain(error)}") from error
        self._signature = _signature(seen)
        self._is_fresh = abs(self._clock_ns() - max(seen.st_mtime_ns, seen.st_ctime_ns)) < FRESH_NS
        if text == self._text:
            return None
        self._text = text
        return text

    def forget(self) -> None:
        """Take the file for new at the next look."""
        self._signature, self._is_fresh, self._text = None, True, None

    def _read(self) -> tuple[str, os.stat_result]:
        # Never waits: of a named pipe, which nobody means, the kind is looked at first.
        handle = os.open(self.path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        with open(handle, "rb") as file:  # noqa: PTH123 - a file that is open already
            seen = os.fstat(handle)
            if stat.S_ISDIR(seen.st_mode):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            if not stat.S_ISREG(seen.st_mode):
                raise ValueError("no regular file; put the text into one")
            data = file.read(self._max_bytes + 1)
        if len(data) > self._max_bytes:
            raise ValueError(f"larger than {self._max_bytes} bytes")
        if not data.strip():
            # What is left of a file by a full disk, or for a moment by a copy.
            raise ValueError("the file is empty")
        return data.decode("utf-8-sig"), seen  # some editors begin with a mark of order


def _signature(seen: os.stat_result) -> Signature:
    return (seen.st_dev, seen.st_ino, seen.st_size, seen.st_mtime_ns, seen.st_ctime_ns)


def _explain(error: OSError | ValueError) -> str:
    if isinstance(error, UnicodeDecodeError):
        return f"byte {error.start + 1} is no UTF-8 text"
    if isinstance(error, ValueError):
        return str(error)
    if isinstance(error, FileNotFoundError):
        return "there is no such file"
    if isinstance(error, PermissionError):
        return "the server may not read it; make it readable for the server's user"
    return error.strerror or str(error)
