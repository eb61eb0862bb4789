"""The DNS configuration that nodes are told.

The nodes answer MagicDNS names themselves, from their peers' names; here is only what they cannot
know: resolvers, split DNS, search domains, static records. Not a DNS server, and not for what
differs from node to node (``owndns``).

Source: tailscale tailcfg/tailcfg.go (DNSConfig), ipn/ipnlocal/node_backend.go.
"""

from __future__ import annotations

from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg


def dns_config(snapshot: Snapshot) -> tailcfg.DNSConfig:
    """Return the DNS configuration of a tailnet, as its settings have it."""
    settings = snapshot.settings
    suffix = snapshot.tailnet.domain
    resolvers = _resolvers(settings.nameservers)
    routes = {name.strip("."): _resolvers(servers) for name, servers in settings.split_dns}
    domains = settings.search_domains
    if settings.magic_dns and suffix:
        # Clients add this route by themselves; older ones need to be told.
        routes = {suffix: (), **routes}
        domains = (suffix, *(domain for domain in domains if domain != suffix))
    if settings.magic_dns:
        for record in settings.extra_records:
            # Before 1.104 a record outside of all routes is never asked for.
            name = record.name.strip(".").lower()
            if name and not _is_under(name, suffix):
                routes.setdefault(name, ())
    return tailcfg.DNSConfig(
        resolvers=resolvers if settings.override_local_dns else (),
        # Used by a client without resolvers whose exit node does not resolve for it.
        fallback_resolvers=() if settings.override_local_dns else resolvers,
        routes=routes,
        domains=domains,
        proxied=settings.magic_dns,
        extra_records=settings.extra_records,
    )


def _resolvers(addresses: tuple[str, ...]) -> tuple[tailcfg.Resolver, ...]:
    return tuple(tailcfg.Resolver(addr=address) for address in addresses)


def _is_under(name: str, suffix: str) -> bool:
    return bool(suffix) and (name == suffix or name.endswith("." + suffix))
