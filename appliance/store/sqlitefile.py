"""A SQLite file in use: kept for one server, and watched for being replaced under it.

SQLite goes on with the file that it opened, whatever stands under its name by now: somebody who
puts a copy in its place, or removes the write-ahead log beside it, makes the server write to what
nobody will ever read. So file and log are looked at before and after each commit: two calls of stat.

A file that was written in place by somebody else is looked at more closely. It may have been another
program's checkpoint (a backup tool), which moves our own commits from the log to the file.

The lock is taken twice: on a file beside the database, which names the process, and on the database
itself, which has one lock under all its names (hard links). Blocking.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
from contextlib import closing
from pathlib import Path

from appliance.store.errors import DatabaseInUse, NotOurs

FILE_MODE = 0o600
DIRECTORY_MODE = 0o700
JOURNAL_MODES = slice(18, 20)
"""Where the header of the file says that it has a write-ahead log."""
LEAST_FREE_BYTES = 128 << 10
"""With less room than this a commit of some nodes fails: 32 pages of the write-ahead log."""
WITHOUT_LOG = b"\x01\x01"

Identity = tuple[int, int]


class SqliteFile:
    """The file of a database that is open, locked. Closing it lets others in.

    Close it after SQLite's own connection: POSIX drops all locks of a process on a file when the
    process closes any descriptor of it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        path.parent.mkdir(mode=DIRECTORY_MODE, parents=True, exist_ok=True)
        self._lock = _open(path.with_name(path.name + ".lock"))
        try:
            self._take(self._lock)
            os.ftruncate(self._lock, 0)
            os.pwrite(self._lock, f"{os.getpid()}\n".encode(), 0)
            # Made here for its mode; SQLite gives the log the mode of the database.
            self._file = _open(path)
        except BaseException:
            os.close(self._lock)
            raise
        try:
            self._take(self._file)
        except BaseException:
            os.close(self._file)
            os.close(self._lock)
            raise
        self._identity = _identity(os.fstat(self._file))
        # As text: this is looked at in every commit, and Path takes longer than the system call.
        self._names = (str(path), str(_log_of(path)))
        self._log_identity: Identity | None = None
        self._written: tuple[int, int] | None = None

    def _take(self, descriptor: int) -> None:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            holder = os.pread(self._lock, 32, 0).decode("ascii", "replace").strip()
            who = f"(pid {holder})" if descriptor == self._lock and holder else "(by another name)"
            raise DatabaseInUse(
                f"another process {who} has {self.path} open; stop it first, "
                "or let this one use another database"
            ) from error

    @property
    def is_linked(self) -> bool:
        """Tell whether the file has a second name, whose write-ahead log would be another one."""
        return os.fstat(self._file).st_nlink > 1

    def trouble(self) -> str:
        """Say why nothing can be written to the file's place; "" if something can."""
        status = os.fstatvfs(self._file)
        if status.f_flag & os.ST_RDONLY:
            return f"the file system of {self.path} is read-only: nothing can be written"
        free = (status.f_bavail if os.geteuid() else status.f_bfree) * status.f_frsize
        if free < LEAST_FREE_BYTES:
            return f"the disk of {self.path} is full: nothing can be written"
        return ""

    def note_written(self) -> bool:
        """Remember the file as our own last transaction left it; tell whether that changed it."""
        status = os.fstat(self._file)
        written = (status.st_mtime_ns, status.st_size)
        if self._log_identity is None:
            self._log_identity = _present(self._names[1])
        before, self._written = self._written, written
        return before != written

    def check_place(self) -> None:
        """Raise NotOurs if the file that we write to is not the one that has its name."""
        name, log = self._names
        if _present(name) != self._identity:
            raise NotOurs(
                f"{self.path} was moved, removed or replaced while it was in use; "
                "what this server has in memory is not what stands there"
            )
        if self._log_identity is not None and _present(log) != self._log_identity:
            raise NotOurs(
                f"{log} was removed or replaced while it was in use: commits went with it"
            )

    def is_written_by_others(self) -> bool:
        """Tell whether the file looks otherwise than our last transaction left it."""
        status = os.fstat(self._file)
        return self._written not in {None, (status.st_mtime_ns, status.st_size)}

    def copy(self) -> sqlite3.Connection:
        """Open the file as it is on disk, without its log, in memory.

        Raises sqlite3.DatabaseError if it is none.
        """
        size = os.fstat(self._file).st_size
        image = bytearray(os.pread(self._file, size, 0))
        image[JOURNAL_MODES] = WITHOUT_LOG
        connection = sqlite3.connect(":memory:")
        try:
            connection.deserialize(bytes(image))
            connection.execute("SELECT count(*) FROM sqlite_master").close()
        except BaseException:
            connection.close()
            raise
        return connection

    def read_journal(self) -> dict[int, int]:
        """Read the newest version per tailnet from the file without its log.

        Raises NotOurs if the file is not whole.
        """
        try:
            with closing(self.copy()) as connection:
                (verdict,) = connection.execute("PRAGMA quick_check(1)").fetchone()
                rows = connection.execute(
                    "SELECT tailnet_id, max(version) FROM journal GROUP BY tailnet_id"
                ).fetchall()
        except sqlite3.Error as error:
            verdict, rows = str(error), []
        if verdict != "ok":
            raise NotOurs(
                f"{self.path} was written over while it was in use, and is not whole: {verdict}"
            )
        return dict(rows)

    def close(self) -> None:
        """Let others in."""
        os.close(self._file)
        os.close(self._lock)


def _open(path: Path) -> int:
    return os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, FILE_MODE)


def _present(name: str) -> Identity | None:
    try:
        return _identity(os.stat(name))  # noqa: PTH116 as above
    except FileNotFoundError:
        return None


def _identity(status: os.stat_result) -> Identity:
    return status.st_dev, status.st_ino


def _log_of(path: Path) -> Path:
    return path.with_name(path.name + "-wal")
