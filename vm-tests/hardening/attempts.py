"""What somebody would try who has taken over the server: runs as the server's unit would run it.

For: one line of JSON an attempt, whether it was possible. Alone: it is copied to a machine and run by
that machine's Python, with nothing beside it. Not for judging (`story.py`).
Source: systemd.exec(5), the directives of `appliance/deploy/facts.py` one by one.
"""

from __future__ import annotations

import ctypes
import json
import mmap
import os
import socket
import stat
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

LIBC = ctypes.CDLL(None, use_errno=True)

STATE = os.environ.get("STATE_DIRECTORY", "/nonexistent")

CLONE_NEWUSER = 0x10000000
CLONE_NEWNET = 0x40000000
ADDR_NO_RANDOMIZE = 0x0040000


def libc(name: str, *arguments: object) -> None:
    """Call a function of the C library that gives -1 on failure."""
    if getattr(LIBC, name)(*arguments) == -1:
        raise OSError(ctypes.get_errno(), name)


def write(path: str) -> Callable[[], None]:
    """Try to make a file."""

    def attempt() -> None:
        Path(path).write_text("x")
        Path(path).unlink()

    return attempt


def read(path: str) -> Callable[[], None]:
    """Try to read a file or a folder."""

    def attempt() -> None:
        if Path(path).is_dir():
            list(Path(path).iterdir())
        else:
            Path(path).read_bytes()

    return attempt


def executable_memory() -> None:
    """Try to have memory that is written and run."""
    mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC).close()


def setuid_file() -> None:
    """Try to leave a program behind that runs as us for everybody."""
    path = Path(STATE) / "setuid"
    path.write_text("x")
    try:
        path.chmod(0o4755)
        if not path.stat().st_mode & stat.S_ISUID:
            raise PermissionError("the bit was dropped")
    finally:
        path.unlink()


def other_processes() -> None:
    """Try to see the first process of the machine."""
    Path("/proc/1").stat()


def realtime() -> None:
    """Try to starve everybody else."""
    os.sched_setscheduler(0, os.SCHED_FIFO, os.sched_param(1))


def bind(family: int, address: tuple[str, int]) -> Callable[[], None]:
    """Try to listen where systemd did not."""

    def attempt() -> None:
        with socket.socket(family, socket.SOCK_STREAM) as made:
            made.bind(address)

    return attempt


def open_socket(family: int, kind: int) -> Callable[[], None]:
    """Try to have a socket of a family."""
    return lambda: socket.socket(family, kind).close()


def personality() -> None:
    """Try to turn address randomisation off."""
    libc("personality", ADDR_NO_RANDOMIZE)


ATTEMPTS: dict[str, Callable[[], object]] = {
    # What the server itself does: if this fails, the others prove nothing.
    "own state": write(f"{STATE}/x"),
    "own socket": open_socket(socket.AF_INET6, socket.SOCK_STREAM),
    "own settings": read("/etc/headwater"),
    "own temporary files": write("/tmp/x"),  # which is private
    # What it never does.
    "write /etc": write("/etc/x"),
    "write /usr": write("/usr/x"),
    "write /opt": write("/opt/x"),
    "write /run": write("/run/x"),
    "write /var": write("/var/x"),
    "write /sys": write("/sys/kernel/mm/ksm/run"),
    "read /etc/shadow": read("/etc/shadow"),
    "read the secrets of others": read("/etc/headwater/secrets"),
    "read /root": read("/root"),
    "write /root": write("/root/x"),
    "write a kernel setting": lambda: Path("/proc/sys/kernel/core_pattern").write_text("x"),
    "see other processes": other_processes,
    "read /proc/meminfo": read("/proc/meminfo"),
    "kill the first process": lambda: os.kill(1, 0),
    "open /dev/net/tun": lambda: os.open("/dev/net/tun", os.O_RDWR),
    "open /dev/kmsg": lambda: os.open("/dev/kmsg", os.O_RDWR),
    "memory that is written and run": executable_memory,
    "a setuid program": setuid_file,
    "netlink": open_socket(socket.AF_NETLINK, socket.SOCK_RAW),
    "packets": open_socket(socket.AF_PACKET, socket.SOCK_RAW),
    "raw sockets": open_socket(socket.AF_INET, socket.SOCK_RAW),
    "listen on a low port": bind(socket.AF_INET, ("127.0.0.1", 81)),
    "listen on a high port": bind(socket.AF_INET, ("127.0.0.1", 8181)),
    "a user namespace": lambda: libc("unshare", CLONE_NEWUSER),
    "a network namespace": lambda: libc("unshare", CLONE_NEWNET),
    "mount": lambda: libc("mount", b"tmpfs", b"/tmp", b"tmpfs", 0, None),
    "change the root": lambda: os.chroot("/tmp"),
    "become root": lambda: os.setuid(0),
    "the machine's name": lambda: socket.sethostname("x"),
    "the machine's clock": lambda: time.clock_settime(time.CLOCK_REALTIME, 0),
    "real-time priority": realtime,
    "no address randomisation": personality,
}


def results() -> Iterator[tuple[str, str]]:
    """Try everything."""
    for name, attempt in ATTEMPTS.items():
        try:
            attempt()
        except OSError as refusal:
            yield name, f"refused: {refusal.strerror or refusal}"
        else:
            yield name, "possible"


if __name__ == "__main__":
    json.dump(dict(results()), sys.stdout)
