"""Ansible on Debian 12: from nothing and to nothing; what lies between is told on Debian 13."""

from __future__ import annotations

from ansible_trixie.story import Host
from driver.face import Machines


def story(machines: Machines) -> None:
    """Look, install, look again, uninstall."""
    host = Host(machines)
    host.from_nothing()
    host.to_nothing()
