"""One site file, two provisioners, one box: for every example, and shown to notice a difference."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.nix.evaluation import LIBRARIES, ROOT, needs_nix
from tests.nix.parity import Site, differences
from tests.support.examples import SITES

pytestmark = needs_nix


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
@pytest.mark.parametrize("path", SITES, ids=lambda path: path.name)
def test_both_provisioners_make_the_same_box(path: Path, nixpkgs: str) -> None:
    site = Site.of(path)
    assert differences(site.nixos(nixpkgs=nixpkgs), site.debian()) == []


def test_groups_reach_both_units() -> None:
    site = Site.of(ROOT / "examples" / "minimal.yaml")
    nixos = site.nixos(supplementaryGroups=["acme"])
    assert differences(nixos, site.debian(groups=("acme",))) == []


@pytest.mark.parametrize(
    ("deviation", "place"),
    [
        (
            "systemd.services.headwater.serviceConfig.ProtectHome = lib.mkForce false;",
            "ProtectHome",
        ),
        ("systemd.services.headwater.serviceConfig.LimitNOFILE = lib.mkForce 1024;", "LimitNOFILE"),
        ("systemd.sockets.headwater.socketConfig.Backlog = lib.mkForce 1;", "Backlog"),
        ('systemd.sockets.more.listenStreams = [ "1" ];', "more.socket: only on NixOS"),
        ("networking.firewall.allowedTCPPorts = [ 25 ];", "TCP ports"),
        ('users.users.mallory.group = "headwater";', "users"),
        ('services.headwater.settings.log.level = lib.mkForce "debug";', "settings"),
        ('boot.kernel.sysctl."net.core.somaxconn" = 1;', "sysctl"),
    ],
)
def test_a_difference_on_the_side_of_nixos_is_noticed(
    tmp_path: Path, deviation: str, place: str
) -> None:
    site = Site.of(ROOT / "examples" / "minimal.yaml")
    module = tmp_path / "deviation.nix"
    module.write_text(f"{{ lib, ... }}: {{ {deviation} }}\n")
    found = differences(site.nixos(more=module), site.debian())
    assert len(found) == 1
    assert place in found[0]


def test_a_difference_on_the_side_of_debian_is_noticed() -> None:
    site = Site.of(ROOT / "examples" / "minimal.yaml")
    nixos = site.nixos()
    assert differences(nixos, site.debian(groups=("adm",))) == [
        "headwater.service [Service] SupplementaryGroups: NixOS None, Debian ['adm']"
    ]
    box = site.debian()
    unit = "/etc/systemd/system/headwater.service"
    changed = box.files[unit].text.replace("PrivateDevices=yes\n", "")
    box.files[unit] = type(box.files[unit])(changed)
    assert differences(nixos, box) == [
        "headwater.service [Service] PrivateDevices: NixOS ['yes'], Debian None"
    ]
