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

from tests.nix.evaluation import HERE, NIXPKGS, ROOT, Box, evaluate, needs_nix
from tests.nix.parity import Site, differences
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
        "caFile": "/etc/ssl/hw-ca.pem",
    }
    found = box({}, node=json.dumps(node))
    assert found["failed"] == []
    assert found["client"] == {"SSL_CERT_FILE": "/etc/ssl/hw-ca.pem"}
    script = found["enrolment"]
    assert "/run/secrets/key" in script
    for flag in ("--login-server=https://hw.example.com", "--hostname=web-1"):
        assert flag in script


@pytest.mark.parametrize("story", STORIES)
def test_every_story_evaluates_in_the_test_framework(story: str) -> None:
    found = evaluate(HERE / "real" / "story.nix", nixpkgs=NIXPKGS, names=names(), story=story)
    result = cast("dict[str, Any]", found)
    assert result["failed"] == []
    assert f"from {story}.story import story" in result["script"]
    assert any("headwater.service" in units for units in result["units"].values())
