"""Everything that a site puts on a machine, as files and as one JSON document for provisioners.

Not for applying it: Ansible and the stories do that.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from appliance.deploy import facts, firewall, units
from appliance.deploy.plan import Plan
from appliance.deploy.units import Host

FORMAT = 1
"""Of the JSON document; changes when a key changes its meaning."""


@dataclass(frozen=True, slots=True)
class File:
    """One file, owned by root."""

    text: str
    mode: str = "0644"


@dataclass(frozen=True, slots=True)
class Rendered:
    """What is to be on the machine."""

    plan: Plan
    host: Host
    files: dict[str, File]
    """By absolute path."""

    @property
    def enabled(self) -> tuple[str, ...]:
        """Units that start with the machine."""
        plan = self.plan
        sockets = tuple(f"{group.unit}.socket" for group in plan.sockets)
        services = tuple(f"{each.unit}.service" for each in plan.services)
        return (f"{facts.FIREWALL_UNIT}.service", *sockets, *services)

    def write(self, root: Path) -> None:
        """Write the files below a directory."""
        for name, file in self.files.items():
            path = root / name.lstrip("/")
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_text(file.text)
            path.chmod(int(file.mode, 8))

    def document(self) -> dict[str, object]:
        """Give everything as plain values."""
        plan = self.plan
        return {
            "format": FORMAT,
            "role": plan.role,
            "user": facts.USER,
            "group": facts.GROUP,
            "config": self.host.config,
            "program": self.host.program,
            "state_dir": f"{facts.STATE_ROOT}/{plan.state_directory}",
            "secrets_dir": facts.SECRETS_DIR,
            "credentials": dict(plan.credentials),
            "ports": {"tcp": list(plan.tcp_ports), "udp": list(plan.udp_ports)},
            "services": [f"{each.unit}.service" for each in plan.services],
            "sockets": [f"{group.unit}.socket" for group in plan.sockets],
            "firewall_unit": f"{facts.FIREWALL_UNIT}.service",
            "enable": list(self.enabled),
            "restart_digest": plan.restart_digest,
            "sysctl": dict(facts.SYSCTL),
            "files": {
                path: {"text": file.text, "mode": file.mode} for path, file in self.files.items()
            },
        }


def render(
    plan: Plan,
    host: Host,
    *,
    tcp: Sequence[int] = (facts.SSH_PORT,),
    udp: Sequence[int] = (),
) -> Rendered:
    """Write every file of a box; ``tcp`` and ``udp`` are further ports that the firewall opens."""
    files = {
        f"{facts.UNIT_DIR}/{each.unit}.service": File(units.service(plan, each, host))
        for each in plan.services
    }
    for group in plan.sockets:
        files[f"{facts.UNIT_DIR}/{group.unit}.socket"] = File(units.socket(group))
    files[f"{facts.UNIT_DIR}/{facts.FIREWALL_UNIT}.service"] = File(units.firewall())
    files[facts.FIREWALL_FILE] = File(firewall.table(plan, tcp=tcp, udp=udp))
    files[facts.SYSUSERS_FILE] = File(sysusers(plan))
    files[facts.TMPFILES_FILE] = File(tmpfiles())
    files[facts.SYSCTL_FILE] = File(sysctl())
    return Rendered(plan, host, files)


def sysusers(plan: Plan) -> str:
    """Write the user and its group. Source: sysusers.d(5)."""
    home = f"{facts.STATE_ROOT}/{plan.state_directory}"
    return f'{units.HEADER}u {facts.USER} - "{facts.DESCRIPTION}" {home}\n'


def tmpfiles() -> str:
    """Write the directories that systemd does not make for the unit. Source: tmpfiles.d(5)."""
    return (
        f"{units.HEADER}d {facts.CONFIG_DIR} 0755 root root\nd {facts.SECRETS_DIR} 0700 root root\n"
    )


def sysctl() -> str:
    """Write the kernel settings; a container that may not set one goes on without."""
    return units.HEADER + "".join(f"-{key} = {value}\n" for key, value in facts.SYSCTL.items())
