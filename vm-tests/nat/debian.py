"""The machines of this story under our driver; `default.nix` says the same for NixOS."""

from __future__ import annotations

from driver.server import box
from driver.spec import Spec

MACHINES = {
    "server": box(__file__),
    "home": Spec(vlans=(1, 2)),
    "office": Spec(vlans=(1, 3)),
    "hotel": Spec(vlans=(1, 4)),
    "laptop": Spec(roles=("client",), vlans=(2,), via="home"),
    "desktop": Spec(roles=("client",), vlans=(3,), via="office"),
    "phone": Spec(roles=("client",), vlans=(4,), via="hotel"),
}
