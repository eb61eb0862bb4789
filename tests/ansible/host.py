"""A host in a folder: releases that are small scripts, and a service manager that runs them by name.

The scripts are started for real; what systemd does with units is imitated, for its faults.
"""

from __future__ import annotations

import json
import os
import sqlite3
from collections.abc import Mapping, Sequence
from pathlib import Path

from headwater_host import Host
from headwater_ports import Listener
from headwater_state import Account, Given, Outcome
from headwater_system import System

ME = (os.getuid(), os.getgid())

CONFIG = "/etc/headwater/config.json"
UNIT = "/etc/systemd/system/headwater.service"
SOCKET = "/etc/systemd/system/headwater.socket"
TABLE = "/etc/headwater/firewall.nft"
SYSCTL = "/etc/sysctl.d/60-headwater.conf"
COMMAND = "/usr/local/bin/headwater"
SECRET = "/etc/headwater/secrets/database-password"

PROGRAM = """#!/bin/sh
here=$(dirname "$0")/..
case "$1" in
  health) test ! -e "$here/sick" && ! grep -q bad "$3" ;;
  config) echo '{"database_url": "", "state_dir": "/var/lib/headwater"}' ;;
esac
"""


class FakeSystem(System):
    """Units whose state follows from the release that is linked when they are restarted."""

    def __init__(self, base: Path, root: Path) -> None:
        super().__init__()
        self.base, self.root = base, root
        self.calls: list[str] = []
        self.states: dict[str, str] = {}
        self.enabled: set[str] = set()
        self.pid = 100
        self.falls_over_after: dict[str, int] = {}
        """How often a release may be looked at before it falls."""
        self.loaded = ""
        self.settings = {"net.core.somaxconn": "128"}
        self.takes_settings = True
        self.users: dict[str, Account] = {}
        self.held: list[Listener] = []
        self.came: tuple[int, str] | None = (22, "198.51.100.1 4000")
        self.wrong_table = ""

    def run(self, *arguments: str) -> str:
        verb, *units = [each for each in arguments if not each.startswith("--")]
        self.calls.append(" ".join(arguments))
        for unit in units:
            if verb == "enable":
                self.enabled.add(unit)
            elif verb == "disable":
                self.enabled.discard(unit)
            if unit == "headwater-firewall.service":
                self._firewall(verb)
            elif verb in ("restart", "start") and unit.endswith(".service"):
                self._start(unit)
            elif verb == "stop" or (verb == "disable" and "--now" in arguments):
                self.states[unit] = "inactive"
        return ""

    def _firewall(self, verb: str) -> None:
        if verb == "reload-or-restart":
            self.loaded = "loaded: " + (self.root / TABLE.lstrip("/")).read_text()
            self.states["headwater-firewall.service"] = "active"
        elif verb == "stop":
            self.loaded = ""
            self.states["headwater-firewall.service"] = "inactive"

    def _start(self, unit: str) -> None:
        self.pid += 1
        for each in self.enabled:
            if each.endswith(".socket"):
                port = int((self.root / SOCKET.lstrip("/")).read_text().rpartition(":")[2])
                taken = any(one.port == port for one in self.held)
                self.states[each] = "failed" if taken else "active"
                if taken:
                    return
        secret = self.root / SECRET.lstrip("/")
        bad = secret.exists() and "garbage" in secret.read_text()
        self.states[unit] = "activating" if bad or self._has("broken") else "active"

    def show(self, unit: str) -> dict[str, str]:
        release = (self.base / "current").resolve().name
        if release in self.falls_over_after and self.states.get(unit) == "active":
            self.falls_over_after[release] -= 1
            if self.falls_over_after[release] < 0:
                self.states[unit] = "activating"
        state = self.states.get(unit, "inactive")
        if state == "activating":
            self.pid += 1  # started again and again
        return {
            "ActiveState": state,
            "MainPID": str(self.pid),
            "ExecMainPID": str(self.pid),
            "UnitFileState": "enabled" if unit in self.enabled else "disabled",
        }

    def journal(self, units: Sequence[str], since: float) -> list[str]:
        return [f"{units[0]} since {since}"]

    def table(self) -> str:
        return self.loaded

    def check_table(self, path: Path) -> str:
        assert path.exists()
        return self.wrong_table

    def drop_table(self) -> None:
        self.loaded = ""

    def kernel(self, key: str) -> str | None:
        return self.settings.get(key)

    def set_kernel(self, settings: Mapping[str, str]) -> None:
        if not self.takes_settings:
            return
        self.settings |= {key: value for key, value in settings.items() if key in self.settings}

    def account(self, name: str) -> Account | None:
        return self.users.get(name)

    def make_accounts(self, user: str) -> None:
        self.users[user] = Account(*ME, "/usr/sbin/nologin", ())

    def listeners(self) -> list[Listener]:
        return self.held

    def way_in(self) -> tuple[int, str] | None:
        return self.came

    def _has(self, mark: str) -> bool:
        return (self.base / "current" / mark).exists()


class Box:
    """The folder of a host, and what tests do with it."""

    def __init__(self, folder: Path) -> None:
        self.base = folder / "opt"
        self.root = folder / "root"
        (self.base / "releases").mkdir(parents=True)
        self.manager = FakeSystem(self.base, self.root)
        self.now = 1_000_000.0
        self.prove_s = 0.0
        self.files = {
            CONFIG: "{}",
            UNIT: "[Service]\n",
            SOCKET: "[Socket]\nListenStream=0.0.0.0:443",
            SYSCTL: "-net.core.somaxconn = 4096\n-net.core.rmem_max = 4194304\n",
        }
        self.secrets: dict[str, str] = {}

    @property
    def host(self) -> Host:
        """A new process of the program."""
        return Host(
            self.base,
            manager=self.manager,
            root=self.root,
            owner=ME,
            timeout_s=0.6,
            settle_s=0.0,
            prove_s=self.prove_s,
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

    def want(self, **changes: str | None) -> None:
        """Change what the playbook wants on the host."""
        for name, text in changes.items():
            path = {"config": CONFIG, "unit": UNIT, "socket": SOCKET, "table": TABLE}[name]
            if text is None:
                del self.files[path]
            else:
                self.files[path] = text

    @property
    def document(self) -> str:
        """What the playbook hands over."""
        manifest = {
            "config": CONFIG,
            "watched": [SECRET],
            "sockets": ["headwater.socket"] if SOCKET in self.files else [],
            "services": ["headwater.service"],
            "firewall": "headwater-firewall.service" if TABLE in self.files else "",
            "user": "headwater",
        }
        files = {path: {"text": text} for path, text in self.files.items()}
        links = {COMMAND: "/opt/headwater/current/bin/headwater"}
        return json.dumps(
            {"manifest": manifest, "files": files, "links": links, "secrets": self.secrets}
        )

    @property
    def given(self) -> Given:
        """The same, read."""
        return Given.parse(self.document)

    def apply(self, version: str = "1.0.0") -> Outcome:
        """Do what the playbook does."""
        return self.host.apply(version, self.given)

    def look(self) -> dict[str, object]:
        """Everything on the host that a deploy could touch."""
        files = {
            str(path): (path.lstat().st_mode, path.read_bytes() if path.is_file() else b"")
            for path in self.root.rglob("*")
            if not path.is_dir()
        }
        units = {unit for unit, state in self.manager.states.items() if state != "inactive"}
        system = (self.manager.loaded, dict(self.manager.settings), set(self.manager.enabled))
        return {"files": files, "units": units, "system": system}

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
