"""What one site needs: sockets, credentials, ports and directories, derived from its settings.

Not for constants (``facts``) nor for texts (``units``). Refuses what the sandbox would not let the
server do, with the key and the fix. Pure.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from ipaddress import ip_address
from pathlib import Path, PurePosixPath
from typing import Literal, cast
from urllib.parse import urlsplit

from appliance.config import ConfigError, Settings, resolved
from appliance.config.reader import Endpoint, Mistake
from appliance.config.warnings import hidden_files
from appliance.deploy import facts

Role = Literal["server", "relay"]

ANY_V4, ANY_V6 = "0.0.0.0", "::"  # noqa: S104  # the names of "every address", nothing is bound


UNOPENED = frozenset({"metrics"})
"""Purposes whose ports the firewall opens only when it is asked for them by number: metrics are for a
collector, and name tailnets."""


@dataclass(frozen=True, slots=True)
class SocketGroup:
    """The sockets of one purpose: one ``.socket`` unit, one name of descriptors."""

    unit: str
    service: str
    purpose: str
    """``FileDescriptorName=``; what the server asks for."""
    stream: tuple[str, ...] = ()
    datagram: tuple[str, ...] = ()
    options: Mapping[str, facts.Value] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class ServicePlan:
    """One process: its unit's name, its command and the sockets that it is given."""

    unit: str
    command: Literal["serve", "relay"]
    description: str
    sockets: tuple[SocketGroup, ...]
    after: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Plan:
    """Everything about a box that depends on its site."""

    role: Role
    settings: Settings
    services: tuple[ServicePlan, ...]
    state_directory: str
    """Relative to ``facts.STATE_ROOT``."""
    credentials: Mapping[str, str]
    """Name to the file that systemd reads as root."""
    tcp_ports: tuple[int, ...]
    udp_ports: tuple[int, ...]
    restart_digest: str
    """Changes with every setting that a reload does not take over."""

    @property
    def sockets(self) -> tuple[SocketGroup, ...]:
        """Every group of sockets."""
        return tuple(group for service in self.services for group in service.sockets)


def make(
    settings: Settings,
    *,
    role: Role = "server",
    secrets: Mapping[str, str] | None = None,
    source: str = "settings",
) -> Plan:
    """Plan the box of a site. ``secrets`` says where credentials lie that are not in SECRETS_DIR.

    Raises ConfigError with every setting that cannot work inside the sandbox.
    """
    mistakes = list(_mistakes(settings, role, secrets or {}))
    if mistakes:
        raise ConfigError(source, tuple(mistakes))
    services = _services(settings, role)
    groups = [group for service in services for group in service.sockets]
    return Plan(
        role=role,
        settings=settings,
        services=services,
        state_directory=str(PurePosixPath(settings.state_dir).relative_to(facts.STATE_ROOT)),
        credentials={
            name: (secrets or {}).get(name, f"{facts.SECRETS_DIR}/{name}")
            for name in sorted(credential_names(settings))
        },
        tcp_ports=_open_ports(
            each for group in groups if group.purpose not in UNOPENED for each in group.stream
        ),
        udp_ports=_open_ports(each for group in groups for each in group.datagram),
        restart_digest=_restart_digest(settings),
    )


SECRET_KEYS: Mapping[str, tuple[str, ...]] = {
    "database_password_file": ("database_password_file",),
    "tls.cert_file": ("tls", "cert_file"),
    "tls.key_file": ("tls", "key_file"),
    "tls.eab.key_file": ("tls", "eab", "key_file"),
    "tls.dns.rfc2136.key_file": ("tls", "dns", "rfc2136", "key_file"),
    "derp.server.mesh.key_file": ("derp", "server", "mesh", "key_file"),
    "oidc[].client_secret_file": ("oidc", "[]", "client_secret_file"),
}
"""Settings that name files; a relative name is a credential. ``[]`` stands for each of a list."""


def credential_names(settings: Settings) -> set[str]:
    """Name the credentials that the settings ask for."""
    found: set[str] = set()
    for place in SECRET_KEYS.values():
        values: list[object] = [settings]
        for name in place:
            if name == "[]":
                values = [each for value in values for each in cast("Sequence[object]", value)]
            else:
                values = [getattr(value, name, None) for value in values]
        found |= {str(each) for each in values if isinstance(each, Path) and not each.is_absolute()}
    return found


def _services(settings: Settings, role: Role) -> tuple[ServicePlan, ...]:
    server = settings.derp.server
    if role == "relay":
        return (_relay(settings, after=("network-online.target",)),)
    unit, places = facts.SERVER_UNIT, resolved.server_places(settings)
    groups = [
        _streams(unit, "listen", "", places.listen),
        _streams(unit, "plain", "plain", places.plain),
        SocketGroup(
            f"{unit}-local",
            unit,
            "local",
            stream=(str(settings.socket.path),),
            options={**facts.LOCAL_SOCKET, "SocketMode": str(settings.socket.mode)},
        ),
        _streams(unit, "metrics", "metrics", places.metrics),
        _datagrams(unit, places.stun),
    ]
    used = tuple(group for group in groups if group.stream or group.datagram)
    main = ServicePlan(unit, "serve", facts.DESCRIPTION, used, ("network-online.target",))
    if server.enabled and server.separate:
        # Only in order: at the first start both would make the keys and certificates that they share.
        return main, _relay(settings, after=("network-online.target", f"{unit}.service"))
    return (main,)


