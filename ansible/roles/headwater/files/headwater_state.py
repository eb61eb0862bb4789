"""What ``headwater-release`` knows and asks: states of the host, the service manager, files.

Beside it in /opt/headwater. Not for deciding anything. Needs only the system's own Python.
"""

from __future__ import annotations

import json
import os
import sqlite3
import subprocess
from collections.abc import Sequence
from contextlib import closing
from dataclasses import asdict, dataclass, field
from pathlib import Path

COMMAND_TIMEOUT_S = 120
JOURNAL_LINES = 15
ROLLED_BACK, FAILED, REFUSED = 3, 4, 2


class Refused(Exception):
    """It cannot be done; nothing was changed. The text says what to do."""


@dataclass(frozen=True)
class Manifest:
    """What a deploy consists of, beside the release: written by it as deployed.json."""

    config: str
    files: list[str] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)
    """Secrets: a change of theirs needs a restart, but their contents are kept nowhere else."""
    sockets: list[str] = field(default_factory=list)
    services: list[str] = field(default_factory=list)
    firewall: str = ""
    """The unit that loads our table; empty where the firewall is somebody else's."""

    @property
    def units(self) -> list[str]:
        """All units that are enabled."""
        return [*self.sockets, *self.services, *([self.firewall] if self.firewall else [])]


@dataclass(frozen=True)
class Deployed:
    """One state of the host: a release, and the files that went with it."""

    version: str
    manifest: Manifest
    contents: dict[str, tuple[int, str]]
    """Mode and text of each file."""
    digests: dict[str, str]
    previous: str = ""
    """The release that ran before this one."""
    since: float = 0.0

    @classmethod
    def parse(cls, text: str) -> Deployed:
        """Read what ``dump`` wrote."""
        raw = json.loads(text)
        raw["manifest"] = Manifest(**raw["manifest"])
        raw["contents"] = {path: (mode, body) for path, (mode, body) in raw["contents"].items()}
        return cls(**raw)

    def dump(self) -> str:
        """Give it as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"


class Systemd:
    """What is asked of the service manager of this host."""

    def run(self, *arguments: str) -> str:
        """Run systemctl; what it complains about shows in the units' state."""
        return ask(["systemctl", *arguments]) or ""

    def show(self, unit: str) -> dict[str, str]:
        """Give a unit's properties."""
        names = "ActiveState,MainPID,ExecMainPID"
        said = ask(["systemctl", "show", f"--property={names}", unit]) or ""
        lines = said.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def journal(self, units: Sequence[str], since: float) -> list[str]:
        """Give the last lines of some units."""
        which = [f"--unit={unit}" for unit in units]
        command = ["journalctl", "--no-pager", "--output=cat", f"--lines={JOURNAL_LINES}"]
        said = ask([*command, f"--since=@{int(since)}", *which]) or ""
        return said.splitlines()


@dataclass
class Outcome:
    """What happened, for people and for the playbook."""

    result: str
    version: str
    actions: list[str] = field(default_factory=list)
    reason: str = ""
    journal: list[str] = field(default_factory=list)

    @property
    def exit_code(self) -> int:
        """0: it runs as wanted. 3: taken back. 4: neither is well."""
        return {"rolled-back": ROLLED_BACK, "failed": FAILED}.get(self.result, 0)


def oldest_reader(database: Path) -> int | None:
    """Give the oldest schema whose programs can work with a database; None if it does not say."""
    try:
        with closing(sqlite3.connect(f"file:{database}?mode=ro", uri=True)) as connection:
            row = connection.execute("SELECT oldest_reader FROM schema_state").fetchone()
    except sqlite3.Error:
        return None
    return int(row[0]) if row else None


def ask(command: Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S) -> str | None:
    """Give what a program says, or None if it fails in any way."""
    try:
        done = subprocess.run(
            command,
            capture_output=True,
            text=True,
            check=False,
            timeout=timeout_s,
            stdin=subprocess.DEVNULL,
            cwd="/",
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return done.stdout if done.returncode == 0 else None


def write(path: Path, text: str, mode: int) -> None:
    """Write a file all at once."""
    path.parent.mkdir(parents=True, exist_ok=True)
    trial = path.with_name(f".{path.name}.new")
    trial.unlink(missing_ok=True)
    descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "w") as file:
        file.write(text)
        file.flush()
        os.fsync(file.fileno())
    trial.chmod(mode)
    trial.replace(path)
