"""What makes relays (DERP) of a site file useless: none at all, hosts that nobody can dial.

Not for the map that nodes are told (``resolved``). Source: tailscale tailcfg/derpmap.go DERPNode;
derp/derphttp and net/netcheck, which always dial ``https://HostName:DERPPort``.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from ipaddress import IPv4Address, IPv6Address

from appliance.config import hosts
from appliance.config.reader import Reader
from appliance.config.settings import Region, RelayNode, Settings

HOST = "a host name or an address alone, without https:// and port"
NO_RELAY = (
    "without a relay no node comes up: turn derp.server.enabled on, or list the relays of others"
    " under derp.regions"
)

_PIN = re.compile(r"sha256-raw:[0-9a-fA-F]{64}")


def check_some_relay(settings: Settings, reader: Reader) -> None:
    """Refuse a map without any relay: clients wait for a home relay before they come up."""
    if not settings.derp.server.enabled and not settings.derp.regions:
        reader.refuse("derp", "(no relay)", "at least one relay", NO_RELAY)


def check_regions(settings: Settings, reader: Reader) -> None:
    """Check the regions of others: numbers, codes and names used once, relays that can be dialled."""
    server = settings.derp.server
    numbers: set[int] = set()
    codes = {server.region_code} if server.enabled else set()
    names = {f"{server.region_id}a"} if server.enabled else set()
    for i, region in enumerate(settings.derp.regions):
        path = f"derp.regions[{i}]"
        if region.id in numbers:
            reader.refuse(f"{path}.id", region.id, "a number that no other region has")
        is_own = server.enabled and region.id == server.region_id
        if is_own and region.code != server.region_code:
            wanted = f"{server.region_code!r}, the code of our own region {region.id}"
            reader.refuse(f"{path}.code", region.code, wanted)
        elif not is_own and region.code in codes:
            reader.refuse(f"{path}.code", region.code, "a code that no other region has")
        numbers.add(region.id)
        codes.add(region.code)
        _check_place(region, path, reader)
        _check_relays(region, path, names, reader, is_own=is_own)


def check_relay_server(settings: Settings, reader: Reader) -> None:
    """Check our own relay and its mesh."""
    server = settings.derp.server
    if server.separate and not server.listen:
        fix = "the addresses of the top level belong to the server"
        reader.refuse("derp.server.listen", [], "at least one HOST:PORT with 'separate'", fix)
    if server.host and not hosts.is_host(server.host):
        reader.refuse("derp.server.host", server.host, HOST, "the port goes into 'port'")
    for key, address in (("ipv4", server.ipv4), ("ipv6", server.ipv6)):
        if address is not None and (address.is_unspecified or address.is_multicast):
            reader.refuse(f"derp.server.{key}", str(address), "an address that nodes can dial")
    for i, text in enumerate(server.mesh.peers):
        if hosts.url(text) is None:
            reader.refuse(f"derp.server.mesh.peers[{i}]", text, "https://HOST/derp")
    if server.mesh.peers and server.mesh.key_file is None:
        reader.refuse("derp.server.mesh.key_file", None, "a key file when there are peers")
    if server.can_port80 and not settings.listen_plain and not settings.trusted_proxies:
        reader.refuse("listen_plain", [], "an address with port 80 when can_port80 is set")
    if server.can_port80 and server.ipv4 is None:
        reader.refuse("derp.server.ipv4", None, "an address when can_port80 is set")


def _check_place(region: Region, path: str, reader: Reader) -> None:
    for key, degrees, most in (
        ("latitude", region.latitude, 90),
        ("longitude", region.longitude, 180),
    ):
        if degrees is not None and abs(degrees) > most:
            reader.refuse(f"{path}.{key}", degrees, f"degrees from -{most} to {most}")


def _check_relays(
    region: Region, path: str, names: set[str], reader: Reader, *, is_own: bool
) -> None:
    if not region.nodes:
        reader.refuse(f"{path}.nodes", [], "at least one relay")
    elif all(node.stun_only for node in region.nodes) and not is_own:
        fix = "clients may choose the region as their home, and would have no relay there"
        reader.refuse(f"{path}.nodes", "(STUN servers only)", "at least one relay", fix)
    for j, node in enumerate(region.nodes):
        name = node.name or f"{region.code}-{j + 1}"
        if name in names:
            reader.refuse(f"{path}.nodes[{j}].name", name, "a name used only once")
        names.add(name)
        _check_relay(node, f"{path}.nodes[{j}]", reader)


def _check_relay(node: RelayNode, path: str, reader: Reader) -> None:
    if not hosts.is_host(node.host):
        reader.refuse(f"{path}.host", node.host, HOST, "the port goes into 'port'")
    _check_family(node.ipv4, IPv4Address, f"{path}.ipv4", reader)
    _check_family(node.ipv6, IPv6Address, f"{path}.ipv6", reader)
    if node.ipv4 == "none" and node.ipv6 == "none":
        reader.refuse(f"{path}.ipv6", "none", "one of the families", "nobody could reach it")
    name = node.cert_name
    if name and not _PIN.fullmatch(name) and not hosts.is_host(name):
        told = "a host name, or 'sha256-raw:' and 64 hexadecimal digits"
        reader.refuse(f"{path}.cert_name", name, told)


def _check_family(
    text: str, kind: Callable[[str], IPv4Address | IPv6Address], path: str, reader: Reader
) -> None:
    """Clients take anything but an address of the family for 'none', without a word."""
    if text in ("", "none"):
        return
    try:
        address = kind(text)
    except ValueError:
        address = None
    if address is None or not hosts.is_host(text):
        reader.refuse(path, text, "an address of this family, 'none', or nothing to ask DNS")
