"""Lists of source addresses, as rules spell them: kept as bits, written out when a rule needs them.

Not for what stands in them (``state`` decides that). Sits on ``bits`` and ``records``.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import TypeAlias

from appliance.policy.engine.bits import ones
from appliance.records import Node, NodeID
from appliance.wire.tailcfg.message import address_text

Spelled: TypeAlias = "tuple[int, tuple[str, ...], tuple[int, int]]"
"""What a list of sources is made of: nodes, words, and the nodes with one of their addresses."""
NOT_PICKED = 0, 0


class Sources:
    """The addresses of one set of sources, as rules spell them; equal content, same object.

    Spelled out when first asked for: a policy with thousands of rules would else make millions of
    texts that no rule of any node needs.
    """

    __slots__ = ("_ids", "_nodes", "_texts", "nodes", "picked", "words")

    def __init__(
        self,
        nodes: int,
        words: tuple[str, ...],
        picked: tuple[int, int] = NOT_PICKED,
        texts: tuple[str, ...] | None = None,
    ) -> None:
        self.nodes = nodes
        self.words = words
        self.picked = picked
        """Nodes of which it lists the IPv4 address alone, and those of which the IPv6 one."""
        self._texts = texts
        self._ids: Sequence[NodeID | None] = ()
        self._nodes: Mapping[NodeID, Node] = {}

    def look_at(self, ids: Sequence[NodeID | None], nodes: Mapping[NodeID, Node]) -> None:
        """Replace the table from slots to nodes; membership of ``nodes`` must not change."""
        if self._texts is None:
            self._ids, self._nodes = ids, nodes

    @property
    def is_empty(self) -> bool:
        """Return whether it lists nothing."""
        return not self.nodes and self.is_of_nodes

    @property
    def is_of_nodes(self) -> bool:
        """Return whether it lists all addresses of its nodes, and nothing else."""
        return not self.words and self.picked == NOT_PICKED

    @property
    def known_texts(self) -> tuple[str, ...] | None:
        """The addresses, if anybody asked for them."""
        return self._texts

    @property
    def texts(self) -> tuple[str, ...]:
        """All addresses and ranges, sorted."""
        if self._texts is None:
            found = set(self.words)
            for node in self._at(self.nodes):
                found.update(texts_of(node))
            v4, v6 = self.picked
            found.update(address_text(node.ipv4) for node in self._at(v4) if node.ipv4)
            found.update(address_text(node.ipv6) for node in self._at(v6) if node.ipv6)
            self._texts = tuple(sorted(found))
            self._ids, self._nodes = (), {}
        return self._texts

    def _at(self, slots: int) -> Iterator[Node]:
        found = (self._ids[slot] for slot in ones(slots))
        return (self._nodes[node_id] for node_id in found if node_id is not None)


def texts_of(node: Node | None) -> tuple[str, ...]:
    """Spell the addresses of a node."""
    return () if node is None else tuple(address_text(each) for each in node.addresses)
