"""The constants of a box: names, paths, limits, sandbox, socket options, kernel settings.

Not for what depends on a site (``plan``). ``facts.json`` beside this file is the same as JSON, for
the NixOS module; ``headwater deploy facts`` writes it, and a test keeps the two equal.
Source: systemd.exec(5), systemd.service(5), systemd.socket(5) of systemd 252 to 257.
"""

from __future__ import annotations

from collections.abc import Mapping

Value = str | int | bool | tuple[str, ...]
Directives = Mapping[str, Value]

# ── names and places ─────────────────────────────────────────────────────────────────────────────

USER = "headwater"
GROUP = "headwater"
DESCRIPTION = "Headwater control server"
SERVER_UNIT = "headwater"
RELAY_UNIT = "headwater-relay"

CONFIG_DIR = "/etc/headwater"
SECRETS_DIR = "/etc/headwater/secrets"
"""Root's alone; systemd hands each file over as a credential of its name."""
STATE_ROOT = "/var/lib"
"""``StateDirectory=`` knows only places below it, and nothing else is writable in the sandbox."""
PROGRAM = "/opt/headwater/current/bin/headwater"
"""Where the program is on Debian: ``current`` points to one of the releases beside it."""
FIREWALL_FILE = "/etc/headwater/firewall.nft"
FIREWALL_TABLE = "headwater"
FIREWALL_UNIT = "headwater-firewall"
SYSUSERS_FILE = "/etc/sysusers.d/headwater.conf"
TMPFILES_FILE = "/etc/tmpfiles.d/headwater.conf"
SYSCTL_FILE = "/etc/sysctl.d/60-headwater.conf"
UNIT_DIR = "/etc/systemd/system"

# ── the services ─────────────────────────────────────────────────────────────────────────────────

NOTIFY_RELOAD_SINCE = 253
"""From this systemd on (``Type=notify-reload``) a reload is over only when the server says so."""

SERVICE: Directives = {
    "User": USER,
    "Group": GROUP,
    "NotifyAccess": "main",
    "Restart": "always",
    "RestartSec": 2,
    "TimeoutStartSec": 120,  # migrations ask for more while they run
    "TimeoutStopSec": 30,
    "WatchdogSec": 30,  # the loop is never blocked for longer than some 20 ms
    "StateDirectoryMode": "0700",
    "UMask": "0077",
    "LimitNOFILE": 131072,  # twice the most connections that a listener takes, and the rest
    "TasksMax": 128,  # threads for the database, compression and name lookups
    "MemoryMax": "80%",  # a flood ends the server, not the shell that would mend it
    "OOMPolicy": "stop",
}

# Every directive that a server needs no exception from. Ports below 1024 are no exception: the
# sockets come from systemd, bound.
HARDENING: Directives = {
    "AmbientCapabilities": "",
    "CapabilityBoundingSet": "",
    "DevicePolicy": "closed",
    "KeyringMode": "private",
    "LockPersonality": True,
    "MemoryDenyWriteExecute": True,
    "NoNewPrivileges": True,
    "PrivateDevices": True,
    "PrivateMounts": True,
    "PrivateTmp": True,
    "PrivateUsers": True,
    "ProcSubset": "pid",
    "ProtectClock": True,
    "ProtectControlGroups": True,
    "ProtectHome": True,
    "ProtectHostname": True,
    "ProtectKernelLogs": True,
    "ProtectKernelModules": True,
    "ProtectKernelTunables": True,
    "ProtectProc": "invisible",
    "ProtectSystem": "strict",
    "RemoveIPC": True,
    "RestrictAddressFamilies": ("AF_UNIX AF_INET AF_INET6",),
    "RestrictNamespaces": True,
    "RestrictRealtime": True,
    "RestrictSUIDSGID": True,
    "SocketBindDeny": "any",
    "SystemCallArchitectures": "native",
    "SystemCallErrorNumber": "EPERM",
    "SystemCallFilter": ("@system-service", "~@privileged @resources"),
}

UNIT: Directives = {
    "StartLimitIntervalSec": 0,  # a box without anybody beside it never gives up
}

# ── the sockets ──────────────────────────────────────────────────────────────────────────────────

STREAM_SOCKET: Directives = {
    "Backlog": 4096,  # a reconnect storm comes in one burst
    "BindIPv6Only": "ipv6-only",
    "FreeBind": True,  # an address may come later than we do
    "KeepAlive": True,
    "NoDelay": True,
}
DATAGRAM_SOCKET: Directives = {
    "BindIPv6Only": "ipv6-only",
    "FreeBind": True,
    "ReceiveBuffer": "4M",  # a burst of all nodes waits and is not lost
}
LOCAL_SOCKET: Directives = {
    "Backlog": 64,
    "DirectoryMode": "0755",
    "RemoveOnStop": True,
    "SocketUser": USER,
    "SocketGroup": GROUP,
}

# ── the kernel ───────────────────────────────────────────────────────────────────────────────────

SYSCTL: Mapping[str, int] = {
    "net.core.rmem_max": 4194304,  # so that the STUN socket may have its buffer
    "net.core.somaxconn": 4096,  # the backlog above would be cut otherwise
    "net.core.netdev_max_backlog": 5000,  # relayed packets arrive in bursts
    "net.ipv4.tcp_max_syn_backlog": 8192,  # every node reconnects at once after a restart
    "net.ipv4.tcp_mtu_probing": 1,  # relayed packets pass paths that eat ICMP
    "net.ipv4.tcp_slow_start_after_idle": 0,  # map sessions are silent for minutes, then not
}
"""Raised only where a box with thousands of nodes is otherwise cut; nothing that ages badly."""

ICMP_NUMBERS = (1, 58)
"""ICMP and ICMPv6 by number: a minimal Debian 12 has no list of their names."""
SSH_PORT = 22

# ── the container images ─────────────────────────────────────────────────────────────────────────

IMAGE_UID = 65532
"""User and group in the images: a number that neither Debian nor NixOS gives to anybody."""
IMAGE_SECRETS_DIR = "/run/secrets"
"""Where Docker, podman and compose put secrets."""
_SECOND_NS = 1_000_000_000

IMAGE: Mapping[str, object] = {
    "User": f"{IMAGE_UID}:{IMAGE_UID}",
    "Entrypoint": ["headwater"],
    "Cmd": ["serve"],
    "WorkingDir": "/var/lib/headwater",
    "Env": [
        "LANG=C.UTF-8",
        "PYTHONDONTWRITEBYTECODE=1",
        "container=oci",  # systemd's container interface; here it changes advice in messages only
        f"CREDENTIALS_DIRECTORY={IMAGE_SECRETS_DIR}",
    ],
    "Volumes": {"/var/lib/headwater": {}},
    "ExposedPorts": {"80/tcp": {}, "443/tcp": {}, "3478/udp": {}},
    "StopSignal": "SIGTERM",
    "Healthcheck": {
        "Test": ["CMD", "headwater", "health"],
        "Interval": 30 * _SECOND_NS,
        "Timeout": 10 * _SECOND_NS,
        "StartPeriod": 60 * _SECOND_NS,
        "Retries": 3,
    },
}
"""What every image of ours says about itself, so that one takes another's place: the ``config`` of
an image with a health check. Not its PATH and not its labels.
Source: OCI image configuration, and Docker's image specification 1.2 for ``Healthcheck``."""
