"""The machines of this story under our driver; `default.nix` says the same for NixOS."""

from __future__ import annotations

from driver.authority import TRUST, Authority
from driver.server import box
from driver.spec import Spec

authority = Authority()
MESH_KEY = {"/etc/headwater/secrets/mesh.key": "5e" * 32 + "\n"}

MACHINES = {
    "server": box(__file__, files=authority.issue("server"), script=TRUST),
    **{
        name: box(
            __file__,
            site=f"{name}.json",
            role="relay",
            files={**authority.issue(name), **MESH_KEY},
            script=TRUST,
        )
        for name in ("relay1", "relay2")
    },
    "laptop": Spec(roles=("client",), files=authority.files, script=TRUST),
    "desktop": Spec(roles=("client",), files=authority.files, script=TRUST),
}
