"""The machines of this story under our driver; `default.nix` says the same for NixOS."""

from __future__ import annotations

from pathlib import Path

from driver.authority import TRUST, Authority
from driver.server import box
from driver.spec import Spec

HERE = Path(__file__).parent
PLACES = {"certificate": "/etc/story/fullchain.pem", "key": "/etc/story/key.pem"}

authority = Authority()

MACHINES = {
    "front": Spec(
        extra=("nginx-light", "caddy"),
        files={
            **authority.issue("front", **PLACES),
            "/etc/nginx/conf.d/headwater.conf": (HERE / "nginx.conf").read_text(),
            "/etc/caddy/Caddyfile": (HERE / "Caddyfile").read_text(),
        },
        # The story starts one after the other; both want the same port.
        script="systemctl disable --quiet nginx caddy; chmod 0644 /etc/story/*",
    ),
    "server": box(__file__),
    "laptop": Spec(roles=("client",), files=authority.files, script=TRUST),
    "desktop": Spec(roles=("client",), files=authority.files, script=TRUST),
}
