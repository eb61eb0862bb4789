"""Policy and records to the decisions that the netmap shows: who sees whom, and the filters.

For now there is one policy, which lets everything through; the policy language brings others
behind the same face. Not for encoding. Sits on ``records``; ``tailnet.snapshot`` carries the result.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from appliance.records import NodeID
from appliance.wire import tailcfg

ALLOW_ALL: tuple[tailcfg.FilterRule, ...] = (
    tailcfg.FilterRule(
        src_ips=("*",),
        dst_ports=(tailcfg.NetPortRange(ip="*", ports=tailcfg.PortRange(first=0, last=65535)),),
    ),
)


@dataclass(frozen=True, slots=True, eq=False)
class Sight:
    """A visibility class: all nodes that see the same peers share one such object.

    ``nodes`` None means every node of the tailnet. A node never sees itself as a peer, so its own
    id in ``nodes`` means nothing. Compared by identity: a new object means "may have changed".
    """

    nodes: frozenset[NodeID] | None = None

    def shows(self, node_id: NodeID) -> bool:
        """Tell whether the class sees this node."""
        return self.nodes is None or node_id in self.nodes


EVERYONE = Sight()


@dataclass(frozen=True, slots=True, eq=False)
class Compiled:
    """What the policy says of every node. The same object is carried over while nothing changes.

    ``sights`` and ``filters`` name the nodes that differ from ``default_sight`` and
    ``default_filter``.
    """

    default_sight: Sight = EVERYONE
    sights: dict[NodeID, Sight] = field(default_factory=dict)
    default_filter: tuple[tailcfg.FilterRule, ...] = ALLOW_ALL
    filters: dict[NodeID, tuple[tailcfg.FilterRule, ...]] = field(default_factory=dict)

    def sight(self, viewer: NodeID) -> Sight:
        """Give the visibility class of a viewer."""
        return self.sights.get(viewer, self.default_sight) if self.sights else self.default_sight

    def packet_filter(self, viewer: NodeID) -> tuple[tailcfg.FilterRule, ...]:
        """Give the rules that a node enforces for packets that reach it."""
        return self.filters.get(viewer, self.default_filter)


OPEN = Compiled()
"""The default policy: everything may reach everything."""
