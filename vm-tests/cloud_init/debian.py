"""The machine of this story: a Debian as clouds hand it over, with cloud-init."""

from __future__ import annotations

from driver import releases
from driver.spec import TRIXIE, Spec

MACHINES = {
    "hw.example.com": Spec(
        suite=TRIXIE, bare=True, extra=("cloud-init", "curl"), roles=("archive",)
    ),
}
LIMIT_S = 480


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Build the release."""
    releases.current(TRIXIE).whole()
