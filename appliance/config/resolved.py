"""What follows from the settings: the values that the parts take, in their own types.

Not for reading the file (``config``) and not for joining the parts (``server``). Pure.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import ip_address

from msgspec.structs import replace

from appliance.config import ConfigError, Dns, Region, RelayServer, Settings, Tailnet
from appliance.config.checks import mistakes
from appliance.config.reader import Endpoint, to_plain
from appliance.live.policy import PolicySource
from appliance.records import Settings as TailnetSettings
from appliance.wire import tailcfg

DEFAULT_STUN_PORT = 3478
_EVERY = ("0.0.0.0", "::")  # noqa: S104  # names of "every address", nothing is bound


@dataclass(frozen=True, slots=True)
class Ports:
    """What is only known once the server listens: ports that the system chose."""

    https: int | None = None
    stun: int | None = None
    cert_name: str = ""
    """The pin of a self-signed certificate, or empty."""


@dataclass(frozen=True, slots=True)
class Places:
    """The addresses that one process listens on, by purpose."""

    listen: tuple[Endpoint, ...]
    plain: tuple[Endpoint, ...]
    metrics: tuple[Endpoint, ...]
    stun: tuple[Endpoint, ...]


def server_places(settings: Settings) -> Places:
    """Return where ``headwater serve`` listens."""
    server, metrics = settings.derp.server, settings.metrics.listen
    return Places(
        listen=settings.listen,
        plain=settings.listen_plain,
        metrics=() if metrics is None else (metrics,),
        stun=server.stun_listen if server.enabled and not server.separate else (),
    )


def relay_places(settings: Settings) -> Places:
    """Return where ``headwater relay`` listens.

    Beside the server, with the same file, the plain listeners and ``metrics.listen`` are the
    server's. On a host of its own they are the relay's.
    """
    server, metrics = settings.derp.server, settings.metrics.listen
    if server.separate:
        metrics = server.metrics_listen
    return Places(
        listen=server.listen or settings.listen,
        plain=() if server.separate else settings.listen_plain,
        metrics=() if metrics is None else (metrics,),
        stun=server.stun_listen,
    )


def tailnet_settings(
    settings: Settings, tailnet: Tailnet, derp_map: tailcfg.DERPMap
) -> TailnetSettings:
    """Give what a tailnet's snapshot carries of the settings."""
    dns: Dns = tailnet.dns or settings.dns
    return TailnetSettings(
        prefix_v4=tailnet.prefixes.v4,
        prefix_v6=tailnet.prefixes.v6,
        random_addresses=tailnet.prefixes.allocation == "random",
        magic_dns=dns.magic_dns,
        override_local_dns=dns.override_local_dns,
        nameservers=dns.nameservers.global_,
        split_dns=tuple(dns.nameservers.split.items()),
        search_domains=dns.search_domains,
        extra_records=tuple(
            tailcfg.DNSRecord(name=record.name, type=record.type, value=record.value)
            for record in dns.extra_records
        ),
        derp_map=derp_map,
        key_expiry=tailnet.key_expiry,
        ephemeral_timeout=tailnet.ephemeral_timeout,
        file_sharing=tailnet.file_sharing,
        disable_logs=not tailnet.client_logs,
        email_domains=frozenset(tailnet.email_domains),
        providers=frozenset(provider_names(settings, tailnet)),
    )


def provider_names(settings: Settings, tailnet: Tailnet) -> tuple[str, ...]:
    """List the identity providers with which people sign in to a tailnet."""
    default = settings.tailnet.name
    return tuple(each.name for each in settings.oidc if (each.tailnet or default) == tailnet.name)


def policy_source(tailnet: Tailnet) -> PolicySource:
    """Say where a tailnet's policy comes from; a document in the settings becomes its text."""
    policy = tailnet.policy
    text = policy.text
    if policy.document is not None:
        text = json.dumps(policy.document, indent=2, ensure_ascii=False) + "\n"
    return PolicySource(policy.mode, policy.path, text)


def derp_map(settings: Settings, ports: Ports) -> tailcfg.DERPMap:
    """Give the map of relays: our own region, if it is on, and the further ones."""
    regions: dict[int, tailcfg.DERPRegion] = {}
    server = settings.derp.server
    if server.enabled:
        regions[server.region_id] = _own_region(settings, ports)
    for region in settings.derp.regions:
        own = regions.get(region.id)
        made = _region(region)
        regions[region.id] = replace(own, nodes=(*own.nodes, *made.nodes)) if own else made
    return tailcfg.DERPMap(regions=regions, omit_default_regions=True)


def stun_port(settings: Settings, ports: Ports) -> int:
    """Give the STUN port that nodes are told; -1 means that there is none."""
    server = settings.derp.server
    if server.stun_port is not None:
        return server.stun_port
    if not server.stun_listen:
        return -1
    return ports.stun or server.stun_listen[0].port


def other_addresses(listen: Sequence[Endpoint], bound: Iterable[tuple[str, int]]) -> list[str]:
    """Name what is listened on and not in the settings, or the other way round."""
    wanted = {
        (host, each.port) for each in listen for host in ([each.host] if each.host else _EVERY)
    }
    return sorted(str(Endpoint(*each)) for each in wanted ^ set(bound))


