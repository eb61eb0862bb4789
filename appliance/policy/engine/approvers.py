"""Auto approval: which of a node's offered routes need no administrator.

Not for storing the approval (a verb of ``tailnet`` does) nor for taking one back: a route that was
approved stays so when the rule goes. Sits on ``matches``.
Source: the recorded answers: a prefix in ``routes`` covers itself and all in it, but never an exit
route; only ``exitNode`` approves those.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from appliance.policy.engine.matches import Key, groups_by_login, user_keys
from appliance.policy.text.language import Background, Policy
from appliance.policy.text.selectors import Kind, Selector
from appliance.records import Network, Node, User, UserID
from appliance.wire.tailcfg import Hostinfo


class Approvals:
    """What a policy approves, made ready for asking about many nodes."""

    def __init__(self, policy: Policy, background: Background) -> None:
        self._rules = policy.approvers
        self._background = background
        self._groups = groups_by_login(policy)

    def of(self, node: Node, users: Mapping[UserID, User]) -> tuple[Network, ...]:
        """Return the routes that a node offers and that its tags or its owner may have."""
        offered = _offered(node.hostinfo)
        if not offered:
            return ()
        keys = _keys(self._groups, self._background, node, users)
        allowed = [network for network, who in self._rules.routes if _is_named(who, keys)]
        is_exit_node = _is_named(self._rules.exit_node, keys)
        return tuple(
            route
            for route in offered
            if (is_exit_node if not route.prefixlen else _is_covered(route, allowed))
        )


def approved(
    policy: Policy, background: Background, node: Node, users: Mapping[UserID, User]
) -> tuple[Network, ...]:
    """Return the routes that a node offers and that its tags or its owner may have."""
    return Approvals(policy, background).of(node, users)


def _offered(hostinfo: Hostinfo) -> tuple[Network, ...]:
    return tuple(dict.fromkeys(hostinfo.routable_ips))


def keys_of(
    policy: Policy, background: Background, node: Node, users: Mapping[UserID, User]
) -> set[Key]:
    """Return the keys that a node answers to by its tags or its owner, whatever is compiled."""
    return _keys(groups_by_login(policy), background, node, users)


def _keys(
    groups: Mapping[str, Iterable[str]],
    background: Background,
    node: Node,
    users: Mapping[UserID, User],
) -> set[Key]:
    if node.tags:
        return {(Kind.TAGGED, ""), *((Kind.TAG, tag) for tag in node.tags)}
    user = users.get(node.user_id) if node.user_id is not None else None
    return set() if user is None else set(user_keys(groups, background, user))


def _is_named(who: tuple[Selector, ...], keys: set[Key]) -> bool:
    return any((selector.kind, selector.name) in keys for selector in who)


def _is_covered(route: Network, allowed: list[Network]) -> bool:
    return any(
        route.version == network.version and route.subnet_of(network)  # type: ignore[arg-type]  # same family
        for network in allowed
    )
