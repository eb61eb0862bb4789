"""Node attributes: the capabilities that a policy gives to nodes themselves.

Not for capabilities between peers (``filters``) nor for those that every node has. Sits on
``state``. Source: tailscale 1.103 tailcfg/nodecap/nodecap.go; the recorded answers.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from ipaddress import IPv4Network
from typing import Final, NamedTuple

import msgspec

from appliance.policy.engine.approvers import keys_of
from appliance.policy.engine.matches import Key, spans_of
from appliance.policy.engine.state import State
from appliance.policy.text.language import Background, NodeAttribute, Policy
from appliance.policy.text.selectors import Kind, Selector
from appliance.records import Node, NodeID, User, UserID

Attributes = dict[str, tuple[msgspec.Raw, ...]]

DISABLE_IPV4 = "disable-ipv4"
RANDOMIZE_CLIENT_PORT = "randomize-client-port"
SUGGEST_EXIT_NODE = "suggest-exit-node"
DNS_SUBDOMAIN_RESOLVE = "dns-subdomain-resolve"
"""Names below a node's own resolve to it. Its peers look for this in what they know of it."""
FUNNEL = "funnel"
FUNNEL_PORTS = "https://tailscale.com/cap/funnel-ports?ports=443,8443,10000"
"""The ports that Funnel may use, as the hosted service gives them with ``funnel``."""
ONE_CGNAT = {"mac-always": "one-cgnat?v=true", "mac-never": "one-cgnat?v=false"}

NEXTDNS = "nextdns:"
"""Before the profile of NextDNS that a node is to use."""
NEXTDNS_NO_DEVICE_INFO = "nextdns:no-device-info"
_PROFILE: Final = re.compile(r"[A-Za-z0-9._-]{1,64}")
"""What can stand in a URL's path and say nothing else there; NextDNS's own have six digits."""


class NextDNS(NamedTuple):
    """What a policy says of NextDNS for one node; without a profile that of the settings stays."""

    profile: str = ""
    tells_device: bool = True


DEFAULT_NEXTDNS = NextDNS()


def attributes(state: State, node_id: NodeID) -> Attributes:
    """Return the attributes of a node, with their values (most have none)."""
    policy, node = state.rule_index.policy, state.nodes[node_id]
    found: Attributes = {}
    apps: dict[str, dict[bytes, msgspec.Raw]] = {}
    if policy.randomize_client_port:
        found[RANDOMIZE_CLIENT_PORT] = ()
    if policy.disable_ipv4:
        found[DISABLE_IPV4] = ()
    if policy.one_cgnat_route and node.hostinfo.os in ("macOS", "darwin"):
        found[ONE_CGNAT[policy.one_cgnat_route]] = ()
    for entry in _given(state, node, policy.attributes):
        for name in entry.attributes:
            found.setdefault(name, ())
        for name, values in entry.app.items():
            merged = apps.setdefault(name, {bytes(each): each for each in found.get(name, ())})
            for value in values:
                merged.setdefault(bytes(value), value)
    found.update((name, tuple(merged.values())) for name, merged in apps.items())
    if FUNNEL in found:
        found.setdefault(FUNNEL_PORTS, ())
    return found


def nextdns(state: State, node_id: NodeID) -> NextDNS:
    """Return what the policy says of NextDNS for a node: the first profile in its order counts."""
    entries = [each for each in state.rule_index.policy.attributes if _speaks_of_nextdns(each)]
    profile, tells_device = "", True
    for entry in _given(state, state.nodes[node_id], entries):
        for name in entry.attributes:
            if name == NEXTDNS_NO_DEVICE_INFO:
                tells_device = False
            else:
                profile = profile or nextdns_profile(name)
    return NextDNS(profile, tells_device)


def nextdns_profile(attribute: str) -> str:
    """Return the profile that an attribute names, "" if it names none that there can be."""
    if not attribute.startswith(NEXTDNS) or attribute == NEXTDNS_NO_DEVICE_INFO:
        return ""
    profile = attribute.removeprefix(NEXTDNS)
    return profile if _PROFILE.fullmatch(profile) else ""


def problem(attribute: str) -> str:
    """Return in words what is wrong with an attribute's text; "" if nothing is."""
    if not attribute:
        return "an attribute cannot be empty"
    if not attribute.startswith(NEXTDNS) or attribute == NEXTDNS_NO_DEVICE_INFO:
        return ""
    if nextdns_profile(attribute):
        return ""
    return f"{attribute!r}: a NextDNS profile has 1 to 64 letters, digits, '.', '_' and '-'"


def may_hide_ipv4(state: State) -> bool:
    """Return whether the policy keeps back any node's IPv4 address."""
    policy = state.rule_index.policy
    return policy.disable_ipv4 or any(DISABLE_IPV4 in each.attributes for each in policy.attributes)


def has_no_ipv4(state: State, node_id: NodeID) -> bool:
    """Return whether a node is to be without IPv4: it sees no such addresses, nobody sees its own."""
    return state.rule_index.policy.disable_ipv4 or DISABLE_IPV4 in attributes(state, node_id)


def may_resolve_subdomains(state: State) -> bool:
    """Whether names below those of any node resolve to it."""
    return any(
        DNS_SUBDOMAIN_RESOLVE in each.attributes for each in state.rule_index.policy.attributes
    )


def resolves_subdomains(state: State, node_id: NodeID) -> bool:
    """Whether names below a node's own resolve to it."""
    return DNS_SUBDOMAIN_RESOLVE in attributes(state, node_id)


def hides_ipv4(state: State, viewer: NodeID, peer: NodeID) -> bool:
    """Return whether a viewer is to see a peer without its IPv4 address; itself counts as peer."""
    return may_hide_ipv4(state) and (has_no_ipv4(state, peer) or has_no_ipv4(state, viewer))


def address_pools(
    policy: Policy, background: Background, users: Mapping[UserID, User], node: Node
) -> tuple[tuple[IPv4Network, ...], tuple[IPv4Network, ...]]:
    """Return the pools that a new node takes its IPv4 address from, and all others.

    Asked of the policy itself: what is compiled may be of the tailnet as it was a moment ago.
    """
    entries = [entry for entry in policy.attributes if entry.pools]
    keys = {(Kind.EVERYONE, ""), *keys_of(policy, background, node, users)}
    mine: dict[IPv4Network, None] = {}
    others: dict[IPv4Network, None] = {}
    for entry in entries:
        is_mine = any(_is_target(background, target, node, keys) for target in entry.targets)
        found = (pool for pool in entry.pools if isinstance(pool, IPv4Network))
        (mine if is_mine else others).update(dict.fromkeys(found))
    return tuple(mine), tuple(pool for pool in others if pool not in mine)


def _speaks_of_nextdns(entry: NodeAttribute) -> bool:
    return any(name.startswith(NEXTDNS) for name in entry.attributes)


def _given(state: State, node: Node, entries: Iterable[NodeAttribute]) -> Iterator[NodeAttribute]:
    """Return those of the entries that are for a node."""
    background, keys = state.rule_index.background, None
    for entry in entries:
        if keys is None:
            keys = set(state.rule_index.keys_of(node, state.users))
        if any(_is_target(background, each, node, keys) for each in entry.targets):
            yield entry


def _is_target(background: Background, selector: Selector, node: Node, keys: set[Key]) -> bool:
    if selector.kind is Kind.ADDRESSES:
        return any(
            span.holds(address)
            for span in spans_of(selector, background)
            for address in node.addresses
        )
    return (selector.kind, selector.name) in keys
