"""What on this host is not as a deploy wants it: files, units, kernel, firewall, accounts, ports.

Beside ``headwater-release`` in /opt/headwater. Looks and compares; changes nothing. Needs only the
system's own Python.
"""

from __future__ import annotations

import hashlib
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from ipaddress import ip_address
from pathlib import Path
from typing import Any

from headwater_ports import Listener
from headwater_state import SECRET_MODE, Deployed, Difference
from headwater_system import NOLOGIN, System

WEB_PORTS = (80, 443)
"""Where a proxy or a web server is; others would be cut off from strangers without a word."""
OURS = re.compile(r"headwater(-[a-z0-9-]+)?\.(service|socket)")
UNITS = "/etc/systemd/system/"
SETTING = re.compile(r"^-?\s*([\w./-]+)\s*=\s*(.*?)\s*$", re.MULTILINE)
HOME = re.compile(r"^u .* (/\S+)$", re.MULTILINE)
FOLDER = re.compile(r"^d\s+(\S+)\s+(\d+)\s+root\s+root", re.MULTILINE)
LISTEN = re.compile(r"^Listen(Stream|Datagram)=(\S+):(\d+)$", re.MULTILINE)
KINDS = {"Stream": "tcp", "Datagram": "udp"}


@dataclass(frozen=True)
class Live:
    """This host as it is now."""

    system: System
    root: Path = Path("/")
    owner: tuple[int, int] = (0, 0)

    def at(self, name: str) -> Path:
        """Return the place of an absolute path (below another root in tests)."""
        return self.root / name.lstrip("/")

    def differences(self, wanted: Deployed) -> list[Difference]:
        """Return everything that is not as it is wanted, files first."""
        return [
            *self._files(wanted),
            *self._links(wanted),
            *self._secrets(wanted),
            *self._folders(wanted),
            *self._accounts(wanted),
            *self._kernel(wanted),
            *self._units(wanted),
            *self._state(wanted),
            *self._table(wanted),
        ]

    # ── files ────────────────────────────────────────────────────────────────────────────────

    def _files(self, wanted: Deployed) -> Iterator[Difference]:
        for name, (mode, text) in wanted.contents.items():
            is_mode, is_text = self.read(name)
            right = self._mark(mode)
            if (is_mode, is_text) != (right, text):
                yield Difference("file", name, is_text, text, (is_mode, right))

    def _links(self, wanted: Deployed) -> Iterator[Difference]:
        for name, target in wanted.links.items():
            path = self.at(name)
            found = str(path.readlink()) if path.is_symlink() else self.read(name)[0]
            if found != target:
                yield Difference("link", name, found, target)

    def _secrets(self, wanted: Deployed) -> Iterator[Difference]:
        for name, digest in wanted.digests.items():
            found = self.digest(name)
            is_mode, right = self._kind_of(self.at(name)), self._mark(SECRET_MODE)
            if found != digest or is_mode != right:
                marks = (
                    f"{is_mode}{'' if found == digest else ', other contents'}" if is_mode else "",
                    right,
                )
                yield Difference("secret", name, marks=marks)

    def _folders(self, wanted: Deployed) -> Iterator[Difference]:
        for name, mode in folders(wanted).items():
            found, right = self._kind_of(self.at(name)), f"folder, {self._mark(mode)}"
            if found != right:
                yield Difference("folder", name, marks=(found, right))

    def read(self, name: str) -> tuple[str, str]:
        """Return what a path is (empty: nothing) and its text, if it is a file."""
        path = self.at(name)
        mark = self._kind_of(path)
        return mark, path.read_text(errors="replace") if mark.startswith("mode") else ""

    def digest(self, name: str) -> str:
        """Return the digest of a secret; empty if there is no such file."""
        path = self.at(name)
        if path.is_symlink() or not path.is_file():
            return ""
        return hashlib.sha256(path.read_bytes()).hexdigest()

    def _mark(self, mode: int) -> str:
        return f"mode {mode:04o}, {_owner(*self.owner)}"

    def _kind_of(self, path: Path) -> str:
        try:
            found = path.lstat()
        except OSError:
            return ""
        mark = f"mode {stat.S_IMODE(found.st_mode):04o}, {_owner(found.st_uid, found.st_gid)}"
        if stat.S_ISREG(found.st_mode):
            return mark
        if stat.S_ISDIR(found.st_mode):
            return f"folder, {mark}"
        return f"a link to {path.readlink()}" if path.is_symlink() else "neither file nor folder"

    # ── the system ───────────────────────────────────────────────────────────────────────────

    def _accounts(self, wanted: Deployed) -> Iterator[Difference]:
        user = wanted.manifest.user
        if not user:
            return
        account = self.system.account(user)
        if account is None:
            yield Difference("account", f"user {user}", "not there\n", "there\n")
        elif account.shell != NOLOGIN:
            before, after = f"shell {account.shell}\n", f"shell {NOLOGIN}\n"
            yield Difference("account", f"user {user}", before, after)

    def _kernel(self, wanted: Deployed) -> Iterator[Difference]:
        for key, value in kernel_settings(wanted).items():
            found = self.system.kernel(key)
            if found is not None and found != value and key not in wanted.unsettable:
                yield Difference("kernel", key, f"{found}\n", f"{value}\n")

    def _units(self, wanted: Deployed) -> Iterator[Difference]:
        for unit in wanted.manifest.units:
            properties = self.system.show(unit)
            enabled = properties.get("UnitFileState") or "not there"
            active = properties.get("ActiveState", "unknown")
            if enabled != "enabled":
                yield Difference("enabled", unit, f"{enabled}\n", "enabled\n")
            if active != "active":
                yield Difference("active", unit, f"{active}\n", "active\n")

    def _state(self, wanted: Deployed) -> Iterator[Difference]:
        """Look at the state directory: systemd gives it back to the service when that starts."""
        account = self.system.account(wanted.manifest.user) if wanted.manifest.user else None
        for home in homes(wanted) if account else ():
            found = self._kind_of(self.at(home))
            right = f"folder, mode 0700, {_owner(account.uid, account.gid)}" if account else ""
            if found and found != right:
                yield Difference("state", home, marks=(found, right))

    def _table(self, wanted: Deployed) -> Iterator[Difference]:
        if not wanted.manifest.firewall:
            return
        found, name = self.system.table(), "the firewall's table as loaded"
        if not found:
            yield Difference("table", name, "", wanted.table or "as the file says\n")
        elif wanted.table and found != wanted.table:
            yield Difference("table", name, found, wanted.table)


