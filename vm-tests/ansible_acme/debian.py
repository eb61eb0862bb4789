"""The machines of this story: one that Ansible makes a server, and an authority."""

from __future__ import annotations

from driver import ansible
from driver.spec import Spec

from ansible_acme.story import NEWER, OLDER
from tests.support import pebble

MACHINES = {"authority": Spec(), "server": Spec()}
LIMIT_S = 480


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Install Ansible, build the releases and the authority."""
    ansible.ahead(OLDER, NEWER)
    pebble.programs()
