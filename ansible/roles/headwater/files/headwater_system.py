"""The host's system, as ``headwater-release`` asks it: systemd, the kernel, nftables, accounts.

Beside it in /opt/headwater. Not for deciding anything. Needs only the system's own Python.
"""

from __future__ import annotations

import grp
import pwd
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from headwater_ports import Listener, listeners, read_connection, way_in
from headwater_state import JOURNAL_LINES, Account, ask

NOLOGIN = "/usr/sbin/nologin"
TABLE = ("inet", "headwater")
KERNEL = Path("/proc/sys")


class System:
    """What is asked of this host."""

    def __init__(self, connection: str = "") -> None:
        self._connection = connection
        """SSH_CONNECTION of whoever asks, if they had to say it themselves."""

    def run(self, *arguments: str) -> str:
        """Run systemctl; what it complains about shows in the units' state."""
        return ask(["systemctl", *arguments]) or ""

    def show(self, unit: str) -> dict[str, str]:
        """Return a unit's properties."""
        names = "ActiveState,MainPID,ExecMainPID,UnitFileState"
        said = ask(["systemctl", "show", f"--property={names}", unit]) or ""
        lines = said.splitlines()
        return dict(line.split("=", 1) for line in lines if "=" in line)

    def journal(self, units: Sequence[str], since: float) -> list[str]:
        """Return the last lines of some units."""
        which = [f"--unit={unit}" for unit in units]
        command = ["journalctl", "--no-pager", "--quiet", "--output=cat"]
        command.append(f"--lines={JOURNAL_LINES}")
        said = ask([*command, f"--since=@{int(since)}", *which]) or ""
        return said.splitlines()

    def table(self) -> str:
        """Return our table as the kernel has it; empty if it is not loaded."""
        return ask(["/usr/sbin/nft", "--stateless", "list", "table", *TABLE]) or ""

    def check_table(self, path: Path) -> str:
        """Return what nft finds wrong with a file; empty if it could be loaded."""
        command = ["/usr/sbin/nft", "--check", "--file", str(path)]
        try:
            done = subprocess.run(command, capture_output=True, text=True, check=False, timeout=60)
        except (OSError, subprocess.TimeoutExpired) as error:
            return str(error)
        return done.stderr.strip() if done.returncode else ""

    def drop_table(self) -> None:
        """Remove our table."""
        ask(["/usr/sbin/nft", "delete", "table", *TABLE])

    def kernel(self, key: str) -> str | None:
        """Return a kernel setting; None if this host does not have it."""
        try:
            return " ".join((KERNEL / key.replace(".", "/")).read_text().split())
        except OSError:
            return None

    def set_kernel(self, settings: Mapping[str, str]) -> None:
        """Set kernel settings, those that can be set here."""
        for key, value in settings.items():
            try:
                (KERNEL / key.replace(".", "/")).write_text(value)
            except OSError:
                continue

    def account(self, name: str) -> Account | None:
        """Return a user, or None if there is no such user or its group is gone."""
        try:
            user, group = pwd.getpwnam(name), grp.getgrnam(name)
        except KeyError:
            return None
        if user.pw_gid != group.gr_gid:
            return None
        others = tuple(sorted(each.gr_name for each in grp.getgrall() if name in each.gr_mem))
        return Account(user.pw_uid, user.pw_gid, user.pw_shell, others)

    def make_accounts(self, user: str) -> None:
        """Make the user and its group as sysusers.d says, and take a login shell away from it."""
        ask(["systemd-sysusers"])
        account = self.account(user) if user else None
        if account is not None and account.shell != NOLOGIN:
            ask(["usermod", "--shell", NOLOGIN, user])

    def listeners(self) -> list[Listener]:
        """Return who listens on which ports; of systemd's sockets, the unit that describes them."""
        said = ask(["systemctl", "list-sockets", "--all", "--full", "--no-legend", "--show-types"])
        rows = [line.split() for line in (said or "").splitlines()]
        kinds = {"Stream": "tcp", "Datagram": "udp"}
        units = {(kinds.get(row[1]), row[0]): row[2] for row in rows if len(row) > 2}
        return [
            replace(each, unit=units.get((each.protocol, each.endpoint), ""))
            if each.pid == 1
            else each
            for each in listeners()
        ]

    def way_in(self) -> tuple[int, str] | None:
        """Return the port by which whoever runs this came in by ssh, and the other end."""
        return read_connection(self._connection) or way_in()
