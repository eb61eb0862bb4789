"""What a story says about a machine of ours: its system, its networks, what is put into it.

Not for doing any of it. The NixOS counterpart is the `nodes` of a story's `default.nix`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Literal

BOOKWORM = "bookworm"
TRIXIE = "trixie"
SUITES = (BOOKWORM, TRIXIE)


@dataclass(frozen=True, slots=True)
class Spec:
    """One machine."""

    suite: str = TRIXIE
    extra: tuple[str, ...] = ()
    """Packages besides those that every image has."""
    bare: bool = False
    """Whether it has nothing beyond a system that boots: no Python, no certificates, no nftables."""
    roles: tuple[Literal["server", "client", "tailscaled", "archive"], ...] = ()
    """What is installed on it before it boots: our server (without Ansible), a stock client, the
    client's own service and command, or an archive from which its apt installs."""
    vlans: tuple[int, ...] = (1,)
    """The networks that it is plugged into, in the order of its interfaces eth1, eth2, …"""
    kind: Literal["container", "emulated"] = "container"
    via: str = ""
    """The machine that is its default route."""
    files: Mapping[str, str] = field(default_factory=dict)
    """Files that are there before it boots."""
    script: str = ""
    """Shell commands in its file system before it boots, such as enabling units."""
    memory_mb: int = 1024
    """Of an emulated machine."""
