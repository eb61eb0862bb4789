"""The counters from which new records get their ids.

Not for storing them (``store``). Pure.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType

from appliance.records import AuthKeyID, NodeID, PolicyTextID, UserID


class Sequences:
    """Counters for new ids, shared by all tailnets of a server; ids are never used twice.

    ``more`` are those of further kinds of records, by the name of their mapping in ``kinds``.
    """

    __slots__ = ("auth_key", "more", "node", "policy", "tailnet", "user")

    def __init__(
        self,
        *,
        tailnet: int = 0,
        user: int = 0,
        node: int = 0,
        auth_key: int = 0,
        policy: int = 0,
        more: Mapping[str, int] = MappingProxyType({}),
    ) -> None:
        self.tailnet = tailnet
        self.user = user
        self.node = node
        self.auth_key = auth_key
        self.policy = policy
        self.more = dict(more)

    def next(self, name: str) -> int:
        """Take a new id of a further kind of records, such as "api_keys"."""
        self.more[name] = number = self.more.get(name, 0) + 1
        return number

    def next_user(self) -> UserID:
        """Take a new user id."""
        self.user += 1
        return UserID(self.user)

    def next_node(self) -> NodeID:
        """Take a new node id."""
        self.node += 1
        return NodeID(self.node)

    def next_auth_key(self) -> AuthKeyID:
        """Take a new auth key id."""
        self.auth_key += 1
        return AuthKeyID(self.auth_key)

    def next_policy(self) -> PolicyTextID:
        """Take a new id of a policy text."""
        self.policy += 1
        return PolicyTextID(self.policy)
