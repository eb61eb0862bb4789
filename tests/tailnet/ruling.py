"""A tailnet under a policy, for tests of the verbs that a policy has a say in."""

from __future__ import annotations

import json
from ipaddress import ip_network
from typing import Any

from appliance.policy.answers.admission import admit
from appliance.records import AuthKey, Network, Node, NodeID, Settings
from appliance.tailnet import checkin, enrolment, policies, users
from appliance.tailnet.snapshot import Edit, Sequences
from appliance.wire import tailcfg
from appliance.wire.keys import NodeKey
from tests.support.builder import empty, key_for, machine_key, node_key
from tests.support.clock import NOON, fixed_rng


def networks(*texts: str) -> tuple[Network, ...]:
    return tuple(ip_network(text) for text in texts)


class Ruled:
    """One draft, as if each verb had been published; the policy is compiled when it is set only."""

    def __init__(self, policy: dict[str, Any] | None = None, settings: Settings | None = None):
        self.edit = Edit(empty(settings), Sequences())
        self._keys = 0
        for name in ("alice", "bob"):
            users.create(self.edit, name, NOON, email=f"{name}@example.com")
        if policy is not None:
            self.rule(policy)

    def rule(self, policy: dict[str, Any]) -> None:
        """Put a policy in force."""
        text = json.dumps(policy)
        known = self.edit.users, self.edit.nodes, policies.background(self.edit)
        policies.replace_policy(self.edit, admit(text, *known), NOON, source="database", by="test")

    def key(self, owner: str, **options: Any) -> tuple[AuthKey, str]:
        self._keys += 1
        return key_for(self.edit, owner, now=NOON, seed=self._keys, **options)

    def enrol(
        self,
        machine: str,
        *,
        owner: str = "",
        auth: tuple[AuthKey, str] | None = None,
        key: str = "",
        old: str = "",
        routes: tuple[str, ...] = (),
        tags: tuple[str, ...] = (),
    ) -> Node:
        """Register with a new key of an owner, a given one, or none."""
        auth = self.key(owner) if owner else auth
        request = tailcfg.RegisterRequest(
            version=130,
            node_key=node_key(key or machine),
            old_node_key=node_key(old) if old else NodeKey.zero(),
            auth=None if auth is None else tailcfg.RegisterResponseAuth(auth_key=auth[1]),
            hostinfo=tailcfg.Hostinfo(
                hostname=machine, routable_ips=networks(*routes), request_tags=tags
            ),
        )
        grant = enrolment.key_grant(request.auth)
        found = enrolment.register(
            self.edit, machine_key(machine), request, grant, NOON, rng=fixed_rng()
        )
        assert found.node is not None
        assert not found.response.error
        return found.node

    def offer(self, node_id: NodeID, *routes: str, endpoint: str = "") -> Node:
        """Let a node say which routes it has."""
        request = tailcfg.MapRequest(
            version=130,
            node_key=self.edit.nodes[node_id].node_key,
            hostinfo=tailcfg.Hostinfo(
                hostname=self.edit.nodes[node_id].hostname, routable_ips=networks(*routes)
            ),
            endpoints=(tailcfg.AddrPort.parse(endpoint),) if endpoint else (),
        )
        return checkin.check_in(self.edit, node_id, request)
