"""NextDNS: a resolver that is told which node asks, so that its lists and logs tell nodes apart.

Not for what the policy says of it (``policy.nodeattrs``) nor for the other resolvers (``dns``).
Sits on ``tailnet.snapshot``. Only where the settings name NextDNS does DNS differ by node.

Source: tailscale net/dns/publicdns (DoHIPsOfBase: ``?query``); docs/protocol/map.md.
"""

from __future__ import annotations

from typing import NamedTuple
from urllib.parse import SplitResult, quote, urlsplit

import msgspec

from appliance.netmap.outlook import own_attributes, own_face
from appliance.netmap.peers import shown_addresses
from appliance.policy.engine import nodeattrs
from appliance.records import NodeID, Settings
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg

HOST = "dns.nextdns.io"
_NETLOCS = frozenset({HOST, f"{HOST}:443"})
DEVICE_NAME, DEVICE_MODEL, DEVICE_IP = "device_name", "device_model", "device_ip"
_KEYS = frozenset({DEVICE_NAME, DEVICE_MODEL, DEVICE_IP})


class Asker(NamedTuple):
    """What NextDNS is to know of one node: another profile, and a query; both may be empty."""

    profile: str = ""
    query: str = ""


def is_named(settings: Settings) -> bool:
    """Return whether any resolver of a tailnet is NextDNS."""
    return any(map(is_nextdns, settings.nameservers)) or any(
        is_nextdns(address) for _, servers in settings.split_dns for address in servers
    )


def is_nextdns(address: str) -> bool:
    """Return whether a resolver is NextDNS itself, asked over https."""
    return _split(address) is not None


def asker(snapshot: Snapshot, viewer: NodeID) -> Asker:
    """Return what NextDNS is to know of a node. Raises KeyError if there is no such node."""
    state, node = snapshot.compiled.state, snapshot.nodes[viewer]
    chosen = nodeattrs.DEFAULT_NEXTDNS
    if state is not None and viewer in state.matches:
        chosen = nodeattrs.nextdns(state, viewer)
    if not chosen.tells_device:
        return Asker(chosen.profile)
    given = own_attributes(snapshot, viewer)
    address = next(iter(shown_addresses(node, own_face(snapshot, viewer, given))), None)
    told = {
        DEVICE_NAME: node.hostname,
        DEVICE_MODEL: node.hostinfo.os,
        DEVICE_IP: "" if address is None else str(address),
    }
    query = "&".join(
        f"{key}={quote(value, safe='', errors='replace')}" for key, value in told.items() if value
    )
    return Asker(chosen.profile, query)


def fit(config: tailcfg.DNSConfig, of: Asker) -> tailcfg.DNSConfig:
    """Return a tailnet's DNS configuration as one node is told it."""

    def each(resolvers: tuple[tailcfg.Resolver, ...]) -> tuple[tailcfg.Resolver, ...]:
        return tuple(
            msgspec.structs.replace(resolver, addr=address_for(resolver.addr, of))
            for resolver in resolvers
        )

    return msgspec.structs.replace(
        config,
        resolvers=each(config.resolvers),
        fallback_resolvers=each(config.fallback_resolvers),
        routes={name: each(resolvers) for name, resolvers in config.routes.items()},
    )


def address_for(address: str, of: Asker) -> str:
    """Return a resolver's address as one node is told it; only that of NextDNS is another.

    A profile takes the place of the whole path. Of a query in the settings all stays but what
    says otherwise which device it is.
    """
    parts = _split(address)
    if parts is None or not (of.profile or of.query):
        return address
    path = f"/{of.profile}" if of.profile else parts.path or "/"
    query = parts.query
    if of.query:
        kept = [pair for pair in query.split("&") if pair and pair.partition("=")[0] not in _KEYS]
        query = "&".join((*kept, of.query))
    # Clients know NextDNS in this spelling only, with a slash behind it.
    return parts._replace(netloc=HOST, path=path, query=query).geturl()


def _split(address: str) -> SplitResult | None:
    try:
        parts = urlsplit(address)
    except ValueError:
        return None
    return parts if parts.scheme == "https" and parts.netloc.lower() in _NETLOCS else None
