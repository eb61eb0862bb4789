"""The machines of this story under our driver; `default.nix` says the same for NixOS."""

from __future__ import annotations

from driver.server import box
from driver.spec import Spec

MACHINES = {
    "server": box(__file__),
    "laptop": Spec(roles=("client",)),
    "desktop": Spec(roles=("client",)),
    "phone": Spec(roles=("client",)),
}
