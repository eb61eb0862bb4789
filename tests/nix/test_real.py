"""The modules, the hosts and the stories inside NixOS's own module tree and test framework.

Needs a nixpkgs checkout, or a folder with its ``lib/`` and ``nixos/``, named by HEADWATER_NIXPKGS.
Evaluation only: nothing is built.
"""

from __future__ import annotations

import functools
import json
import re
from pathlib import Path
from typing import Any, cast

import pytest

from tests.deploy.unitfile import parse
from tests.nix.evaluation import HERE, NIXPKGS, ROOT, Box, evaluate, evaluate_whole, needs_nix
from tests.nix.parity import Site, differences
from tests.nix.test_page import MODULES
from tests.support.examples import SITES

pytestmark = [
    needs_nix,
    pytest.mark.skipif(
        not (Path(NIXPKGS) / "nixos" / "lib").is_dir() or not NIXPKGS,
        reason="HEADWATER_NIXPKGS names no nixpkgs checkout: the NixOS module and the stories are"
        " not evaluated in NixOS's own tree",
    ),
]

STORIES = sorted(path.parent.name for path in (ROOT / "vm-tests").glob("*/default.nix"))


@functools.cache
def names() -> str:
    """Name every package that the tree mentions, for the stand-in of pkgs."""
    found: set[str] = set()
    for file in (Path(NIXPKGS) / "nixos").rglob("*.nix"):
        text = file.read_text(errors="replace")
        found.update(re.findall(r"\bpkgs\.([A-Za-z_][\w'-]*)", text))
        found.update(re.findall(r'mkPackageOption pkgs "([\w-]+)"', text))
    return json.dumps(sorted(found))


def box(definition: dict[str, object], **more: str) -> Box:
    found = evaluate(
        HERE / "real" / "box.nix",
        nixpkgs=NIXPKGS,
        names=names(),
        definition=json.dumps(definition),
        **more,
    )
    return Box(cast("dict[str, Any]", found))


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.name)
def test_every_example_is_the_same_box_in_the_real_tree(path: Path) -> None:
    site = Site.of(path)
    assert differences(box(site.definition()), site.debian()) == []


@pytest.mark.parametrize("host", ["vps", "metal"])
def test_the_example_hosts_evaluate(host: str) -> None:
    found = box({}, host=str(ROOT / "nix" / "hosts" / f"{host}.nix"))
    assert found["failed"] == []
    assert "headwater.service" in found["units"]
    assert ("headwater-relay.service" in found["units"]) == (host == "metal")
    assert ("switch --rollback" in found["upgrade"]) == (host == "metal")
    assert set(found["firewall"]["allowedTCPPorts"]) >= {22, 80, 443}


@pytest.mark.skipif(
    bool(NIXPKGS) and not (Path(NIXPKGS) / "pkgs" / "top-level").is_dir(),
    reason="HEADWATER_NIXPKGS has no packages: derivations of package and images are not made",
)
@pytest.mark.parametrize("host", ["vps", "metal"])
def test_what_nobody_built_has_its_derivation(host: str) -> None:
    """Package, container image, a whole host and the images of one, down to the last dependency."""
    found = evaluate_whole(
        HERE / "real" / "images.nix",
        nixpkgs=NIXPKGS,
        host=str(ROOT / "nix" / "hosts" / f"{host}.nix"),
    )
    made = cast("dict[str, Any]", found)
    assert re.search(r"-headwater-[\d.]+\.drv$", made["headwater"])
    assert re.search(r"-headwater\.tar\.gz\.drv$", made["oci"])
    assert re.search(rf"-nixos-system-headwater-{host}-.*\.drv$", made["toplevel"])
    assert set(made["images"]) == {"iso", "qcow2", "qcow2-efi", "raw", "raw-efi"}
    assert len(set(made["images"].values())) == 5
    assert all(path.endswith(".drv") for path in made["images"].values())


