"""What every machine of ours can do, built from one thing: running a shell command in it.

For: the waiting, the checks and the words of a failure, by NixOS' names (`face.py` says what each
does). Not for booting: `container.py` and `emulated.py`.
"""

from __future__ import annotations

import base64
import io
import shlex
import subprocess
import tarfile
import time
from abc import ABC, abstractmethod
from collections.abc import Callable
from pathlib import Path

from driver.log import Log
from driver.spec import Spec

# What a story waits for takes seconds; a wait this long is a hang, and the story has a limit too.
LONGEST_WAIT_S = 900
FIRST_PAUSE_S = 0.05
LONGEST_PAUSE_S = 0.5

# Of a failed command, this much is shown.
SHOWN_CHARS = 6_000

# A command line may not exceed the kernel's 128 KiB for one argument.
CHUNK_BYTES = 64 << 10


class StoryFailed(Exception):
    """Something that a story says does not hold."""


def retry(holds: Callable[[bool], bool], timeout_s: float, what: str) -> None:
    """Ask again and again until it holds; the argument says whether it is the last time."""
    ends = time.monotonic() + timeout_s
    pause = FIRST_PAUSE_S
    while time.monotonic() < ends:
        if holds(False):
            return
        time.sleep(pause)
        pause = min(LONGEST_PAUSE_S, pause * 1.5)
    if not holds(True):
        raise StoryFailed(f"{what}: not within {timeout_s:g} s")


