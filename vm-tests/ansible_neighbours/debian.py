"""The machines of this story: a host on which others live already, and somebody who uses them."""

from __future__ import annotations

from pathlib import Path

from driver import ansible, releases
from driver.authority import TRUST, Authority
from driver.spec import TRIXIE, Spec

from ansible_neighbours.story import CERTIFICATES, NAME, OTHER_NAME

HERE = Path(__file__).parent

authority = Authority()


def pair(name: str, host: str) -> dict[str, str]:
    """Issue a certificate for a host, below the story's folder."""
    places = {"certificate": f"{CERTIFICATES}/{name}.crt", "key": f"{CERTIFICATES}/{name}.key"}
    return authority.issue(host, **places)


MACHINES = {
    NAME: Spec(
        extra=("nginx-light",),
        files={
            **pair("good", NAME),
            **pair("other", OTHER_NAME),
            "/etc/nginx/conf.d/story.conf": (HERE / "nginx.conf").read_text(),
        },
        script=f"rm /etc/nginx/sites-enabled/default; {TRUST}",
    ),
    "stranger": Spec(files=authority.files, script=TRUST),
}
LIMIT_S = 900


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Install Ansible, build the release."""
    ansible.ahead(releases.current(TRIXIE))
