"""The machines of this story: a host with an sshd, as operators reach it."""

from __future__ import annotations

import shutil

from driver import ansible, releases, ssh
from driver.spec import TRIXIE, Spec

MACHINES = {"server": Spec(extra=ssh.PACKAGES)}
LIMIT_S = 480


def NEEDS() -> str:  # noqa: N802  # the driver looks for this name
    """Say what is missing here."""
    return "" if shutil.which("ssh") else "no ssh (Debian: openssh-client)"


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Install Ansible, build the release."""
    ansible.ahead(releases.current(TRIXIE))
