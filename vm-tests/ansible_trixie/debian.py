"""The machines of this story, which is about Debian alone."""

from __future__ import annotations

from driver import ansible, releases
from driver.spec import TRIXIE, Spec

MACHINES = {"server": Spec(suite=TRIXIE)}
LIMIT_S = 480


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Install Ansible, build the release."""
    ansible.ahead(releases.current(TRIXIE))
