"""The machine of this story, with certificates that an authority of the story's own has issued."""

from __future__ import annotations

from driver import ansible, releases
from driver.authority import TRUST, Authority
from driver.spec import TRIXIE, Spec

from ansible_secrets.story import CERTIFICATES, NAME, OTHER_NAME

authority = Authority()


def pair(name: str, host: str) -> dict[str, str]:
    """Issue a certificate for a host, below the story's folder."""
    places = {"certificate": f"{CERTIFICATES}/{name}.crt", "key": f"{CERTIFICATES}/{name}.key"}
    return authority.issue(host, **places)


MACHINES = {NAME: Spec(files={**pair("good", NAME), **pair("other", OTHER_NAME)}, script=TRUST)}
LIMIT_S = 600


def AHEAD() -> None:  # noqa: N802  # the driver looks for this name
    """Install Ansible, build the release."""
    ansible.ahead(releases.current(TRIXIE))
