"""The machines of this story: a host on which others live already, and somebody who uses them."""

from __future__ import annotations

from pathlib import Path

from driver import ansible, releases
from driver.authority import TRUST, Authority
from driver.spec import TRIXIE, Spec

from ansible_neighbours.story import CERTIFICATES, NAME

HERE = Path(__file__).parent

authority = Authority()


PLACES = {"certificate": f"{CERTIFICATES}/good.crt", "key": f"{CERTIFICATES}/good.key"}

MACHINES = {
    NAME: Spec(
        extra=("nginx-light",),
        files={
            **authority.issue(NAME, **PLACES),
            "/etc/nginx/conf.d/story.conf": (HERE / "nginx.conf").read_text(),
        },
        script=f"rm /etc/nginx/sites-enabled/default; {TRUST}",
    ),
    "stranger": Spec(files=authority.files, script=TRUST),
}
LIMIT_S = 600


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Install Ansible, build the release."""
    ansible.ahead(releases.current(TRIXIE))
