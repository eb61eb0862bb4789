"""A node as others see it, and as it sees itself: records to ``tailcfg.Node``.

What a node says of itself reaches
its peers in part only: what clients read of a peer, nothing else. Not for who sees whom (``view``).

Source: tailscale tailcfg/tailcfg.go (Node); ipn/ipnlocal, ssh/tailssh (what they read of a peer).
"""

from __future__ import annotations

from datetime import datetime
from functools import lru_cache
from ipaddress import ip_network

from appliance.netmap.outlook import PLAIN, Face, own_face
from appliance.policy.engine import nodeattrs
from appliance.records import Address, Network, Node, NodeID, Presence
from appliance.tailnet.names import fqdn
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg

PEER_SERVICES = frozenset({"peerapi4", "peerapi6", "peerapi-dns-proxy"})
"""Services that peers use; the others are for an administrator's eyes."""
HOST_PREFIX_CACHE_ENTRIES = 32_768
"""Prefixes kept: two addresses for each of some 10,000 nodes, about 8 MB at most."""

CAP_FILE_SHARING = "https://tailscale.com/cap/file-sharing"
CAP_IS_ADMIN = "https://tailscale.com/cap/is-admin"
CAP_SSH = "https://tailscale.com/cap/ssh"
CAP_DEFAULT_AUTO_UPDATE = "default-auto-update"

_FALSE = tailcfg.Raw(b"false")
_BASELINE: tailcfg.CapMap = {CAP_IS_ADMIN: (), CAP_SSH: (), CAP_DEFAULT_AUTO_UPDATE: (_FALSE,)}
_EXIT_NODE: tailcfg.CapMap = {nodeattrs.SUGGEST_EXIT_NODE: ()}
_WITH_FILE_SHARING: tailcfg.CapMap = {CAP_FILE_SHARING: (), **_BASELINE}


def peer(snapshot: Snapshot, node: Node, face: Face = PLAIN) -> tailcfg.Node:
    """Give a node as its peers see it, those to whom it shows this face."""
    presence = snapshot.presence_of(node.id)
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
        disco_key=node.disco_key,
        addresses=addresses,
        allowed_ips=addresses + routes.allowed if routes.allowed else None,
        endpoints=node.endpoints,
        home_derp=node.home_derp,
        hostinfo=peer_hostinfo(node.hostinfo),
        created=node.created_at,
        cap=node.capver,
        tags=node.tags,
        primary_routes=routes.primary,
        last_seen=shown_last_seen(presence),
        online=presence.online,
        machine_authorized=True,
        cap_map=_EXIT_NODE if face.is_exit else None,
        expired=presence.expired,
    )


def self_node(snapshot: Snapshot, node: Node) -> tailcfg.Node:
    """Give a node as it sees itself.

    Who reads this is connected, so ``online`` is true. Endpoints, disco key and services are left
    out: the node knows them best, and every change of them would make it rebuild its netmap.
    """
    face = own_face(snapshot, node.id)
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
        addresses=addresses,
        allowed_ips=addresses + routes.allowed if routes.allowed else None,
        home_derp=node.home_derp,
        hostinfo=tailcfg.Hostinfo(
            os=node.hostinfo.os,
            hostname=node.hostinfo.hostname,
            routable_ips=node.hostinfo.routable_ips,
        ),
        created=node.created_at,
        cap=node.capver,
        tags=node.tags,
        primary_routes=routes.primary,
        online=True,
        machine_authorized=True,
        cap_map=_capabilities(snapshot, node),
        expired=snapshot.presence_of(node.id).expired,
    )


def own_attributes(snapshot: Snapshot, node_id: NodeID) -> nodeattrs.Attributes:
    """Give the attributes that the policy gives a node itself."""
    state = snapshot.compiled.state
    if state is None or node_id not in state.standings:
        return {}
    return nodeattrs.attributes(state, node_id)


def _capabilities(snapshot: Snapshot, node: Node) -> tailcfg.CapMap:
    baseline = _WITH_FILE_SHARING if snapshot.settings.file_sharing else _BASELINE
    given = own_attributes(snapshot, node.id)
    return {**baseline, **given} if given else baseline


def shown_last_seen(presence: Presence) -> datetime | None:
    """Give the time that peers are told: only for nodes that are offline."""
    return None if presence.online else presence.last_seen


def peer_hostinfo(hostinfo: tailcfg.Hostinfo) -> tailcfg.Hostinfo:
    """Give the part of a Hostinfo that peers may see."""
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
    """Give the addresses of a node that are shown with this face, IPv4 first."""
    if face.hides_ipv4 and node.ipv6 is not None:
        return (node.ipv6,)
    return node.addresses


def _addresses(node: Node, face: Face) -> tuple[Network, ...]:
    return tuple(_host_prefix(address) for address in shown_addresses(node, face))


@lru_cache(maxsize=HOST_PREFIX_CACHE_ENTRIES)
def _host_prefix(address: Address) -> Network:
    return ip_network(address)