def _relay(settings: Settings, *, after: tuple[str, ...]) -> ServicePlan:
    unit, places = facts.RELAY_UNIT, resolved.relay_places(settings)
    groups = (
        _streams(unit, "listen", "", places.listen),
        _streams(unit, "plain", "plain", places.plain),
        _streams(unit, "metrics", "metrics", places.metrics),
        _datagrams(unit, places.stun),
    )
    used = tuple(group for group in groups if group.stream or group.datagram)
    return ServicePlan(unit, "relay", "Headwater relay (DERP and STUN)", used, after)


def _streams(service: str, purpose: str, suffix: str, listen: Sequence[Endpoint]) -> SocketGroup:
    unit = f"{service}-{suffix}" if suffix else service
    return SocketGroup(
        unit, service, purpose, stream=_addresses(listen), options=facts.STREAM_SOCKET
    )


def _datagrams(service: str, listen: Sequence[Endpoint]) -> SocketGroup:
    return SocketGroup(
        f"{service}-stun",
        service,
        "stun",
        datagram=_addresses(listen),
        options=facts.DATAGRAM_SOCKET,
    )


def _addresses(listen: Sequence[Endpoint]) -> tuple[str, ...]:
    """Write addresses as systemd reads them; an empty host means both families."""
    found: list[str] = []
    for each in listen:
        hosts = (each.host,) if each.host else (ANY_V4, ANY_V6)
        found.extend(str(Endpoint(host, each.port)) for host in hosts)
    return tuple(dict.fromkeys(found))


def _open_ports(addresses: Iterator[str]) -> tuple[int, ...]:
    """Give the ports that somebody outside may reach: not those of loopback addresses."""
    ports = set()
    for address in addresses:
        if address.startswith("/"):
            continue
        endpoint = Endpoint.parse(address)
        if not ip_address(endpoint.host).is_loopback:
            ports.add(endpoint.port)
    return tuple(sorted(ports))


# ── what cannot work ─────────────────────────────────────────────────────────────────────────────


def _mistakes(settings: Settings, role: Role, secrets: Mapping[str, str]) -> Iterator[Mistake]:
    yield from _wrong_addresses(settings)
    yield from _wrong_places(settings)
    for hidden in hidden_files(settings):
        yield Mistake(hidden.path, hidden.what, "a place that the service sees", hidden.fix)
    wanted = credential_names(settings)
    for name in sorted(wanted):
        if "/" in name or ":" in name or name.startswith("."):
            fix = "name a credential, like 'database-password', or write a path that begins with /"
            yield Mistake("(a *_file key)", repr(name), "letters, digits, '-', '_' and '.'", fix)
    for name, path in secrets.items():
        if name not in wanted:
            fix = f"name it in one of {', '.join(SECRET_KEYS)}, or take the secret away"
            yield Mistake(f"secret {name}", repr(path), "a name that the site file uses", fix)
        elif not path.startswith("/"):
            yield Mistake(f"secret {name}", repr(path), "the absolute path of a file")
    if role == "relay" and settings.derp.server.separate:
        fix = "leave 'separate' out on a host that runs the relay only"
        yield Mistake("derp.server.separate", "True", "false with the role 'relay'", fix)


def _wrong_addresses(settings: Settings) -> Iterator[Mistake]:
    server = settings.derp.server
    lists: dict[str, Sequence[Endpoint]] = {
        "listen": settings.listen,
        "listen_plain": settings.listen_plain,
        "derp.server.listen": server.listen if server.separate else (),
        "derp.server.metrics_listen": resolved.relay_places(settings).metrics
        if server.separate
        else (),
        "metrics.listen": () if settings.metrics.listen is None else (settings.metrics.listen,),
        "derp.server.stun_listen": server.stun_listen,
    }
    for key, endpoints in lists.items():
        for endpoint in endpoints:
            if endpoint.port == 0:
                fix = "a box needs ports that its firewall knows: name one"
                yield Mistake(key, str(endpoint), "a port from 1 to 65535", fix)
            if endpoint.host and not _is_address(endpoint.host):
                fix = "write the address: names are not known yet when sockets are made"
                yield Mistake(key, str(endpoint), "an IP address and a port", fix)


def _wrong_places(settings: Settings) -> Iterator[Mistake]:
    state, root = PurePosixPath(settings.state_dir), PurePosixPath(facts.STATE_ROOT)
    fix = f"leave it out, or name a directory below {root}; mount other disks there"
    if root not in state.parents or ".." in state.parts:
        yield Mistake("state_dir", str(state), f"a directory below {root}", fix)
    if settings.database_url.startswith("sqlite:"):
        path = PurePosixPath("/" + urlsplit(settings.database_url).path.lstrip("/"))
        if state not in path.parents or ".." in path.parts:
            fix = f"leave it out, or put the database below {state}: nothing else is writable"
            yield Mistake("database_url", settings.database_url, "a file in state_dir", fix)
    if not settings.socket.path.is_absolute():
        yield Mistake("socket.path", str(settings.socket.path), "an absolute path")


def _is_address(host: str) -> bool:
    try:
        ip_address(host)
    except ValueError:
        return False
    return True


def _restart_digest(settings: Settings) -> str:
    """Digest what a reload would leave waiting for a restart."""
    plain = json.dumps(resolved.cold_part(settings), sort_keys=True)
    return hashlib.sha256(plain.encode()).hexdigest()[:16]
