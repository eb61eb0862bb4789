"""The machines of this story: a server, and a Debian 12 and a Debian 13 that enrol."""

from __future__ import annotations

from driver import ansible
from driver.server import box
from driver.spec import BOOKWORM, Spec

MACHINES = {
    "server": box(__file__),
    "node12": Spec(suite=BOOKWORM, roles=("tailscaled",)),
    "node13": Spec(roles=("tailscaled",)),
}
AHEAD = ansible.ahead
