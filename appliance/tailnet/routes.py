"""Subnet and exit routes: what a node offers, what is approved, which of it is served.

Not for choosing between several routers of one route (``policy.engine.routes``). Sits on
``records``. Source: tailscale net/tsaddr (exit routes come as a pair).
"""

from __future__ import annotations

from collections.abc import Iterable
from ipaddress import IPv4Network, IPv6Network

from appliance.errors import Invalid
from appliance.records import Network, Node

EXIT_ROUTES: tuple[Network, ...] = (IPv4Network("0.0.0.0/0"), IPv6Network("::/0"))
"""What makes an exit node; clients need both or take neither."""

MAX_APPROVED_ROUTES = 4096
"""As many as a node may offer: every peer that sees the node carries the served ones."""


def is_exit(route: Network) -> bool:
    """Return whether a route is one of the two that make an exit node."""
    return route.prefixlen == 0


def check_approved(approved: Iterable[Network]) -> tuple[Network, ...]:
    """Return routes in order and once each, exit routes as a pair. Raises Invalid for too many."""
    found = _with_both_exits(approved)
    if len(found) > MAX_APPROVED_ROUTES:
        raise Invalid("routes-too-many", f"a node has at most {MAX_APPROVED_ROUTES} routes")
    return tuple(sorted(found, key=order))


def add_approved(node: Node, given: Iterable[Network]) -> tuple[Network, ...]:
    """Return the node's approved routes with some more that it offers, in order and once each.

    A router whose offers change all the time (an app connector, say) never has too many: approvals
    of what it no longer offers go first.
    """
    found = _with_both_exits((*node.approved_routes, *given))
    if len(found) > MAX_APPROVED_ROUTES:
        wanted = {*node.hostinfo.routable_ips, *EXIT_ROUTES}
        best = sorted(found, key=lambda route: (route not in wanted, *order(route)))
        found = set(best[:MAX_APPROVED_ROUTES])
    return tuple(sorted(found, key=order))


def differ(old: Node, new: Node) -> bool:
    """Return whether a node offers other routes than before; their order says nothing."""
    before, now = old.hostinfo.routable_ips, new.hostinfo.routable_ips
    return before is not now and set(before) != set(now)


def _with_both_exits(found: Iterable[Network]) -> set[Network]:
    routes = set(found)
    if any(is_exit(route) for route in routes):
        routes.update(EXIT_ROUTES)
    return routes


def order(route: Network) -> tuple[int, int, int]:
    """Return the sorting key of routes: IPv4 first, then by address and length."""
    return route.version, int(route.network_address), route.prefixlen


def offered(node: Node) -> tuple[Network, ...]:
    """Return the routes that the machine offers."""
    return tuple(sorted(set(node.hostinfo.routable_ips), key=order))


def served(node: Node) -> tuple[Network, ...]:
    """Return the routes that are offered and approved: what the node may carry for others."""
    if not node.approved_routes:
        return ()
    approved = set(node.approved_routes)
    return tuple(route for route in offered(node) if route in approved)
