"""Files: those that somebody else writes, noticed when they change, and our own, written whole.

Not for what a file means. Knows replaced files, switched links and files written in place. Blocking:
call it in a thread where a disk may be slow.
"""

from __future__ import annotations

import errno
import os
import stat
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

FRESH_NS = 2_000_000_000
"""A file that changed this recently may change again without looking different: clocks of file
systems tick every 4 ms to 2 s. It is read again at the next look."""

Signature = tuple[int, ...]


class Unreadable(Exception):
    """The file cannot be read as text; the sentence names it and the fix."""


class Watch:
    """Some files, through links: ``has_changed`` since the last ``mark``."""

    def __init__(self, *paths: Path, clock_ns: Callable[[], int] = time.time_ns) -> None:
        self._paths = paths
        self._clock_ns = clock_ns
        self._seen: tuple[Signature | None, ...] | None = None
        self._is_fresh = True

    def has_changed(self) -> bool:
        """Return whether the files look otherwise than when they were marked, or may soon."""
        return self._is_fresh or self._look() != self._seen

    def mark(self) -> None:
        """Remember how the files look. Call it before reading: then no change can slip between."""
        self._seen = self._look()
        newest = max((max(each[3:]) for each in self._seen if each is not None), default=0)
        self._is_fresh = abs(self._clock_ns() - newest) < FRESH_NS

    def forget(self) -> None:
        """Make ``has_changed`` true until the next ``mark``."""
        self._seen, self._is_fresh = None, True

    def _look(self) -> tuple[Signature | None, ...]:
        return tuple(_signature(path) for path in self._paths)


class WatchedText:
    """One file, through links; ``news`` returns its text when it differs from the one before."""

    def __init__(
        self, path: Path, *, max_bytes: int, clock_ns: Callable[[], int] = time.time_ns
    ) -> None:
        self.path = path
        self._max_bytes = max_bytes
        self._watch = Watch(path, clock_ns=clock_ns)
        self._text: str | None = None

    def news(self) -> str | None:
        """Return the text if it differs from the last one. Raises Unreadable, at every call."""
        if not self._watch.has_changed():
            return None
        self._watch.mark()
        try:
            text = self._read()
        except (OSError, ValueError) as error:
            self.forget()
            raise Unreadable(f"{self.path}: {_explain(error)}") from error
        if text == self._text:
            return None
        self._text = text
        return text

    def forget(self) -> None:
        """Force a re-read at the next look."""
        self._watch.forget()
        self._text = None

    def _read(self) -> str:
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
        return data.decode("utf-8-sig")  # some editors begin with a mark of order


def _signature(path: Path) -> Signature | None:
    try:
        seen = path.stat()
    except OSError:
        return None
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


def write_whole(path: Path, data: bytes, *, mode: int = 0o600, is_new: bool = False) -> None:
    """Write a file so that it is there whole or not at all, also after a power cut.

    ``is_new`` raises FileExistsError instead of replacing one that somebody made meanwhile. Raises
    OSError.
    """
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", dir=path.parent)
    trial = Path(name)
    try:
        with open(handle, "wb") as file:  # noqa: PTH123 - a file that is open already
            os.fchmod(handle, mode)
            file.write(data)
            file.flush()
            os.fsync(handle)
        if is_new:
            path.hardlink_to(trial)
        else:
            trial.replace(path)
        sync_directory(path.parent)
    finally:
        trial.unlink(missing_ok=True)


def sync_directory(path: Path) -> None:
    """Make a new name in a directory survive a power cut."""
    handle = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(handle)
    finally:
        os.close(handle)
