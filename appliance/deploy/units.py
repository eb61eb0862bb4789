"""Unit files as text: the services, their sockets, the firewall's loader.

Not for which units there are (``plan``) nor for their constants (``facts``). Pure.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass

from appliance.deploy import facts
from appliance.deploy.plan import Plan, ServicePlan, SocketGroup

Sections = Mapping[str, Mapping[str, facts.Value]]

HEADER = "# Made by `headwater deploy` from the site file; changes here are lost.\n"


@dataclass(frozen=True, slots=True)
class Host:
    """What the machine brings: where program and site file are, which systemd runs."""

    program: str = facts.PROGRAM
    config: str = f"{facts.CONFIG_DIR}/config.yaml"
    systemd: int = 252
    groups: tuple[str, ...] = ()
    """Further groups of the service, like one that may read certificates."""


def service(plan: Plan, one: ServicePlan, host: Host) -> str:
    """Write the unit of one process."""
    sockets = tuple(f"{group.unit}.socket" for group in one.sockets)
    return text(
        {
            "Unit": {
                "Description": one.description,
                **facts.UNIT,
                "Wants": ("network-online.target",),
                "After": (*one.after, *sockets),
                "Requires": sockets,
                # Another value makes this another unit, and so a restart and not a reload.
                "X-Restart-Digest": plan.restart_digest,
            },
            "Service": {
                **_reloading(host, one),
                "ExecStart": f"{host.program} {one.command} -c {host.config}",
                **facts.SERVICE,
                "SupplementaryGroups": host.groups,
                "StateDirectory": plan.state_directory,
                "LoadCredential": tuple(f"{n}:{path}" for n, path in plan.credentials.items()),
                "Sockets": sockets,
                **facts.HARDENING,
            },
            "Install": {"WantedBy": "multi-user.target"},
        }
    )


def _reloading(host: Host, one: ServicePlan) -> dict[str, facts.Value]:
    """Say how a reload is asked for, so that ``systemctl reload`` returns when it is done.

    Before notify-reload the job ends with its command, unless the server has said by then that it
    reloads; asking it for its health makes sure that it has. A relay has no local socket to be
    asked on: there the job may end a moment before the reload does.
    """
    if host.systemd >= facts.NOTIFY_RELOAD_SINCE:
        return {"Type": "notify-reload"}
    # A minimal Debian has no /bin/kill; every shell has its own.
    signal = '/bin/sh -c "kill -HUP $MAINPID"'
    if one.command == "relay":
        return {"Type": "notify", "ExecReload": signal}
    return {"Type": "notify", "ExecReload": (signal, f"{host.program} health -c {host.config}")}


def socket(group: SocketGroup) -> str:
    """Write the unit of one group of sockets."""
    return text(
        {
            "Unit": {
                # Not bound to the service in any way: they outlive its restart and its failure, and
                # keep what waits in them. Whoever wants everything stopped stops the sockets.
                "Description": f"Headwater sockets: {group.purpose}",
            },
            "Socket": {
                "ListenStream": group.stream,
                "ListenDatagram": group.datagram,
                "FileDescriptorName": group.purpose,
                "Service": f"{group.service}.service",
                **group.options,
            },
            "Install": {"WantedBy": "sockets.target"},
        }
    )


def firewall() -> str:
    """Write the unit that loads the firewall's table before the network is there."""
    return text(
        {
            "Unit": {
                "Description": "Headwater firewall",
                "DefaultDependencies": False,
                "Wants": "network-pre.target",
                "Before": "network-pre.target shutdown.target",
                "Conflicts": "shutdown.target",
                # Debian's own service may flush every table; then ours comes back.
                "After": "nftables.service",
                "PartOf": "nftables.service",
                "ReloadPropagatedFrom": "nftables.service",
            },
            "Service": {
                "Type": "oneshot",
                "RemainAfterExit": True,
                "ExecStart": f"/usr/sbin/nft -f {facts.FIREWALL_FILE}",
                "ExecReload": f"/usr/sbin/nft -f {facts.FIREWALL_FILE}",
                "ExecStop": f"/usr/sbin/nft delete table inet {facts.FIREWALL_TABLE}",
            },
            "Install": {"WantedBy": "sysinit.target"},
        }
    )


def text(sections: Sections) -> str:
    """Write a unit file. An empty tuple writes nothing, an empty text the bare directive."""
    blocks = []
    for name, directives in sections.items():
        lines = [f"{key}={one}\n" for key, value in directives.items() for one in _written(value)]
        blocks.append(f"[{name}]\n" + "".join(lines))
    return HEADER + "\n".join(blocks)


def _written(value: facts.Value) -> Iterable[str]:
    if isinstance(value, tuple):
        return value
    if isinstance(value, bool):
        return ("yes" if value else "no",)
    return (str(value),)
