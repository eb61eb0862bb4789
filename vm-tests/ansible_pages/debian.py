"""The machines of this story: two hosts, and two machines that enrol."""

from __future__ import annotations

from driver import ansible
from driver.spec import Spec

from ansible_pages.story import DESKTOP, HOST, LAPTOP, VPS

MACHINES = {
    HOST: Spec(),
    VPS: Spec(bare=True, roles=("archive",)),
    LAPTOP: Spec(roles=("tailscaled",)),
    DESKTOP: Spec(roles=("tailscaled",)),
}
LIMIT_S = 900


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Fetch what the pages' own commands would fetch: there is no network later."""
    ansible.ahead()
    ansible.make("release", ".venv/run.stamp")