class BaseMachine(ABC):
    """One machine of a story; see `face.Machine`."""

    def __init__(self, name: str, spec: Spec, number: int, log: Log) -> None:
        self.name = name
        self.spec = spec
        self.number = number
        self.log = log
        self.started = False

    # How it is made

    @abstractmethod
    def start(self) -> None:
        """Boot it, unless it runs."""

    @abstractmethod
    def run(
        self, command: str, timeout: float | None, data: bytes | None
    ) -> subprocess.CompletedProcess[bytes]:
        """Run one shell command in it, with these bytes as its input."""

    @abstractmethod
    def shutdown(self) -> None:
        """Power it off."""

    @abstractmethod
    def crash(self) -> None:
        """Take its power away."""

    @abstractmethod
    def block(self) -> None:
        """Pull its cables."""

    @abstractmethod
    def unblock(self) -> None:
        """Plug them in again."""

    @abstractmethod
    def last_words(self) -> str:
        """Give what its console and its journal say last."""

    @abstractmethod
    def end(self) -> None:
        """Take everything of it away."""

    # What a story asks of it

    def execute(self, command: str, *, timeout: float | None = LONGEST_WAIT_S) -> tuple[int, str]:
        """Run a shell command as root; give its exit code and what it printed."""
        self.start()
        done = self.run(command, timeout, None)
        return done.returncode, done.stdout.decode(errors="replace")

    def succeed(self, *commands: str, timeout: float | None = None) -> str:
        """Run commands that must end with 0."""
        return "".join(self._checked(command, timeout) for command in commands)

    def _checked(self, command: str, timeout: float | None) -> str:
        with self.log.step(self.name, f"must succeed: {command}"):
            code, printed = self.execute(command, timeout=timeout or LONGEST_WAIT_S)
        if code:
            shown = printed[-SHOWN_CHARS:]
            raise StoryFailed(f"{self.name}: `{command}` ended with {code}:\n{shown}")
        return printed

    def fail(self, *commands: str, timeout: float | None = None) -> str:
        """Run commands that must not end with 0."""
        printed = ""
        for command in commands:
            with self.log.step(self.name, f"must fail: {command}"):
                code, printed = self.execute(command, timeout=timeout or LONGEST_WAIT_S)
            if code == 0:
                shown = printed[-SHOWN_CHARS:]
                raise StoryFailed(f"{self.name}: `{command}` succeeded:\n{shown}")
        return printed

    def wait_until_succeeds(self, command: str, timeout: float = LONGEST_WAIT_S) -> str:
        """Repeat a command until it ends with 0."""
        return self._repeat(command, timeout, "success", lambda code: code == 0)

    def wait_until_fails(self, command: str, timeout: float = LONGEST_WAIT_S) -> str:
        """Repeat a command until it does not end with 0."""
        return self._repeat(command, timeout, "failure", lambda code: code != 0)

    def _repeat(self, command: str, timeout: float, hoped: str, good: Callable[[int], bool]) -> str:
        printed = ""

        def holds(last: bool) -> bool:
            nonlocal printed
            code, printed = self.execute(command, timeout=timeout)
            if last and not good(code):
                self.log.say(self.name, f"the last answer, {code}: {printed[-SHOWN_CHARS:]}")
            return good(code)

        what = f"waiting for {hoped}: {command}"
        with self.log.step(self.name, what):
            retry(holds, timeout, f"{self.name}: {what}")
        return printed

    def systemctl(self, q: str, user: str | None = None) -> tuple[int, str]:
        """Run systemctl."""
        if user is not None:
            q = f"--user --machine={user}@ {q}"
        return self.execute(f"systemctl {q}")

    def get_unit_info(self, unit: str, user: str | None = None) -> dict[str, str]:
        """Give all properties of a unit."""
        code, printed = self.systemctl(f"--no-pager show {shlex.quote(unit)}", user)
        if code:
            raise StoryFailed(f"{self.name}: systemctl show {unit} ended with {code}")
        return dict(line.split("=", 1) for line in printed.splitlines() if "=" in line)

    def wait_for_unit(
        self, unit: str, user: str | None = None, timeout: float = LONGEST_WAIT_S
    ) -> None:
        """Wait until a unit is active; raise at once if it failed."""

        def holds(last: bool) -> bool:
            del last
            state = self.get_unit_info(unit, user)["ActiveState"]
            if state == "failed":
                words = self.execute(f"journalctl --no-pager -n 40 -u {shlex.quote(unit)}")[1]
                raise StoryFailed(f"{self.name}: {unit} failed:\n{words}")
            if (
                state == "inactive"
                and "No jobs" in self.systemctl("list-jobs --full 2>&1")[1]
                # It may have become active while the jobs were asked for.
                and self.get_unit_info(unit, user)["ActiveState"] == "inactive"
            ):
                raise StoryFailed(f"{self.name}: {unit} is inactive and nothing will start it")
            return state == "active"

        with self.log.step(self.name, f"waiting for unit {unit}"):
            retry(holds, timeout, f"{self.name}: waiting for unit {unit}")

    def wait_for_file(self, filename: str, timeout: float = LONGEST_WAIT_S) -> None:
        """Wait until a file is there."""
        self.wait_until_succeeds(f"test -e {shlex.quote(filename)}", timeout)

    def wait_for_open_port(
        self, port: int, addr: str = "localhost", timeout: float = LONGEST_WAIT_S
    ) -> None:
        """Wait until a TCP port answers."""
        self.wait_until_succeeds(f"nc -z {shlex.quote(addr)} {port}", timeout)

    def copy_from_host(self, source: str, target: str) -> None:
        """Copy a file or folder into the machine."""
        self.start()
        packed = io.BytesIO()
        with tarfile.open(fileobj=packed, mode="w") as archive:
            archive.add(source, arcname=target.lstrip("/"))
        with self.log.step(self.name, f"copying {Path(source).name} to {target}"):
            self._feed("tar -C / --no-same-owner -xf -", packed.getvalue())

    def write(self, target: str, text: str, mode: str = "0644") -> None:
        """Write a file in the machine (our driver only)."""
        self.start()
        quoted = shlex.quote(target)
        with self.log.step(self.name, f"writing {target}"):
            self._feed(f"install -D -m {mode} /dev/null {quoted} && cat > {quoted}", text.encode())

    def _feed(self, command: str, data: bytes) -> None:
        done = self.run(command, LONGEST_WAIT_S, data)
        if done.returncode:
            words = done.stdout.decode(errors="replace")
            raise StoryFailed(f"{self.name}: `{command}` ended with {done.returncode}: {words}")

    def read(self, source: str) -> bytes:
        """Read a file of the machine (our driver only)."""
        return base64.b64decode(self.succeed(f"base64 -w0 {shlex.quote(source)}"))
