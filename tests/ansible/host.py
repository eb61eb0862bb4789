"""A host in a folder: releases that are small scripts, and a service manager that runs them by name.

The scripts are started for real; what systemd does with units is imitated, for its faults.
"""

from __future__ import annotations

import json
import sqlite3
from collections.abc import Sequence
from pathlib import Path

from headwater_release import Host
from headwater_state import Systemd

CONFIG = "/etc/headwater/config.json"
UNIT = "/etc/systemd/system/headwater.service"
SOCKET = "/etc/systemd/system/headwater.socket"
TABLE = "/etc/headwater/firewall.nft"
SECRET = "/etc/headwater/secrets/database-password"

PROGRAM = """#!/bin/sh
here=$(dirname "$0")/..
case "$1" in
  health) test ! -e "$here/sick" && ! grep -q bad "$3" ;;
  config) echo '{"database_url": "", "state_dir": "/var/lib/headwater"}' ;;
esac
"""


class FakeManager(Systemd):
    """Units whose state follows from the release that is linked when they are restarted."""

    def __init__(self, base: Path) -> None:
        self.base = base
        self.calls: list[str] = []
        self.states: dict[str, str] = {}
        self.pid = 100
        self.falls_over_after: dict[str, int] = {}
        """How often a release may be looked at before it falls."""

    def run(self, *arguments: str) -> str:
        verb, *units = [each for each in arguments if not each.startswith("--")]
        self.calls.append(" ".join(arguments))
        for unit in units:
            if verb in ("restart", "start") and unit.endswith(".service"):
                self.pid += 1
                self.states[unit] = "activating" if self._has("broken") else "active"
            elif verb == "stop" or (verb == "disable" and "--now" in arguments):
                self.states[unit] = "inactive"
        return ""

    def show(self, unit: str) -> dict[str, str]:
        release = (self.base / "current").resolve().name
        if release in self.falls_over_after and self.states.get(unit) == "active":
            self.falls_over_after[release] -= 1
            if self.falls_over_after[release] < 0:
                self.states[unit] = "activating"
        state = self.states.get(unit, "inactive")
        if state == "activating":
            self.pid += 1  # started again and again
        return {"ActiveState": state, "MainPID": str(self.pid), "ExecMainPID": str(self.pid)}

    def journal(self, units: Sequence[str], since: float) -> list[str]:
        return [f"{units[0]} since {since}"]

    def _has(self, mark: str) -> bool:
        return (self.base / "current" / mark).exists()


class Box:
    """The folder of a host, and what tests do with it."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "opt"
        self.root = folder / "root"
        (self.base / "releases").mkdir(parents=True)
        self.manager = FakeManager(self.base)
        self.now = 1_000_000.0
        self.files = {CONFIG: "{}", UNIT: "[Service]\n", SOCKET: "[Socket]\n"}

    @property
    def host(self) -> Host:
        """A new process of the program."""
        return Host(
            self.base,
            manager=self.manager,
            root=self.root,
            timeout_s=0.6,
            settle_s=0.0,
            clock=lambda: self.now,
            pause=lambda _seconds: None,
        )

    def install(self, version: str, *marks: str, schema: int = 1) -> None:
        place = self.base / "releases" / version
        (place / "bin").mkdir(parents=True)
        for name, text in {
            "headwater": PROGRAM,
            "python": f"#!/bin/sh\necho {schema}\n",
        }.items():
            (place / "bin" / name).write_text(text)
            (place / "bin" / name).chmod(0o755)
        for mark in marks:
            (place / mark).touch()
        (place / "installed").write_text("digest\n")

    def deploy(self, **changes: str | None) -> None:
        """Write the files of a deploy, as the playbook does."""
        for name, text in changes.items():
            path = {"config": CONFIG, "unit": UNIT, "socket": SOCKET, "table": TABLE}[name]
            if text is None:
                del self.files[path]
            else:
                self.files[path] = text
        for path, text in self.files.items():
            place = self.at(path)
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)
        manifest = {
            "config": CONFIG,
            "files": list(self.files),
            "watched": [SECRET],
            "sockets": ["headwater.socket"] if SOCKET in self.files else [],
            "services": ["headwater.service"],
            "firewall": "headwater-firewall.service" if TABLE in self.files else "",
        }
        (self.base / "deployed.json").write_text(json.dumps(manifest))

    def at(self, path: str) -> Path:
        return self.root / path.lstrip("/")

    @property
    def database(self) -> Path:
        return self.at("/var/lib/headwater/headwater.db")

    def write_database(self, oldest_reader: int, word: str) -> None:
        self.database.parent.mkdir(parents=True, exist_ok=True)
        self.database.unlink(missing_ok=True)
        write_database(self.database, oldest_reader, word)

    def read_word(self) -> str:
        connection = sqlite3.connect(self.database)
        try:
            return str(connection.execute("SELECT word FROM schema_state").fetchone()[0])
        finally:
            connection.close()


def write_database(path: Path, oldest_reader: int, word: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = sqlite3.connect(path)
    try:
        with connection:
            connection.execute("CREATE TABLE schema_state (oldest_reader INTEGER, word TEXT)")
            connection.execute("INSERT INTO schema_state VALUES (?, ?)", (oldest_reader, word))
    finally:
        connection.close()
