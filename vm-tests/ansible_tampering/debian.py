"""The machine of this story, which is about Debian alone."""

from __future__ import annotations

from driver import ansible, releases
from driver.spec import TRIXIE, Spec

from ansible_tampering.story import COUNT

MACHINES = {"server": Spec()}
LIMIT_S = 300 + 120 * COUNT


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Install Ansible, build the release."""
    ansible.ahead(releases.current(TRIXIE))