def test_a_wrong_setting_fails_in_the_real_tree_too() -> None:
    site = Site.of(ROOT / "examples" / "minimal.yaml")
    wrong = {**site.document, "state_dir": "/srv/headwater"}
    found = box({**site.definition(), "settings": wrong})
    assert len(found["failed"]) == 1
    assert "services.headwater.settings.state_dir: found" in found["failed"][0]


def test_a_node_enrols_by_the_tree_s_own_service() -> None:
    node = {
        "enable": True,
        "serverUrl": "https://hw.example.com",
        "authKeyFile": "/run/secrets/key",
        "hostname": "web-1",
        "routes": ["10.0.0.0/8"],
        "caFile": "/etc/ssl/hw-ca.pem",
    }
    found = box({}, node=json.dumps(node))
    assert found["failed"] == []
    assert found["client"] == {"SSL_CERT_FILE": "/etc/ssl/hw-ca.pem"}
    script = found["enrolment"]
    assert "/run/secrets/key" in script
    assert "--advertise-routes=10.0.0.0/8" in found["setting"]
    for flag in ("--login-server=https://hw.example.com", "--hostname=web-1"):
        assert flag in script


def test_a_node_without_a_key_is_set_up_and_not_enrolled() -> None:
    node = {"enable": True, "serverUrl": "https://hw.example.com", "authKeyFile": None}
    found = box({}, node=json.dumps(node))
    assert found["failed"] == []
    assert found["enrolment"] == ""
    assert "--hostname=" in found["setting"]


def test_a_certificate_and_a_database_of_the_tree_s_own_modules(tmp_path: Path) -> None:
    """The paths, the group and the units are the ones that NixOS has, not the ones that we think."""
    module = tmp_path / "user.nix"
    module.write_text(
        """{
          services.headwater = {
            enable = true;
            useACMEHost = "hw.example.com";
            settings = {
              server_url = "https://hw.example.com";
              tailnet.base_domain = "tailnet.example.net";
              database_url = "postgresql:///headwater?host=/run/postgresql";
            };
          };
          services.postgresql.enable = true;
          security.acme = {
            acceptTerms = true;
            defaults.email = "admin@example.com";
            certs."hw.example.com" = { dnsProvider = "rfc2136"; environmentFile = "/run/k"; };
          };
          systemd.services.headwater.serviceConfig.MemoryMax = "2G";
        }"""
    )
    found = box({}, more=str(module))
    assert found["failed"] == []
    unit = parse(found["units"]["headwater.service"])
    after = " ".join(unit["Unit", "After"]).split()
    assert {"acme-hw.example.com.service", "postgresql.service"} <= set(after)
    assert {"acme-hw.example.com.service"} <= set(found["services"])
    assert unit["Service", "SupplementaryGroups"] == ["acme"]
    assert unit["Service", "MemoryMax"] == ["2G"]
    assert found["settings"]["tls"]["key_file"] == "/var/lib/acme/hw.example.com/key.pem"


MODULES_OF_THE_PAGE = [text for text in MODULES if "importTOML" not in text]


@pytest.mark.parametrize("text", MODULES_OF_THE_PAGE, ids=range(len(MODULES_OF_THE_PAGE)))
def test_every_module_on_the_page_is_right_in_the_real_tree(text: str, tmp_path: Path) -> None:
    module = tmp_path / "page.nix"
    module.write_text(text)
    assert box({}, more=str(module))["failed"] == []


@pytest.mark.parametrize("story", STORIES)
def test_every_story_evaluates_in_the_test_framework(story: str) -> None:
    found = evaluate(HERE / "real" / "story.nix", nixpkgs=NIXPKGS, names=names(), story=story)
    result = cast("dict[str, Any]", found)
    assert result["failed"] == []
    assert f"from {story}.story import story" in result["script"]
    assert any("headwater.service" in units for units in result["units"].values())
