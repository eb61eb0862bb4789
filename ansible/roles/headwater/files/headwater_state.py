"""What ``headwater-release`` knows and asks: states of the host, its service manager, files.

Beside it in /opt/headwater. Not for deciding anything. Needs only the system's own Python.
"""

from __future__ import annotations

import json
import os
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

COMMAND_TIMEOUT_S = 120
JOURNAL_LINES = 15
ROLLED_BACK, FAILED, REFUSED = 3, 4, 2
SECRET_MODE = 0o400


class Refused(Exception):
    """It cannot be done; nothing was changed. The text says what to do."""


@dataclass(frozen=True)
class Manifest:
    """What a deploy consists of, beside the release."""

    config: str = ""
    files: list[str] = field(default_factory=list)
    watched: list[str] = field(default_factory=list)
    """Secrets, given by the playbook or put there by hand; systemd hands them to the service."""
    sockets: list[str] = field(default_factory=list)
    services: list[str] = field(default_factory=list)
    firewall: str = ""
    """The unit that loads our table; empty where the firewall is somebody else's."""
    user: str = ""
    """The account of the service, and its group; empty where nobody looks at it."""
    ways_in: list[int] = field(default_factory=list)
    """Ports by which operators came in, which the table keeps open besides those it was told."""

    @property
    def units(self) -> list[str]:
        """Every unit that is enabled."""
        return [*self.sockets, *self.services, *([self.firewall] if self.firewall else [])]


@dataclass(frozen=True)
class Deployed:
    """One generation of the host: a release, and everything that goes with it."""

    version: str
    manifest: Manifest
    contents: dict[str, tuple[int, str]]
    """Mode and text of each file."""
    digests: dict[str, str]
    """Digest of each secret; the secret itself is in the store, by this name."""
    previous: str = ""
    """The release that ran before this one."""
    since: float = 0.0
    links: dict[str, str] = field(default_factory=dict)
    table: str = ""
    """How the firewall's table looks to the kernel when it is loaded."""
    kernel: dict[str, str] = field(default_factory=dict)
    """Kernel settings as they were before the first deploy; of that generation alone."""
    unsettable: list[str] = field(default_factory=list)
    """Kernel settings that this host does not let itself be given."""

    @classmethod
    def parse(cls, text: str) -> Deployed:
        """Read what ``dump`` wrote, also the ``dump`` of an earlier release of this program."""
        raw = json.loads(text)
        raw["manifest"] = Manifest(**raw["manifest"])
        raw["contents"] = {path: (mode, body) for path, (mode, body) in raw["contents"].items()}
        return cls(**raw)

    def dump(self) -> str:
        """Return it as JSON."""
        return json.dumps(asdict(self), indent=1) + "\n"


@dataclass(frozen=True)
class Given:
    """What the playbook wants on the host, as it hands it over on standard input."""

    manifest: Manifest
    files: Mapping[str, tuple[int, str]]
    links: Mapping[str, str] = field(default_factory=dict)
    secrets: Mapping[str, str] = field(default_factory=dict)

    @classmethod
    def parse(cls, text: str) -> Given:
        """Read the JSON object ``{manifest, files: {path: {text, mode}}, links, secrets}``."""
        raw: dict[str, Any] = json.loads(text)
        files = {
            path: (int(each.get("mode") or "0644", 8), str(each["text"]))
            for path, each in raw["files"].items()
        }
        manifest = Manifest(**{**raw["manifest"], "files": sorted(files)})
        return cls(manifest, files, raw.get("links") or {}, raw.get("secrets") or {})


@dataclass(frozen=True)
class Difference:
    """One thing that is not as it is wanted. Never holds the contents of a secret."""

    kind: str
    name: str
    before: str = ""
    after: str = ""
    marks: tuple[str, str] = ("", "")

    def shown(self) -> dict[str, str]:
        """Return it in the form in which Ansible prints a diff."""
        headers = [f"{self.name}{f' ({mark})' if mark else ''}" for mark in self.marks]
        before, after = self.before, self.after
        if before == after:  # Ansible prints nothing of what differs in its header alone
            headers = [self.name, self.name]
            before, after = (f"{mark or 'not there'}\n" for mark in self.marks)
        return {
            "before": before,
            "after": after,
            "before_header": headers[0],
            "after_header": headers[1],
        }


@dataclass(frozen=True)
class Account:
    """A user as the system knows it."""

    uid: int
    gid: int
    shell: str
    groups: tuple[str, ...]
    """Further groups, besides its own."""


@dataclass
class Outcome:
    """What happened, for people and for the playbook."""

    result: str
    version: str
    actions: list[str] = field(default_factory=list)
    reason: str = ""
    journal: list[str] = field(default_factory=list)
    diff: list[dict[str, str]] = field(default_factory=list)
    left: list[str] = field(default_factory=list)
    """What a first deploy that failed leaves on the host."""
    pending: bool = False
    """The firewall is taken back soon unless somebody comes in and confirms."""

    @property
    def exit_code(self) -> int:
        """0: it runs as wanted. 3: taken back. 4: neither is well."""
        return {"rolled-back": ROLLED_BACK, "failed": FAILED}.get(self.result, 0)


def ask(command: Sequence[str], timeout_s: float = COMMAND_TIMEOUT_S) -> str | None:
    """Return what a program prints, or None if it fails in any way."""
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


def write(path: Path, text: str | bytes, mode: int) -> None:
    """Write a file all at once, whatever was there: a link is replaced and not followed."""
    path.parent.mkdir(parents=True, exist_ok=True)
    trial = path.with_name(f".{path.name}.new")
    trial.unlink(missing_ok=True)
    descriptor = os.open(trial, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        file.write(text.encode() if isinstance(text, str) else text)
        file.flush()
        os.fsync(file.fileno())
    trial.chmod(mode)
    try:
        trial.replace(path)
    except OSError:
        trial.unlink()
        raise


def link(path: Path, target: str) -> None:
    """Make a symbolic link all at once, in place of a file or another link."""
    path.parent.mkdir(parents=True, exist_ok=True)
    trial = path.with_name(f".{path.name}.new")
    trial.unlink(missing_ok=True)
    trial.symlink_to(target)
    try:
        trial.replace(path)
    except OSError:
        trial.unlink()
        raise
