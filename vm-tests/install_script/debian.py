"""The machines of this story: two hosts as their provider hands them over, and a first node."""

from __future__ import annotations

from driver import releases
from driver.spec import BOOKWORM, TRIXIE, Spec

MACHINES = {
    "debian12": Spec(suite=BOOKWORM, bare=True, roles=("archive",)),
    "debian13": Spec(suite=TRIXIE, bare=True, roles=("archive",)),
    "node": Spec(roles=("tailscaled",)),
}
LIMIT_S = 900


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Build the release for both."""
    for suite in (BOOKWORM, TRIXIE):
        releases.current(suite).whole()
