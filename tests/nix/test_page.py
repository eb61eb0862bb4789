"""docs/nixos.md: its Nix evaluates, and every command in it is run somewhere or cannot be."""

from __future__ import annotations

import fnmatch
import json
import re
import shutil
from pathlib import Path

import pytest
import yaml

from appliance.cli.root import run
from appliance.config import load
from appliance.deploy import plan
from tests.nix.evaluation import ROOT, Box, box, needs_nix

PAGE = (ROOT / "docs" / "nixos.md").read_text()
BLOCKS = re.findall(r"^```(\w+)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
MODULES = [text for kind, text in BLOCKS if kind == "nix" and "outputs =" not in text]
COMMANDS = [line for kind, text in BLOCKS if kind == "sh" for line in text.splitlines()]

ELSEWHERE = {
    "sudo headwater users create": "vm-tests/two_nodes",
    "sudo headwater preauthkeys create": "vm-tests/two_nodes",
    "systemctl reload headwater": "vm-tests/restarts",
    "systemctl restart headwater": "vm-tests/restarts",
}
"""Commands that a story runs on a machine; the verbs, not the letters."""
NEVER_HERE = (
    "sudo nixos-rebuild",
    "nix run github:nix-community/nixos-anywhere",
    "sudo tailscale login",
    "nix flake init -t github:example/headwater",
    "nix build .#",
    "podman load --input result",
    "nixos-rebuild build-image",
    "sudo systemctl start tailscaled-set",
)
"""They need a NixOS; the page says so."""
BY_SYSTEMD = ("systemctl stop headwater.service 'headwater*.socket'",)
"""What it stops is what there is: every unit of ours has a name that it matches."""


def evaluated(text: str, home: Path, site: str = "") -> Box:
    """Evaluate a block as it is printed, beside the site file that it may name."""
    (home / "site.toml").write_text(site or (ROOT / "examples" / "large.toml").read_text())
    (home / "page.nix").write_text(text)
    return box(more=home / "page.nix")


@needs_nix
@pytest.mark.parametrize("text", MODULES, ids=range(len(MODULES)))
def test_every_module_on_the_page_evaluates(text: str, tmp_path: Path) -> None:
    found = evaluated(text, tmp_path)
    assert found["units"]


@needs_nix
def test_the_first_server_on_the_page_opens_what_it_needs(tmp_path: Path) -> None:
    found = evaluated(MODULES[0], tmp_path)
    assert found["firewall"]["allowedTCPPorts"] == [443]
    assert found["firewall"]["allowedUDPPorts"] == [3478]


def test_every_command_on_the_page_is_accounted_for(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    shutil.copy(ROOT / "examples" / "large.toml", "site.toml")
    for line in COMMANDS:
        if line.startswith(NEVER_HERE):
            continue
        if line in BY_SYSTEMD:
            assert _stops_everything(line)
            continue
        story = next((s for start, s in ELSEWHERE.items() if line.startswith(start)), None)
        if story is not None:
            assert (ROOT / story / "story.py").exists(), line
            continue
        assert line.startswith("headwater "), f"nobody runs: {line}"
        assert run(line.split()[1:]) == 0, capsys.readouterr().err


def _stops_everything(line: str) -> bool:
    patterns = [word.strip("'") for word in line.split()[2:]]
    made = plan.make(load(ROOT / "examples" / "large.toml"))
    sockets = [f"{group.unit}.socket" for group in made.sockets]
    return all(
        any(fnmatch.fnmatch(unit, pattern) for pattern in patterns)
        for unit in ("headwater.service", *sockets)
    )


@needs_nix
def test_the_module_in_the_readme_evaluates(tmp_path: Path) -> None:
    """With the site file that stands above it there, as TOML."""
    readme = (ROOT / "README.md").read_text()
    [module] = re.findall(r"^```nix\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
    site = next(
        yaml.safe_load(text)
        for text in re.findall(r"^```yaml\n(.*?)^```$", readme, re.DOTALL | re.MULTILINE)
        if "server_url" in text
    )
    plain = {name: value for name, value in site.items() if not isinstance(value, dict)}
    lines = [f"{name} = {json.dumps(value)}" for name, value in plain.items()]
    for section, values in site.items():
        if section not in plain:
            lines.append(f"[{section}]")
            lines += [f"{name} = {json.dumps(value)}" for name, value in values.items()]
    found = evaluated(module, tmp_path, "\n".join(lines) + "\n")
    assert found["settings"]["server_url"] == site["server_url"]
    assert found["firewall"]["allowedTCPPorts"] == [443]
