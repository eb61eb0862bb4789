"""What another policy would change, node by node, before it is applied.

Not for applying it. Sits on ``compile``; ``policy diff`` prints it.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.policy import nodeattrs
from appliance.policy.compile import Compiled
from appliance.policy.ssh import ssh_policy
from appliance.policy.state import State
from appliance.records import NodeID
from appliance.wire import tailcfg


@dataclass(frozen=True, slots=True)
class Change:
    """What would change for one node; empty tuples and False where nothing does."""

    node: str
    peers_gained: tuple[str, ...] = ()
    peers_lost: tuple[str, ...] = ()
    lets_in_now: tuple[str, ...] = ()
    keeps_out_now: tuple[str, ...] = ()
    attributes_gained: tuple[str, ...] = ()
    attributes_lost: tuple[str, ...] = ()
    ssh_changes: bool = False

    @property
    def is_empty(self) -> bool:
        """Tell whether nothing would change."""
        return self == Change(self.node)

    def __str__(self) -> str:
        lines = [self.node]
        for words, sign, what in (
            (self.peers_gained, "+", "sees"),
            (self.peers_lost, "-", "sees"),
            (self.lets_in_now, "+", "lets in"),
            (self.keeps_out_now, "-", "lets in"),
            (self.attributes_gained, "+", "attribute"),
            (self.attributes_lost, "-", "attribute"),
        ):
            lines += [f"  {sign} {what} {word}" for word in words]
        if self.ssh_changes:
            lines.append("  ~ its SSH rules")
        return "\n".join(lines)


def compare(old: Compiled, new: Compiled) -> tuple[Change, ...]:
    """Give the nodes for which anything would change; both must be of the same nodes."""
    changes = (_change(old, new, node_id) for node_id in sorted(_state(new).nodes))
    return tuple(change for change in changes if not change.is_empty)


def _state(compiled: Compiled) -> State:
    if compiled.state is None:
        raise ValueError("only policies that were compiled can be compared")
    return compiled.state


def _change(old: Compiled, new: Compiled, node_id: NodeID) -> Change:
    before, after = _state(old), _state(new)
    names = {each: node.name for each, node in after.nodes.items()}
    seen_before, seen_now = _seen(old, node_id), _seen(new, node_id)
    let_before, let_now = _lets(old, node_id), _lets(new, node_id)
    had = set(nodeattrs.attributes(before, node_id))
    has = set(nodeattrs.attributes(after, node_id))
    return Change(
        names[node_id],
        peers_gained=tuple(sorted(names[each] for each in seen_now - seen_before)),
        peers_lost=tuple(sorted(names[each] for each in seen_before - seen_now)),
        lets_in_now=tuple(sorted(let_now - let_before)),
        keeps_out_now=tuple(sorted(let_before - let_now)),
        attributes_gained=tuple(sorted(has - had)),
        attributes_lost=tuple(sorted(had - has)),
        ssh_changes=ssh_policy(before, node_id) != ssh_policy(after, node_id),
    )


def _seen(compiled: Compiled, node_id: NodeID) -> frozenset[NodeID]:
    nodes = compiled.sight(node_id).nodes
    everyone = frozenset(_state(compiled).nodes)
    return (everyone if nodes is None else nodes) - {node_id}


def _lets(compiled: Compiled, node_id: NodeID) -> set[str]:
    """Spell what a filter lets in, one text for each source and destination."""
    found: set[str] = set()
    for rule in compiled.packet_filter(node_id):
        protocols = f" proto {','.join(map(str, rule.ip_proto))}" if rule.ip_proto else ""
        ends = [f"to {each.ip} port {_ports(each.ports)}{protocols}" for each in rule.dst_ports]
        ends += [f"with {name}" for grant in rule.cap_grant for name in grant.cap_map]
        found.update(f"{source} {end}" for source in rule.src_ips for end in ends)
    return found


def _ports(ports: tailcfg.PortRange) -> str:
    if (ports.first, ports.last) == (0, 65535):
        return "*"
    return str(ports.first) if ports.first == ports.last else f"{ports.first}-{ports.last}"
