"""The machines of this story: what the NixOS module evaluates to, on a real systemd."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

from driver.spec import Spec

from appliance.deploy import facts
from tests.nix import evaluation

SITE = json.loads((Path(__file__).parent.parent / "two_nodes" / "site.json").read_text())

# Where the evaluation without nixpkgs says that packages are.
STORE = "/nix/store/00000000000000000000000000000000-"
PACKAGE = STORE + "headwater"


def NEEDS() -> str:  # noqa: N802  # the driver looks for this name
    """Say why it cannot run here."""
    if shutil.which("nix-instantiate") is None:
        return "no nix-instantiate here (Debian: nix-bin); the NixOS unit is not started"
    return ""


def _box() -> Spec:
    """Put units, settings and user where a NixOS machine has them."""
    made = evaluation.box({"enable": True, "openFirewall": True, "settings": SITE})
    units: dict[str, str] = made["units"]
    user: dict[str, Any] = made["users"]["users"][facts.USER]
    assert user["isSystemUser"]
    files = {f"{facts.UNIT_DIR}/{name}": text for name, text in units.items()}
    files[f"{facts.CONFIG_DIR}/config.json"] = json.dumps(made["settings"])
    wanted = " ".join(name for name, text in units.items() if "WantedBy=" in text)
    script = f"""
        mkdir -p {PACKAGE} {STORE}systemd {STORE}coreutils
        ln -s /opt/headwater/current/bin {PACKAGE}/bin
        ln -s /usr/bin {STORE}systemd/bin
        ln -s /usr/bin {STORE}coreutils/bin
        groupadd --system {user["group"]}
        useradd --system --gid {user["group"]} --home-dir {user["home"]} {facts.USER}
        systemctl enable --quiet {wanted}
        """
    return Spec(roles=("server",), files=files, script=script)


MACHINES = (
    {}
    if NEEDS()
    else {
        "server": _box(),
        "laptop": Spec(roles=("client",)),
        "desktop": Spec(roles=("client",)),
    }
)
