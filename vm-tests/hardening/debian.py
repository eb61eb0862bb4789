"""The machines of this story under our driver; `default.nix` says the same for NixOS."""

from __future__ import annotations

from driver.server import box
from driver.spec import BOOKWORM, Spec

MACHINES = {
    "server": box(__file__),
    # The oldest systemd that there is a unit for.
    "older": box(__file__, suite=BOOKWORM, site="older.json"),
    "laptop": Spec(roles=("client",)),
    "desktop": Spec(roles=("client",)),
}
