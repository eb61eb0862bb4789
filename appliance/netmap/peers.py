"""A node as its peers see it: records to ``tailcfg.Node``.

What a node says of itself reaches
its peers in part only: what clients read of a peer, nothing else. Not for who sees whom
(``outlook``), nor for what a node is told of itself (``selfnode``).

Source: tailscale tailcfg/tailcfg.go (Node); ipn/ipnlocal, ssh/tailssh (what they read of a peer).
"""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from ipaddress import IPv4Network, IPv6Network

from appliance.netmap.outlook import PLAIN, Face
from appliance.policy.engine import nodeattrs
from appliance.records import Address, Network, Node, Presence
from appliance.tailnet.names import fqdn
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg
from appliance.wire.keys import DiscoKey

PEER_SERVICES = frozenset({"peerapi4", "peerapi6", "peerapi-dns-proxy"})
"""Services that peers use; the others are for an administrator's eyes."""
HOST_PREFIX_CACHE_ENTRIES = 32_768
"""Prefixes kept: two addresses for each of some 10,000 nodes, about 8 MB at most."""

_CAPABILITIES: Mapping[tuple[bool, bool], tailcfg.CapMap | None] = {
    (False, False): None,
    (True, False): {nodeattrs.SUGGEST_EXIT_NODE: ()},
    (False, True): {nodeattrs.DNS_SUBDOMAIN_RESOLVE: ()},
    (True, True): {nodeattrs.SUGGEST_EXIT_NODE: (), nodeattrs.DNS_SUBDOMAIN_RESOLVE: ()},
}
"""What clients read of a peer's capabilities: by whether it is an exit node, and has subdomains.

Apple's apps list suggested exit nodes only, so every approved one is."""


def peer(snapshot: Snapshot, node: Node, face: Face = PLAIN) -> tailcfg.Node:
    """Return a node as its peers see it, those to whom it shows this face."""
    presence = snapshot.presence_of(node.id)
    return node_told(
        snapshot,
        node,
        face,
        hostinfo=peer_hostinfo(node.hostinfo),
        online=presence.online,
        cap_map=_CAPABILITIES[face.is_exit, face.has_subdomains],
        disco_key=node.disco_key,
        endpoints=node.endpoints,
        last_seen=shown_last_seen(presence),
    )


def node_told(
    snapshot: Snapshot,
    node: Node,
    face: Face,
    *,
    hostinfo: tailcfg.Hostinfo,
    online: bool,
    cap_map: tailcfg.CapMap | None,
    disco_key: DiscoKey | None = None,
    endpoints: tuple[tailcfg.AddrPort, ...] | None = None,
    last_seen: datetime | None = None,
    stable_tailnet_id: str = "",
) -> tailcfg.Node:
    """Return a node with what it and its peers are told alike, and what is given."""
    addresses = _addresses(node, face)
    routes = face.routes
    return tailcfg.Node(
        id=node.id,
        stable_id=node.stable_id,
        name=fqdn(snapshot, node),
        user=node.owner_id,
        key=node.node_key,
        key_expiry=node.expires_at,
        key_signature=node.key_signature,
        machine=node.machine_key,
        disco_key=disco_key,
        addresses=addresses,
        allowed_ips=addresses + routes.allowed if routes.allowed else None,
        endpoints=endpoints,
        home_derp=node.home_derp,
        hostinfo=hostinfo,
        created=node.created_at,
        cap=node.capver,
        tags=node.tags,
        primary_routes=routes.primary,
        last_seen=last_seen,
        online=online,
        machine_authorized=True,
        cap_map=cap_map,
        expired=snapshot.presence_of(node.id).expired,
        stable_tailnet_id=stable_tailnet_id,
    )


def shown_last_seen(presence: Presence) -> datetime | None:
    """Return the time that peers are told: of an online node, when it came online.

    Apps take a peer without it for one that was never online. It stays while the node is online,
    so that a reconnect within the grace time is no news. Source: tailscale tailcfg/tailcfg.go
    (Node.LastSeen: not updated while Online is true); Apple's client 1.102.
    """
    return presence.online_since if presence.online else presence.last_seen


def peer_hostinfo(hostinfo: tailcfg.Hostinfo) -> tailcfg.Hostinfo:
    """Return the part of a Hostinfo that peers may see."""
    return tailcfg.Hostinfo(
        os=hostinfo.os,
        hostname=hostinfo.hostname,
        sharee_node=hostinfo.sharee_node,
        services=tuple(s for s in hostinfo.services if s.proto in PEER_SERVICES),
        ssh_host_keys=hostinfo.ssh_host_keys,
        app_connector=hostinfo.app_connector,
        location=hostinfo.location,
    )


def shown_addresses(node: Node, face: Face) -> tuple[Address, ...]:
    """Return the addresses of a node that are shown with this face, IPv4 first."""
    ipv4, ipv6 = node.ipv4, node.ipv6
    if ipv6 is None:
        return () if ipv4 is None else (ipv4,)
    return (ipv6,) if ipv4 is None or face.hides_ipv4 else (ipv4, ipv6)


def _addresses(node: Node, face: Face) -> tuple[Network, ...]:
    return tuple(map(_host_prefix, shown_addresses(node, face)))


@lru_cache(maxsize=HOST_PREFIX_CACHE_ENTRIES)
def _host_prefix(address: Address) -> Network:
    # From the number: from the address the standard library takes ten times as long.
    if address.version == 4:
        return IPv4Network(int(address))
    return IPv6Network(int(address))