def _own_region(settings: Settings, ports: Ports) -> tailcfg.DERPRegion:
    server = settings.derp.server
    host = server.host or settings.host
    ipv4, ipv6 = str(server.ipv4 or ""), str(server.ipv6 or "")
    literal = _literal(host)
    if literal is not None and not (ipv4 or ipv6):
        # A bare address: say it, and that there is no other family, so that nobody asks DNS.
        ipv4, ipv6 = (host, "none") if literal == 4 else ("none", host)
    stun = stun_port(settings, ports)
    port = server.port or _relay_port(server) or ports.https or settings.port
    node = tailcfg.DERPNode(
        name=f"{server.region_id}a",
        region_id=server.region_id,
        host_name=host,
        cert_name=ports.cert_name,
        ipv4=ipv4,
        ipv6=ipv6,
        stun_port=0 if stun == DEFAULT_STUN_PORT else stun,
        derp_port=0 if port == 443 else port,
        can_port80=server.can_port80,
    )
    return tailcfg.DERPRegion(
        region_id=server.region_id,
        region_code=server.region_code,
        region_name=server.region_name,
        nodes=(node,),
    )


def _relay_port(server: RelayServer) -> int | None:
    """Give the port of a relay that runs by itself beside the server."""
    return server.listen[0].port if server.separate and server.listen else None


def _region(region: Region) -> tailcfg.DERPRegion:
    nodes = tuple(
        tailcfg.DERPNode(
            name=node.name or f"{region.code}-{i + 1}",
            region_id=region.id,
            host_name=node.host,
            cert_name=node.cert_name,
            ipv4=node.ipv4,
            ipv6=node.ipv6,
            stun_port=0 if node.stun_port == DEFAULT_STUN_PORT else node.stun_port,
            stun_only=node.stun_only,
            derp_port=0 if node.port == 443 else node.port,
            can_port80=node.can_port80,
        )
        for i, node in enumerate(region.nodes)
    )
    return tailcfg.DERPRegion(
        region_id=region.id,
        region_code=region.code,
        region_name=region.name or region.code,
        latitude=region.latitude,
        longitude=region.longitude,
        nodes=nodes,
    )


def _literal(host: str) -> int | None:
    try:
        return ip_address(host).version
    except ValueError:
        return None


# What a reload may change without a restart; the rest of the tree stays as it was.
HOT = ("tailnet", "tailnets", "dns", "derp", "log")
COLD_INSIDE = {
    "tailnet": ("name",),
    "derp.server": (
        "enabled",
        "stun_listen",
        "verify_clients",
        "verify_fail_open",
        "bytes_per_second",
        "separate",
        "listen",
        "metrics_listen",
        "mesh",
    ),
}


@dataclass(frozen=True, slots=True)
class Reload:
    """What a reload does: the settings from now on, and the keys that wait for a restart."""

    settings: Settings
    changed: tuple[str, ...]
    waiting: tuple[str, ...]


def reload(old: Settings, new: Settings) -> Reload:
    """Take over what can change while running; name what cannot.

    Raises ConfigError if the part that is taken over does not work with the rest as it is.
    """
    merged = replace(new, **{name: getattr(old, name) for name in _cold_keys()})
    server = replace(
        new.derp.server,
        **{name: getattr(old.derp.server, name) for name in COLD_INSIDE["derp.server"]},
    )
    kept = {tailnet.name for tailnet in old.tailnets}
    merged = replace(
        merged,
        derp=replace(merged.derp, server=server),
        tailnet=replace(merged.tailnet, name=old.tailnet.name),
        tailnets=tuple(
            [each for each in new.tailnets if each.name in kept]
            + [each for each in old.tailnets if each.name not in {t.name for t in new.tailnets}]
        ),
    )
    wrong = mistakes(merged)
    if wrong:
        raise ConfigError("what a reload would take over, without a restart", wrong)
    return Reload(
        settings=merged,
        changed=tuple(_differences(to_plain(old), to_plain(merged))),
        waiting=tuple(_differences(to_plain(merged), to_plain(new))),
    )


def cold_part(settings: Settings) -> dict[str, object]:
    """Give, as plain values, what a reload does not take over; equal parts need no restart."""
    server = settings.derp.server
    found: dict[str, object] = {name: getattr(settings, name) for name in _cold_keys()}
    found["tailnets"] = [tailnet.name for tailnet in settings.all_tailnets]
    found["derp.server"] = {name: getattr(server, name) for name in COLD_INSIDE["derp.server"]}
    return {name: to_plain(value) for name, value in found.items()}


def _cold_keys() -> list[str]:
    return [name for name in Settings.__struct_fields__ if name not in HOT]


def _differences(old: object, new: object, path: str = "") -> list[str]:
    """Name the keys whose values differ, lists as a whole."""
    if isinstance(old, dict) and isinstance(new, dict):
        found: list[str] = []
        for key in dict.fromkeys([*old, *new]):
            inside = f"{path}.{key}" if path else str(key)
            found.extend(_differences(old.get(key), new.get(key), inside))
        return found
    return [] if old == new else [path]
