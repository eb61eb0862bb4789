"""What people are told in a container, where the way out is another than on a host.

It changes no behaviour. Not for the images themselves (``deploy/facts.py``, docs/images.md).
Source of the variable: systemd's container interface; our images set it, and podman does.
"""

from __future__ import annotations

import os

VARIABLE = "container"


def is_container() -> bool:
    """Return whether this process is the one that a container is for."""
    return bool(os.environ.get(VARIABLE))


def advice_on_missing_file(otherwise: str) -> str:
    """Return advice on how a site file comes in."""
    if not is_container():
        return otherwise
    return (
        "mount yours: -v ./config.yaml:/etc/headwater/config.yaml:ro, readable for user"
        f" {os.geteuid()} (docs/images.md)"
    )


def advice_on_folder(otherwise: str) -> str:
    """Return the reason why there is a folder where the site file should be."""
    if not is_container():
        return otherwise
    return (
        "Docker makes a folder where it is told to mount a file that is not there: remove the folder"
        " on the host, write the file, and make the container anew"
    )


def advice_on_ports(otherwise: str) -> str:
    """Return advice on how a container listens below 1024 without a capability."""
    if not is_container():
        return otherwise
    return (
        "start the container with --sysctl net.ipv4.ip_unprivileged_port_start=0, or listen above"
        " 1023 and publish that port (docs/images.md)"
    )


def advice_on_volume() -> str:
    """Return advice on how a volume becomes ours; nothing outside of a container."""
    if not is_container():
        return ""
    user = os.geteuid()
    return (
        f"give the volume to the container's user: chown -R {user}:{os.getegid()} on the host,"
        " or podman's :U at the end of -v (docs/images.md)"
    )
