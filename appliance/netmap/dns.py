"""The DNS configuration that nodes are told.

The nodes answer MagicDNS names themselves, from their peers' names; here is only what they cannot
know: resolvers, split DNS, search domains, static records. Not a DNS server.

Source: tailscale tailcfg/tailcfg.go (DNSConfig), ipn/ipnlocal/node_backend.go.
"""

from __future__ import annotations

from typing import NamedTuple

from appliance.netmap import nextdns
from appliance.records import NodeID
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg


class Personal(NamedTuple):
    """The DNS configuration in the settings of two snapshots, of which nodes are told their own."""

    before: tailcfg.DNSConfig
    after: tailcfg.DNSConfig

    @property
    def is_changed(self) -> bool:
        """Tell whether the settings differ, so that every node may be told something else."""
        return self.before is not self.after and self.before != self.after


def is_personal(snapshot: Snapshot) -> bool:
    """Tell whether nodes of a tailnet are told different DNS configurations."""
    return nextdns.is_named(snapshot.settings)


def personal_between(old: Snapshot, new: Snapshot) -> Personal | None:
    """Give what nodes are told their own of; None if all are told the same in both snapshots."""
    if old.settings is new.settings and old.tailnet is new.tailnet:
        if not is_personal(new):
            return None
        config = dns_config(new)
        return Personal(config, config)
    if not is_personal(old) and not is_personal(new):
        return None
    return Personal(dns_config(old), dns_config(new))


def own_dns_config(snapshot: Snapshot, viewer: NodeID) -> tailcfg.DNSConfig:
    """Give the DNS configuration of one node. Raises KeyError if there is no such node."""
    config = dns_config(snapshot)
    if not is_personal(snapshot):
        return config
    return nextdns.fit(config, nextdns.asker(snapshot, viewer))


def own_dns_between(
    personal: Personal, old: Snapshot, new: Snapshot, viewer: NodeID
) -> tailcfg.DNSConfig | None:
    """Give the DNS configuration that a node is told between two snapshots; None: as it was."""
    is_asker_same = (
        old.nodes[viewer] is new.nodes[viewer]
        and old.compiled is new.compiled
        and old.routes is new.routes
    )
    if is_asker_same and not personal.is_changed:
        return None
    was, now = nextdns.asker(old, viewer), nextdns.asker(new, viewer)
    told = nextdns.fit(personal.after, now)
    return None if told == nextdns.fit(personal.before, was) else told


def dns_config(snapshot: Snapshot) -> tailcfg.DNSConfig:
    """Give the DNS configuration of a tailnet, as its settings have it."""
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
