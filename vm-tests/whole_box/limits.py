"""Reaches for more than a unit allows: memory, tasks, open files. Alone, like `attempts.py`.

For: showing that the limits of the server's unit hold; run with one of the words of `main`.
"""

from __future__ import annotations

import errno
import os
import sys
import threading
from pathlib import Path

STEP_BYTES = 16 << 20
MOST_THREADS = 1_000
MOST_FILES = 200_000


def memory() -> None:
    """Take memory until somebody ends us."""
    taken = []
    while True:
        taken.append(bytearray(b"x" * STEP_BYTES))


def tasks() -> int:
    """Start threads until one is refused; give how many there were, with ourselves."""
    done = threading.Event()
    threads = []
    try:
        for _ in range(MOST_THREADS):
            thread = threading.Thread(target=done.wait)
            thread.start()
            threads.append(thread)
    except RuntimeError:
        pass
    finally:
        done.set()
    return len(threads) + 1


def files() -> int:
    """Open files until one is refused; give the highest number of one, and one more."""
    one = os.open(os.devnull, os.O_RDONLY)
    last = one
    try:
        for _ in range(MOST_FILES):
            last = os.dup(one)
    except OSError as refusal:
        if refusal.errno != errno.EMFILE:
            raise
    return last + 1


def main() -> None:
    """Do what the command line names, and leave the figure behind."""
    what, place = sys.argv[1:]
    # Opened before there are no more files to be had.
    with Path(place).open("w") as out:
        print({"memory": memory, "tasks": tasks, "files": files}[what](), file=out)


if __name__ == "__main__":
    main()
