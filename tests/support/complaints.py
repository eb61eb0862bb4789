"""What must never stand in a map response, because some client cannot bear it.

Not a judge of content: it knows no policy and no snapshot. Source: the strict client family
(tailscale-rs) and the traps of the Go client, as ``docs/protocol/tailcfg.md`` lists them.
"""

from collections import Counter
from collections.abc import Iterator

from appliance.wire import tailcfg


def complaints(response: tailcfg.MapResponse) -> list[str]:
    """List what clients would choke on; empty is good."""
    return [
        *_about_message(response),
        *_about_rules(response),
        *(text for node in _nodes(response) for text in _about_node(node)),
        *_about_patches(response),
    ]


def _nodes(response: tailcfg.MapResponse) -> Iterator[tailcfg.Node]:
    if response.node is not None:
        yield response.node
    yield from response.peers or ()
    yield from response.peers_changed or ()


def _about_message(response: tailcfg.MapResponse) -> Iterator[str]:
    if response.peers == ():
        yield "empty Peers: some clients ignore it, others drop all peers"
    others = (
        response.peers_changed,
        response.peers_removed,
        response.peers_changed_patch,
        response.online_change,
        response.peer_seen_change,
    )
    if response.peers and any(others):
        yield "Peers beside other peer fields: those are ignored"
    ids = Counter(node.id for node in (*(response.peers or ()), *(response.peers_changed or ())))
    yield from (f"node {node_id} stands twice" for node_id, times in ids.items() if times > 1)
    again = ids.keys() & set(response.peers_removed or ())
    yield from (f"node {node_id} is removed and added in one message" for node_id in again)
    ping = response.ping_request
    if ping is not None and not ping.url.startswith("https://"):
        yield f"PingRequest.URL {ping.url!r} is not https"
    if b"\\u0000" in tailcfg.encode(response):
        yield "a NUL character"


def _about_node(node: tailcfg.Node) -> Iterator[str]:
    if node.id <= 0 or not node.stable_id:
        yield "a node without ID or StableID"
    if not node.name.endswith("."):
        yield f"node {node.id}: the name {node.name!r} does not end with a dot"
    if node.key.is_zero:
        yield f"node {node.id}: zero key"
    shape = [(prefix.version, prefix.prefixlen) for prefix in node.addresses]
    if shape != [(4, 32), (6, 128)] and not node.is_wireguard_only:
        yield f"node {node.id}: the addresses are not one IPv4, one IPv6"


def _about_rules(response: tailcfg.MapResponse) -> Iterator[str]:
    named = (response.packet_filters or {}).values()
    for rules in named:
        for rule in rules or ():
            if bool(rule.dst_ports) == bool(rule.cap_grant):
                yield "a filter rule must have either DstPorts or CapGrant"
            if rule.src_bits or any(dst.bits is not None for dst in rule.dst_ports):
                yield "SrcBits or Bits: the client drops the whole filter"
            if rule.cap_grant and rule.ip_proto:
                yield "a capability grant with IPProto"


def _about_patches(response: tailcfg.MapResponse) -> Iterator[str]:
    for patch in response.peers_changed_patch or ():
        if patch.node_id <= 0:
            yield "a patch without NodeID"
        if patch == tailcfg.PeerChange(node_id=patch.node_id):
            yield f"node {patch.node_id}: a patch that changes nothing"