def _owner(uid: int, gid: int) -> str:
    return "root" if (uid, gid) == (0, 0) else f"owner {uid}:{gid}"


def homes(wanted: Deployed) -> Sequence[str]:
    """Return the state directories: the homes of the accounts. Source: sysusers.d(5)."""
    texts = [
        text for name, (_, text) in wanted.contents.items() if name.startswith("/etc/sysusers.d/")
    ]
    return [home for text in texts for home in HOME.findall(text)]


def folders(wanted: Deployed) -> Mapping[str, int]:
    """Return the folders that a deploy makes, with their modes. Source: tmpfiles.d(5)."""
    found: dict[str, int] = {}
    for name, (_, text) in wanted.contents.items():
        if name.startswith("/etc/tmpfiles.d/"):
            found |= {path: int(mode, 8) for path, mode in FOLDER.findall(text)}
    return found


def kernel_settings(wanted: Deployed) -> Mapping[str, str]:
    """Return the kernel settings of a deploy. Source: sysctl.d(5)."""
    found: dict[str, str] = {}
    for name, (_, text) in wanted.contents.items():
        if name.startswith("/etc/sysctl.d/"):
            found |= dict(SETTING.findall(text))
    return found


def changes(old: Deployed | None, new: Deployed) -> set[str]:
    """Name every file, link and secret that two generations do not have in common."""
    if old is None:
        return {*new.contents, *new.digests, *new.links}
    found = {
        name for name in {*old.links, *new.links} if old.links.get(name) != new.links.get(name)
    }
    names = {*old.contents, *new.contents}
    found |= {name for name in names if old.contents.get(name) != new.contents.get(name)}
    names = {*old.digests, *new.digests}
    return found | {name for name in names if old.digests.get(name) != new.digests.get(name)}


# ── what is around, and stands in the way ───────────────────────────────────────────────────────────────────────


def surroundings(system: System, known_ways: Sequence[int]) -> dict[str, Any]:
    """Return who else listens for strangers on this host, and by which ports operators come in.

    A way in that was used once stays one as long as somebody listens there.
    """
    public = {
        each.port: each.who
        for each in system.listeners()
        if each.protocol == "tcp" and each.is_public and not OURS.fullmatch(each.unit)
    }
    came = system.way_in()
    way_in = came[0] if came else 0
    ways = {*(port for port in known_ways if port in public), *((way_in,) if way_in else ())}
    return {
        "way_in": way_in,
        "ways_in": sorted(ways),
        "web": {str(port): public[port] for port in WEB_PORTS if port in public},
        "public": {str(port): who for port, who in sorted(public.items())},
    }


def obstacles(wanted: Deployed, old: Deployed | None, live: Live) -> list[str]:
    """Return what this program will not touch, and without which the deploy cannot succeed."""
    return [
        *_taken_ports(wanted, old, live.system),
        *_foreign_groups(wanted, live.system),
        *_folders_in_the_way(wanted, live),
    ]


def _taken_ports(wanted: Deployed, old: Deployed | None, system: System) -> Iterator[str]:
    held = [each for each in system.listeners() if not _is_ours(each, wanted, old)]
    said = set()
    for protocol, address, port in wanted_ports(wanted):
        for each in held:
            if each.collides(protocol, address, port) and (protocol, port) not in said:
                said.add((protocol, port))
                yield (
                    f"port {port} ({protocol.upper()}) is taken by {each.who}: stop it, give one"
                    " of the two another port, or let it be the proxy in front"
                    " (docs/operations.md, Behind a reverse proxy)"
                )


def _folders_in_the_way(wanted: Deployed, live: Live) -> Iterator[str]:
    for name in (*wanted.contents, *wanted.links, *wanted.digests):
        path = live.at(name)
        if path.is_dir() and not path.is_symlink():
            yield f"{name} is a folder, and a file belongs there: move it away"


def _is_ours(listener: Listener, wanted: Deployed, old: Deployed | None) -> bool:
    units = {*wanted.manifest.units, *(old.manifest.units if old else ())}
    return listener.unit in units


def wanted_ports(wanted: Deployed) -> Iterator[tuple[str, str, int]]:
    """Return what the sockets of a deploy bind: protocol, address, port."""
    for unit in wanted.manifest.sockets:
        _, text = wanted.contents.get(f"{UNITS}{unit}", (0, ""))
        for kind, host, port in LISTEN.findall(text):
            yield KINDS[kind], str(ip_address(host.strip("[]"))), int(port)


def _foreign_groups(wanted: Deployed, system: System) -> Iterator[str]:
    user = wanted.manifest.user
    account = system.account(user) if user else None
    if account is not None and account.groups:
        names = ", ".join(account.groups)
        yield (
            f"the user {user} is in the groups {names}: take it out (gpasswd --delete {user}"
            f" {account.groups[0]}); groups that the service needs are named in headwater_groups"
        )
