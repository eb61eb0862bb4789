"""The machines of `two_nodes` on Debian 12: Python 3.11, systemd 252, where reloads are our signal."""

from __future__ import annotations

from driver.server import box
from driver.spec import BOOKWORM, Spec
from two_nodes import debian

MACHINES = {
    "server": box(debian.__file__, suite=BOOKWORM),
    "laptop": Spec(suite=BOOKWORM, roles=("client",)),
    "desktop": Spec(suite=BOOKWORM, roles=("client",)),
}
