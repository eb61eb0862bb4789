"""Compares what NixOS evaluates to with what the Ansible role puts on a machine, for one site.

What may differ is named here, with its reason; everything else is a difference.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from appliance.config import build, read_document
from appliance.deploy import facts, plan
from appliance.deploy.render import Rendered, render
from appliance.deploy.units import Host
from tests.deploy.unitfile import Unit, parse
from tests.nix.evaluation import Box, unchecked

PROGRAM = "/nix/store/00000000000000000000000000000000-headwater/bin/headwater"
CONFIG = "/etc/headwater/config.json"
SYSTEMD = 257

ONLY_ON_DEBIAN = frozenset({f"{facts.FIREWALL_UNIT}.service"})
"""NixOS has a firewall of its own; which ports are open is compared."""
ONLY_ON_NIXOS = frozenset({"headwater-sockets.service"})
"""How NixOS gets changed sockets restarted; Ansible does it itself."""
OF_THE_PLATFORM = frozenset({"Environment"})
"""NixOS gives every service a PATH, the locale archive and the time zones: its Python needs them.
Besides, X-… directives, which no systemd reads: how a provisioner decides what to restart."""
_PROGRAM = re.compile(r"^/nix/store/[0-9a-z]{32}-headwater[^/]*/bin/headwater ")


class Site:
    """A site file as both provisioners see it."""

    def __init__(self, path: Path, *, role: plan.Role = "server") -> None:
        self.document: Any = read_document(path)
        self.settings = build(self.document)
        self.role: plan.Role = role
        names = sorted(plan.credential_names(self.settings))
        self.secrets = {name: f"/run/secrets/{name}" for name in names}

    @classmethod
    def of(cls, path: Path) -> Site:
        """Read an example; the one of a relay is for a host that runs the relay only."""
        return cls(path, role="relay" if path.stem == "relay" else "server")

    def definition(self) -> dict[str, object]:
        """Say services.headwater for this file."""
        return {
            "enable": True,
            "openFirewall": True,
            "role": self.role,
            "secrets": self.secrets,
            "settings": self.document,
        }

    def nixos(self, *, more: Path | None = None, nixpkgs: str = "", **changes: object) -> Box:
        """Evaluate the module with this file."""
        return unchecked({**self.definition(), **changes}, more=more, nixpkgs=nixpkgs)

    def debian(self, **host: Any) -> Rendered:
        """Render what the role renders, with the paths of NixOS."""
        made = plan.make(self.settings, role=self.role, secrets=self.secrets)
        machine = Host(**{"program": PROGRAM, "config": CONFIG, "systemd": SYSTEMD, **host})
        return render(made, machine, tcp=(), udp=())


def differences(nixos: Box, debian: Rendered) -> list[str]:
    """Say everything in which the two boxes differ."""
    return [
        *(f"assertion: {message}" for message in nixos["failed"]),
        *_units(nixos, debian),
        *_settings(nixos, debian),
        *_firewall(nixos, debian),
        *_users(nixos, debian),
        *_difference("sysctl", nixos["sysctl"], dict(facts.SYSCTL)),
    ]


def _units(nixos: Box, debian: Rendered) -> Iterator[str]:
    theirs = {name: parse(text) for name, text in nixos["units"].items()}
    ours = {
        Path(path).name: parse(file.text)
        for path, file in debian.files.items()
        if path.startswith(facts.UNIT_DIR)
    }
    for name in sorted({*theirs, *ours} - ONLY_ON_DEBIAN - ONLY_ON_NIXOS):
        if name not in theirs or name not in ours:
            yield f"{name}: only on {'Debian' if name in ours else 'NixOS'}"
            continue
        left, right = _comparable(theirs[name]), _comparable(ours[name])
        for section, key in sorted({*left, *right}):
            found = _difference(
                f"{name} [{section}] {key}",
                left.get((section, key)),
                right.get((section, key)),
            )
            yield from found


def _comparable(unit: Unit) -> dict[tuple[str, str], list[str]]:
    return {
        (section, key): [_PROGRAM.sub(PROGRAM + " ", each) for each in value]
        for (section, key), value in unit.values.items()
        if key not in OF_THE_PLATFORM and not key.startswith("X-")
    }


def _settings(nixos: Box, debian: Rendered) -> Iterator[str]:
    if build(nixos["settings"]) != debian.plan.settings:
        yield "settings: the two site files mean different things"
    if "headwater/config.json" not in nixos["etc"]:
        yield "settings: NixOS writes no /etc/headwater/config.json"


def _firewall(nixos: Box, debian: Rendered) -> Iterator[str]:
    yield from _difference(
        "TCP ports", nixos["firewall"]["allowedTCPPorts"], list(debian.plan.tcp_ports)
    )
    yield from _difference(
        "UDP ports", nixos["firewall"]["allowedUDPPorts"], list(debian.plan.udp_ports)
    )
    table = debian.files[facts.FIREWALL_FILE].text
    for kind, ports in (("tcp", debian.plan.tcp_ports), ("udp", debian.plan.udp_ports)):
        listed = ", ".join(str(port) for port in ports)
        if ports and f"{kind} dport {{ {listed} }} accept" not in table:
            yield f"firewall: the table on Debian does not open {kind} {listed}"


def _users(nixos: Box, debian: Rendered) -> Iterator[str]:
    users, groups = nixos["users"]["users"], nixos["users"]["groups"]
    yield from _difference("users", sorted(users), [facts.USER])
    yield from _difference("groups", sorted(groups), [facts.GROUP])
    user = users.get(facts.USER, {})
    line = f'u {user.get("group")} - "{user.get("description")}" {user.get("home")}\n'
    if line not in debian.files[facts.SYSUSERS_FILE].text:
        yield f"user: Debian's sysusers.d has not the line {line!r}"


def _difference(what: str, nixos: object, debian: object) -> Iterator[str]:
    if nixos != debian:
        yield f"{what}: NixOS {nixos!r}, Debian {debian!r}"
