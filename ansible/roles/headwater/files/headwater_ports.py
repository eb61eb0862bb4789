"""Who listens on which ports of this host, and by which port whoever asks came in.

Beside ``headwater-release`` in /opt/headwater. Reads /proc only: ``ss`` is not on every host. Not
for what the firewall lets through. Needs only the system's own Python.
Source: proc_net(5), proc_pid_cgroup(5); sshd(8), SSH_CONNECTION.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path

PROC = Path("/proc")

# The state column of /proc/net/tcp and udp: what waits for connections, what waits for datagrams.
WAITING = {"tcp": "0A", "udp": "07"}

MAX_ANCESTORS = 64
"""No shell is deeper in sudo, screen and su than this; a loop among processes ends here."""


@dataclass(frozen=True)
class Listener:
    """One socket that waits, and who holds it."""

    protocol: str
    address: str
    port: int
    pid: int = 0
    process: str = ""
    unit: str = ""
    """The service of the process, or the socket unit if systemd alone holds it."""

    @property
    def is_public(self) -> bool:
        """Whether somebody outside could reach it."""
        return not ip_address(self.address).is_loopback

    @property
    def endpoint(self) -> str:
        """Address and port as systemd writes them."""
        host = f"[{self.address}]" if ":" in self.address else self.address
        return f"{host}:{self.port}"

    @property
    def who(self) -> str:
        """Name the holder for people."""
        if not self.pid:
            return "a process that cannot be named"
        unit = f" ({self.unit})" if self.unit else ""
        return f"{self.process}, pid {self.pid}{unit}"

    def collides(self, protocol: str, address: str, port: int) -> bool:
        """Tell whether a socket of ours could not be bound beside it."""
        if (self.protocol, self.port) != (protocol, port):
            return False
        mine, theirs = ip_address(address), ip_address(self.address)
        if mine.version != theirs.version:
            return False
        return mine == theirs or mine.is_unspecified or theirs.is_unspecified


def listeners(proc: Path = PROC) -> list[Listener]:
    """Return every socket that waits for strangers, with its holder.

    A socket that systemd has handed to a service is the service's.
    """
    found: dict[str, tuple[str, str, int]] = {}
    for protocol, state in WAITING.items():
        for suffix in ("", "6"):
            for inode, address, port in _read(proc / "net" / f"{protocol}{suffix}", state):
                found[inode] = (protocol, address, port)
    holders = _holders(proc, set(found))
    return [
        Listener(*found[inode], *holders.get(inode, (0, "", "")))
        for inode in sorted(found, key=lambda each: found[each][1:])
    ]


def _read(path: Path, state: str) -> Iterator[tuple[str, str, int]]:
    """Read one table of the kernel: inode, address and port of each row in a state."""
    try:
        lines = path.read_text().splitlines()[1:]
    except OSError:
        return
    for line in lines:
        fields = line.split()
        if len(fields) > 9 and fields[3] == state:
            address, _, port = fields[1].partition(":")
            yield fields[9], decode_address(address), int(port, 16)


def decode_address(text: str) -> str:
    """Decode an address: words of 32 bits, each in the order of this machine's bytes (little)."""
    words = [bytes.fromhex(text[at : at + 8])[::-1] for at in range(0, len(text), 8)]
    return str(ip_address(b"".join(words)))


def _holders(proc: Path, inodes: set[str]) -> dict[str, tuple[int, str, str]]:
    """Find who holds sockets: process id, name and unit. Of several, not systemd and the oldest."""
    found: dict[str, tuple[int, str, str]] = {}
    pids = sorted(int(each.name) for each in proc.iterdir() if each.name.isdigit())
    for pid in [*(each for each in pids if each != 1), 1]:
        for inode in _sockets(proc / str(pid)) & inodes:
            found.setdefault(inode, (pid, _name(proc / str(pid)), _unit(proc / str(pid))))
    return found


def _sockets(process: Path) -> set[str]:
    found = set()
    try:
        for entry in (process / "fd").iterdir():
            match = re.fullmatch(r"socket:\[(\d+)\]", str(entry.readlink()))
            if match:
                found.add(match[1])
    except OSError:  # it has ended, or is somebody else's and we are not root
        pass
    return found


def _name(process: Path) -> str:
    try:
        return (process / "comm").read_text().strip()
    except OSError:
        return ""


def _unit(process: Path) -> str:
    try:
        text = (process / "cgroup").read_text()
    except OSError:
        return ""
    found = re.findall(r"/([^/\s]+\.service)(?=/|$)", text, re.MULTILINE)
    return str(found[-1]) if found else ""


def way_in(pid: int | None = None, proc: Path = PROC) -> tuple[int, str] | None:
    """Return this host's port of the ssh connection behind a process, and its other end.

    sudo and su hide the variable from the command, but not from root, who can read it at one of the
    processes above: the shell that sshd has started. In a container root may not; whoever is not root there
    passes the variable on.
    """
    pid = os.getpid() if pid is None else pid
    for _ in range(MAX_ANCESTORS):
        if pid <= 1:
            return None
        found = read_connection(_environment(proc / str(pid)).get("SSH_CONNECTION", ""))
        if found is not None:
            return found
        pid = _parent(proc / str(pid))
    return None


def read_connection(text: str) -> tuple[int, str] | None:
    """Read the value of SSH_CONNECTION: the host's port, and the other end."""
    fields = text.split()
    if len(fields) != 4 or not fields[3].isdigit():
        return None
    return int(fields[3]), f"{fields[0]} {fields[1]}"


def _environment(process: Path) -> Mapping[str, str]:
    try:
        text = (process / "environ").read_bytes().decode(errors="replace")
    except OSError:
        return {}
    return dict(each.split("=", 1) for each in text.split("\0") if "=" in each)


def _parent(process: Path) -> int:
    try:
        found = re.search(r"^PPid:\s+(\d+)", (process / "status").read_text(), re.MULTILINE)
    except OSError:
        return 0
    return int(found[1]) if found else 0
