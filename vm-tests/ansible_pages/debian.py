"""The machines of this story: a host, and a machine that enrols with it."""

from __future__ import annotations

from driver import ansible
from driver.spec import Spec

from ansible_pages.story import HOST

MACHINES = {HOST: Spec(), "node": Spec(roles=("tailscaled",))}
LIMIT_S = 600


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Fetch what the pages' own commands would fetch: there is no network later."""
    ansible.ahead()
    ansible.make("release", ".venv/run.stamp")
