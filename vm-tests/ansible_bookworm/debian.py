"""The machines of this story, which is about Debian alone."""

from __future__ import annotations

from driver import ansible, releases
from driver.spec import BOOKWORM, Spec

MACHINES = {"server": Spec(suite=BOOKWORM)}
LIMIT_S = 480


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Install Ansible, build the release."""
    ansible.ahead(releases.current(BOOKWORM))
