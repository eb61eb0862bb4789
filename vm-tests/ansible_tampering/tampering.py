"""Single changes to a configured host, as people, packages and accidents make them.

For: choosing one by chance, with the same seed the same one. Each says what it does as a shell command,
and whether the play is to mend it or to stop with a name. Not for judging the host afterwards.
"""

# ruff: noqa: D103  # what each function makes says in words what it is

from __future__ import annotations

import random
from collections.abc import Callable
from dataclasses import dataclass

PORT = 443
TABLE = "inet headwater"
USER = "headwater"
SECRETS = "/etc/headwater/secrets"
STATE = "/var/lib/headwater"
BASE = "/opt/headwater"
COMMAND = "/usr/local/bin/headwater"
FOLDERS = ("/etc/headwater", SECRETS, BASE, f"{BASE}/releases")
KERNEL = ("net.core.somaxconn", "net.ipv4.tcp_max_syn_backlog", "net.ipv4.tcp_mtu_probing")
TOOLS = ("headwater-release", "headwater_host.py", "headwater_live.py")


@dataclass(frozen=True, slots=True)
class Change:
    """One change to a host."""

    what: str
    command: str
    stops_with: str = ""
    """What the play must name if it does not mend this; empty: it mends it."""
    undo: str = ""
    """How whoever did that undoes it, where the play does not."""


@dataclass(frozen=True, slots=True)
class Target:
    """What there is to be changed."""

    files: tuple[str, ...]
    sockets: tuple[str, ...]
    services: tuple[str, ...]
    secrets: tuple[str, ...]

    @property
    def units(self) -> tuple[str, ...]:
        """Everything that systemd starts."""
        return (*self.sockets, *self.services)


Make = Callable[[random.Random, Target], Change]


def choose(rng: random.Random, target: Target) -> Change:
    """Choose a change."""
    return rng.choice(KINDS)(rng, target)


def contents(rng: random.Random, target: Target) -> Change:
    name = rng.choice((*target.files, *(f"{BASE}/{tool}" for tool in TOOLS)))
    return Change(f"contents of {name}", f"echo '# changed' >> {name}")


def truncated(rng: random.Random, target: Target) -> Change:
    name = rng.choice(target.files)
    return Change(f"{name} is empty", f": > {name}")


def mode(rng: random.Random, target: Target) -> Change:
    name = rng.choice((*target.files, *target.secrets))
    number = rng.choice(("0666", "0600", "0777", "4755"))
    return Change(f"mode of {name}: {number}", f"chmod {number} {name}")


def owner(rng: random.Random, target: Target) -> Change:
    name = rng.choice((*target.files, *target.secrets))
    return Change(f"owner of {name}", f"chown nobody:nogroup {name}")


def removed(rng: random.Random, target: Target) -> Change:
    name = rng.choice((*target.files, *target.secrets, COMMAND))
    return Change(f"{name} is gone", f"rm {name}")


def link_instead(rng: random.Random, target: Target) -> Change:
    name = rng.choice(target.files)
    return Change(f"{name} is a link", f"ln -sfn /dev/null {name}")


def link_elsewhere(rng: random.Random, _target: Target) -> Change:
    name = rng.choice((COMMAND, f"{BASE}/current"))
    return Change(f"{name} leads elsewhere", f"ln -sfn /nowhere {name}")


def folder_instead(rng: random.Random, target: Target) -> Change:
    name = rng.choice(target.files)
    command = f"rm {name} && mkdir {name}"
    return Change(f"{name} is a folder", command, f"{name} is a folder", f"rmdir {name}")


def folder(rng: random.Random, _target: Target) -> Change:
    name, number = rng.choice(FOLDERS), rng.choice(("0777", "0500"))
    return Change(f"mode of {name}: {number}", f"chmod {number} {name}")


def state(rng: random.Random, _target: Target) -> Change:
    command = rng.choice((f"chmod 0755 {STATE}", f"chown nobody {STATE}"))
    return Change(f"state: {command}", command)


def secret(rng: random.Random, target: Target) -> Change:
    name = rng.choice(target.secrets)
    return Change(f"contents of {name}", f"echo other > {name}")


def disabled(rng: random.Random, target: Target) -> Change:
    unit = rng.choice((*target.units, "headwater-firewall.service"))
    return Change(f"{unit} is disabled", f"systemctl disable --quiet {unit}")


def stopped(rng: random.Random, target: Target) -> Change:
    unit = rng.choice((*target.units, "headwater-firewall.service"))
    return Change(f"{unit} is stopped", f"systemctl stop {unit}")


def killed(_rng: random.Random, _target: Target) -> Change:
    command = "systemctl kill --signal=KILL headwater.service"
    return Change("the server is killed", command)


def flushed(rng: random.Random, _target: Target) -> Change:
    command = rng.choice(("flush ruleset", f"delete table {TABLE}", f"flush chain {TABLE} input"))
    return Change(f"nft {command}", f"nft {command}")


def rule(rng: random.Random, _target: Target) -> Change:
    words = rng.choice(("tcp dport 23 accept", f"tcp dport {PORT} drop", "accept"))
    command = f"nft insert rule {TABLE} input {words}"
    return Change(command, command)


def policy(_rng: random.Random, _target: Target) -> Change:
    command = f"nft 'chain {TABLE} input {{ policy accept; }}'"
    return Change(command, command)


def kernel(rng: random.Random, _target: Target) -> Change:
    key = rng.choice(KERNEL)
    number = "2" if key.endswith("probing") else "100"
    return Change(f"{key} = {number}", f"sysctl -q -w {key}={number}")


def shell(_rng: random.Random, _target: Target) -> Change:
    return Change("the user gets a shell", f"usermod --shell /bin/bash {USER}")


def deleted(_rng: random.Random, _target: Target) -> Change:
    return Change("the user is deleted", f"userdel --force {USER} 2>/dev/null")


def grouped(_rng: random.Random, _target: Target) -> Change:
    undo = f"gpasswd --quiet --delete {USER} adm"
    command = f"usermod --append --groups adm {USER}"
    return Change("the user joins a group", command, f"{USER} is in the groups adm", undo)


def taken(_rng: random.Random, _target: Target) -> Change:
    """Somebody else is faster with our port after a restart."""
    command = (
        "systemctl stop headwater.socket headwater.service &&"
        f" systemd-run --quiet --unit=other-server nc -l -k 0.0.0.0 {PORT} &&"
        f" until ss -tln | grep -F :{PORT} >/dev/null; do sleep 0.1; done"
    )
    stops = f"port {PORT} (TCP) is taken by nc"
    return Change("the port is taken", command, stops, "systemctl stop other-server")


KINDS: tuple[Make, ...] = (
    *(contents, truncated, mode, owner, removed, link_instead, link_elsewhere, folder_instead),
    *(folder, state, secret, disabled, stopped, killed, flushed, rule, policy, kernel, shell),
    *(deleted, grouped, taken),
)
