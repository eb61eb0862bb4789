"""The machines of this story under our driver; `default.nix` says the same for NixOS."""

from __future__ import annotations

from driver import emulated
from driver.server import box
from driver.spec import Spec

LIMIT_S = 600
NEEDS = emulated.missing

MACHINES = {
    "server": box(
        __file__,
        kind="emulated",
        extra=("linux-image-cloud-amd64", "busybox-static", "kmod"),
        memory_mb=1024,
    ),
    "laptop": Spec(roles=("client",)),
    "desktop": Spec(roles=("client",)),
}
