"""The machines of this story: one that Ansible makes a server, two nodes that talk all the while."""

from __future__ import annotations

from driver import ansible
from driver.spec import Spec

from ansible_upgrade.story import BROKEN, MOVED, NEWER, OLDER

MACHINES = {
    "server": Spec(),
    "laptop": Spec(roles=("client",)),
    "desktop": Spec(roles=("client",)),
}
LIMIT_S = 600


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Install Ansible, build the releases."""
    ansible.ahead(OLDER, NEWER, BROKEN, MOVED)
