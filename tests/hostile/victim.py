"""The server under attack: a process of its own, and everything that can be seen of it from outside.

For the tests of this folder; not for what is done to it (``attacks``) nor for those who must not
suffer (``bystanders``). What an attacker is told is in ``Target``.
"""

from __future__ import annotations

import http.client
import json
import os
import re
import resource
import signal
import socket
import ssl
import subprocess
import sys
import time
from dataclasses import asdict, dataclass
from pathlib import Path

from tests.support.pace import patience

START_S = 30.0
STOP_S = 15.0
POLL_S = 0.1

_SAMPLE = re.compile(r"(\w+)(?:\{\w+=\"([^\"]*)\"\})? ([-+.\deE]+)")


@dataclass(frozen=True, slots=True)
class Target:
    """Where the server is and what everybody knows of it."""

    port: int
    machine_key: str
    auth_key: str
    socket: str
    host: str = "127.0.0.1"
    stun_port: int = 0
    """0: the same number as the TCP port."""

    def text(self) -> str:
        """Give it as a command line argument."""
        return json.dumps(asdict(self))


def allow_open_files() -> None:
    """Let this process hold as many connections as the system permits."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (hard, hard))


def any_certificate() -> ssl.SSLContext:
    """Make a client's context that believes any certificate: checking it is not our subject."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Victim:
    """``headwater dev`` in a directory, with its log in a file beside it."""

    def __init__(self, directory: Path, *arguments: str, log_level: str = "info") -> None:
        self.log = directory / "server.log"
        command = [sys.executable, "-m", "appliance", "dev", "-o", "json"]
        command += ["--dir", str(directory / "dev"), "--host", "127.0.0.1"]
        command += ["--log-level", log_level, *arguments]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        self.about = self._first_line()
        self.target = Target(
            port=int(self.about["url"].rpartition(":")[2]),
            machine_key=self._machine_key(),
            auth_key=self.about["auth_key"],
            socket=self.about["socket"],
        )

    @property
    def pid(self) -> int:
        """The server's process."""
        return self._process.pid

    def _first_line(self) -> dict[str, str]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        assert line, f"the server did not start:\n{self.log.read_text()}"
        about: dict[str, str] = json.loads(line)
        return about

    def _machine_key(self) -> str:
        url = self.about["url"]
        host = url.partition("://")[2]
        connection = (
            http.client.HTTPSConnection(host, context=any_certificate(), timeout=START_S)
            if url.startswith("https")
            else http.client.HTTPConnection(host, timeout=START_S)
        )
        connection.request("GET", "/key?v=130")
        answer: dict[str, str] = json.loads(connection.getresponse().read())
        connection.close()
        return answer["publicKey"]

    # -- what can be seen --

    @property
    def resident_bytes(self) -> int:
        """Resident memory now."""
        pages = Path(f"/proc/{self.pid}/statm").read_text().split()[1]
        return int(pages) * os.sysconf("SC_PAGE_SIZE")

    @property
    def peak_bytes(self) -> int:
        """The most resident memory since ``forget_peak``."""
        lines = Path(f"/proc/{self.pid}/status").read_text().splitlines()
        (kilobytes,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
        return int(kilobytes) * 1024

    def forget_peak(self) -> None:
        """Begin to measure the peak anew."""
        Path(f"/proc/{self.pid}/clear_refs").write_text("5")

    @property
    def files(self) -> int:
        """How many file descriptors are open."""
        return len(os.listdir(f"/proc/{self.pid}/fd"))  # noqa: PTH208  # only their number

    @property
    def cpu_s(self) -> float:
        """CPU seconds so far. Linux: the clock of another process, all threads."""
        return time.clock_gettime((~self.pid << 3) | 2)

    def counters(self) -> dict[str, float]:
        """Read all metrics: ``name`` or ``name:label`` to value."""
        text = unix_request(self.target.socket, "/metrics").decode()
        found = {}
        for line in text.splitlines():
            match = _SAMPLE.fullmatch(line)
            if match:
                name, label, value = match.groups()
                found[f"{name}:{label}" if label else name] = float(value)
        return found

    def log_complaints(self) -> list[str]:
        """Give the lines of the log that speak of a bug."""
        bad = re.compile(
            r"Traceback|Exception|Error:| error | critical |never retrieved|never awaited"
        )
        return [
            line for line in self.log.read_text(errors="replace").splitlines() if bad.search(line)
        ]

    def wait_for_files(self, at_most: int, timeout_s: float = 20.0) -> int:
        """Wait until no more than this many descriptors are open; give how many there are."""
        deadline = time.monotonic() + timeout_s
        while self.files > at_most and time.monotonic() < deadline:
            time.sleep(POLL_S)
        return self.files

    # -- its end --

    def stop(self) -> float:
        """Ask it to stop, as systemd does; give how long it took."""
        began = time.monotonic()
        if self._process.poll() is None:
            self._process.send_signal(signal.SIGTERM)
        try:
            self._process.wait(patience(STOP_S))
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        assert self._process.stdout is not None
        self._process.stdout.close()
        return time.monotonic() - began


def unix_request(path: str, target: str, *, timeout_s: float = 10.0) -> bytes:
    """GET something from the local socket; give the body."""

    class Local(http.client.HTTPConnection):
        def connect(self) -> None:
            self.sock = socket.socket(socket.AF_UNIX)
            self.sock.settimeout(timeout_s)
            self.sock.connect(path)

    connection = Local("localhost")
    try:
        connection.request("GET", target)
        return connection.getresponse().read()
    finally:
        connection.close()
