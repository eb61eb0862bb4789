"""The machines of this story: a host as its provider hands it over, with apt and no IPv4."""

from __future__ import annotations

from driver import ansible, releases
from driver.spec import Spec

MACHINES = {"server": Spec(bare=True, roles=("archive",))}
LIMIT_S = 900


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Install Ansible, build the release with its collection."""
    ansible.ahead()
    releases.current().whole()
