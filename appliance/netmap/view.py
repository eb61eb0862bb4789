"""All that one node should know, as a value; and the message that tells a client all of it.

``view`` is also the answer to "what does this node see?" in API and console. Differences between
two views are ``delta``'s, the fast way to bytes is ``encoded``'s. Sits on ``tailnet.snapshot``.

Source: tailscale tailcfg/tailcfg.go (MapResponse), control/controlclient/map.go.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime

from appliance.netmap.capver import Band, band, fit_derp_map
from appliance.netmap.dns import own_dns_config
from appliance.netmap.outlook import PLAIN, Outlooks
from appliance.netmap.peers import peer, self_node
from appliance.netmap.relays import derp_map
from appliance.netmap.users import profiles
from appliance.policy.engine import ssh
from appliance.policy.engine.compile import Sight
from appliance.policy.engine.filters import fit_rules
from appliance.records import NodeID, UserID
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg

NO_SSH_RULES = tailcfg.SSHPolicy()
BASE_FILTER = "base"
"""The name under which clients file a filter that comes without a name."""


@dataclass(frozen=True, slots=True)
class Netmap:
    """What one node knows of its tailnet, in the newest form. ``peers`` are in order of their id."""

    node: tailcfg.Node
    peers: Mapping[NodeID, tailcfg.Node]
    user_profiles: Mapping[UserID, tailcfg.UserProfile]
    packet_filter: tuple[tailcfg.FilterRule, ...]
    ssh_policy: tailcfg.SSHPolicy
    dns_config: tailcfg.DNSConfig
    derp_map: tailcfg.DERPMap
    domain: str
    disable_logs: bool


def visible(snapshot: Snapshot, sight: Sight) -> list[NodeID]:
    """Give the ids of all nodes that a visibility class sees, in order.

    A viewer's own id may be among them: it is never its own peer.
    """
    if sight.nodes is None:
        return sorted(snapshot.nodes)
    return sorted(snapshot.nodes.keys() & sight.nodes)


def view(snapshot: Snapshot, viewer: NodeID) -> Netmap:
    """Give all that a node should know. Raises KeyError if there is no such node."""
    node = snapshot.nodes[viewer]
    scene = Outlooks(snapshot)
    outlook = scene.of(viewer)
    shown, faces = visible(snapshot, outlook.sight), scene.faces(outlook)
    others = [snapshot.nodes[node_id] for node_id in shown if node_id != viewer]
    owners = {node.owner_id, *(other.owner_id for other in others)}
    return Netmap(
        node=self_node(snapshot, node),
        peers={o.id: peer(snapshot, o, faces.get(o.id, PLAIN)) for o in others},
        user_profiles={UserID(user.id): user for user in profiles(snapshot, owners)},
        packet_filter=snapshot.compiled.packet_filter(viewer),
        ssh_policy=ssh_rules(snapshot, viewer),
        dns_config=own_dns_config(snapshot, viewer),
        derp_map=derp_map(snapshot),
        domain=snapshot.tailnet.domain,
        disable_logs=snapshot.settings.disable_logs,
    )


def full(
    snapshot: Snapshot, viewer: NodeID, capver: int, now: datetime | None = None
) -> tailcfg.MapResponse:
    """Give the first message of a map session, which tells all that the node should know.

    With ``now`` it also says how late it is, so that a client with a wrong clock does not take
    keys for expired. Raises KeyError if there is no such node.
    """
    netmap = view(snapshot, viewer)
    of = band(capver)
    return tailcfg.MapResponse(
        node=netmap.node,
        derp_map=fit_derp_map(netmap.derp_map, of),
        peers=tuple(netmap.peers.values()) or None,
        dns_config=netmap.dns_config,
        domain=netmap.domain,
        user_profiles=tuple(netmap.user_profiles.values()),
        debug=tailcfg.Debug(disable_log_tail=True) if netmap.disable_logs else None,
        default_auto_update=default_auto_update(of),
        control_time=now,
        packet_filters={BASE_FILTER: fit_rules(netmap.packet_filter, of)},
        ssh_policy=netmap.ssh_policy,
    )


def ssh_rules(snapshot: Snapshot, viewer: NodeID) -> tailcfg.SSHPolicy:
    """Give the SSH rules that a node enforces.

    Rules that went away must be said, so a node without any is told an empty list from the start.
    """
    state = snapshot.compiled.state
    if state is None or not state.program.logins or viewer not in state.standings:
        return NO_SSH_RULES
    return ssh.ssh_policy(state, viewer)


def default_auto_update(of: Band) -> bool | None:
    """Give the field that older clients read where newer ones read the node attribute."""
    return False if of < Band.AUTO_UPDATE_ATTRIBUTE else None
