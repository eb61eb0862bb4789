"""The machines of this story: a server, and a Debian 12 and a Debian 13 that enrol."""

from __future__ import annotations

from driver import ansible, releases
from driver.server import box
from driver.spec import BOOKWORM, Spec

MACHINES = {
    "server": box(__file__),
    "node12": Spec(suite=BOOKWORM, roles=("tailscaled",)),
    "relay": Spec(),
    "node13": Spec(roles=("tailscaled",)),
}


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Install Ansible, build the release for the relay."""
    ansible.ahead(releases.current())
