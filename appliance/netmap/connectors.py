"""App connectors: which domains other nodes ask a connector for, and where.

The policy names domains in the node attribute ``tailscale.com/app-connectors``, and by tag the
connectors that serve them. A connector is the DNS server of its domains: it learns addresses from
the answers that it gives, and offers routes to them. So the others must ask it, by DNS over HTTPS
at its PeerAPI. Only those are told to who see it and whom it would answer: it answers nodes that
its packet filter lets through to the internet, and a domain whose resolver refuses is dead.

Not for the connector's own side, which the client has, nor for approving its routes (``policy``).
Source: tailscale v1.102.5 appc/appconnector.go, types/appctype, ipn/ipnlocal/peerapi.go
(offersExitNodeOrAppConnectorAndPeerHasAutogroupInternet).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address

import msgspec

from appliance.policy.engine import nodeattrs
from appliance.policy.text import spans
from appliance.policy.text.spans import Span
from appliance.records import Node, NodeID
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg

APP_CONNECTORS = "tailscale.com/app-connectors"
MAX_RESOLVERS = 4
"""Connectors that a node is told of for one domain; clients ask several at once."""
MAX_DOMAINS = 1024
"""Domains that a node is told of: each is a route in its system's resolver."""

_TCP, _DNS = 6, 53
_INTERNET: Mapping[int, IPv4Address | IPv6Address] = {
    4: IPv4Address("0.0.0.0"),  # noqa: S104 - asked about, not bound to
    6: IPv6Address("2000::"),
}
"""What a connector looks for in its filter when it is asked, by the family of the asker."""
_DOMAIN = re.compile(
    r"(?=.{1,253}\Z)[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?(?:\.[a-z0-9_](?:[a-z0-9_-]{0,61}[a-z0-9_])?)*"
)
"""Clients end over a suffix that is no name."""


_ANYBODY = (Span(4, 0, (1 << 32) - 1), Span(6, 0, (1 << 128) - 1))


class _App(msgspec.Struct):
    domains: tuple[str, ...] = ()
    connectors: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Connector:
    """A node that serves domains. ``askers`` are the addresses that it answers, as sorted spans.

    ``urls`` has its PeerAPI by address family. ``rules`` is the filter that ``askers`` are of.
    """

    node: Node
    domains: tuple[str, ...]
    urls: Mapping[int, str]
    askers: tuple[Span, ...]
    rules: tuple[tailcfg.FilterRule, ...]


def connectors(snapshot: Snapshot, before: tuple[Connector, ...] = ()) -> tuple[Connector, ...]:
    """Return the connectors of a tailnet, by id; those of ``before`` that are as they were."""
    state = snapshot.compiled.state
    if state is None or not any(
        APP_CONNECTORS in entry.app for entry in state.rule_index.policy.attributes
    ):
        return ()
    known = {connector.node.id: connector for connector in before}
    found = []
    for node in snapshot.nodes.values():
        if not node.hostinfo.app_connector or node.id not in state.matches:
            continue
        if node.id in snapshot.expired:
            continue
        values = nodeattrs.attributes(state, node.id).get(APP_CONNECTORS, ())
        domains, urls = _domains(values, node.tags), _urls(node)
        if not domains or not urls:
            continue
        rules, old = snapshot.compiled.packet_filter(node.id), known.get(node.id)
        askers = old.askers if old is not None and old.rules is rules else _askers(rules)
        found.append(Connector(node, domains, urls, askers, rules))
    return tuple(sorted(found, key=lambda connector: connector.node.id))


def routes(
    snapshot: Snapshot, viewer: NodeID, there: Iterable[Connector]
) -> dict[str, tuple[tailcfg.Resolver, ...]]:
    """Return the domains that a node asks connectors for, and the resolvers of each.

    A connector asks nobody for the domains that it serves.
    """
    node, sight, state = (
        snapshot.nodes[viewer],
        snapshot.compiled.sight(viewer),
        snapshot.compiled.state,
    )
    found: dict[str, tuple[tailcfg.Resolver, ...]] = {}
    own: set[str] = set()
    for connector in there:
        peer = connector.node
        if peer.id == viewer:
            own = set(connector.domains)
            continue
        if state is None or not sight.shows(peer.id):
            continue
        hides_ipv4 = nodeattrs.hides_ipv4(state, viewer, peer.id)
        url = _url(node, connector, hides_ipv4=hides_ipv4)
        if not url:
            continue
        for domain in connector.domains:
            told = found.get(domain, ())
            if (told or len(found) < MAX_DOMAINS) and len(told) < MAX_RESOLVERS:
                found[domain] = (*told, tailcfg.Resolver(addr=url))
    return {domain: told for domain, told in found.items() if domain not in own}


def _url(asker: Node, connector: Connector, *, hides_ipv4: bool) -> str:
    """Return where a node asks a connector; "" if it would get no answer."""
    for address in asker.addresses:
        family = address.version
        if (family == 4 and hides_ipv4) or family not in connector.urls:
            continue
        if spans.among(connector.askers, address):
            return connector.urls[family]
    return ""


def _domains(values: Iterable[msgspec.Raw], tags: tuple[str, ...]) -> tuple[str, ...]:
    found: dict[str, None] = {}
    for value in values:
        try:
            app = msgspec.json.decode(value, type=_App)
        except msgspec.ValidationError:
            continue
        if "*" not in app.connectors and not set(app.connectors) & set(tags):
            continue
        for text in app.domains:
            domain = text.removeprefix("*.").strip(".").lower()
            if _DOMAIN.fullmatch(domain):
                found[domain] = None
    return tuple(found)


def _urls(node: Node) -> dict[int, str]:
    ports = {service.proto: service.port for service in node.hostinfo.services}
    found = {}
    if node.ipv4 is not None and (port := ports.get("peerapi4")):
        found[4] = f"http://{node.ipv4}:{port}/dns-query"
    if node.ipv6 is not None and (port := ports.get("peerapi6")):
        found[6] = f"http://[{node.ipv6}]:{port}/dns-query"
    return found


def _askers(rules: tuple[tailcfg.FilterRule, ...]) -> tuple[Span, ...]:
    """Return the addresses that a filter lets through to the internet's port 53."""
    found: list[Span] = []
    for rule in rules:
        if rule.ip_proto and _TCP not in rule.ip_proto:
            continue
        families = {family for family, address in _INTERNET.items() if _leads_to(rule, address)}
        for text in rule.src_ips if families else ():
            parsed = _ANYBODY if text == "*" else (spans.parse(text),)
            found += [span for span in parsed if span is not None and span.family in families]
    return spans.union(found)


def _leads_to(rule: tailcfg.FilterRule, address: IPv4Address | IPv6Address) -> bool:
    return any(
        dst.ports.first <= _DNS <= dst.ports.last
        and (dst.ip == "*" or ((span := spans.parse(dst.ip)) is not None and span.holds(address)))
        for dst in rule.dst_ports
    )
