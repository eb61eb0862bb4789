"""The policy in force: put there, followed by all that depends on it, asked what it approves.

``settle`` refreshes the derived state (the compiled policy, the elected routers) of a snapshot; it
compares the snapshot with the one before. Not for reading policies (``policy.admission``) nor
for where they come from. Sits on ``snapshot`` and the compiler.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from datetime import datetime

from appliance.policy.answers.admission import Admitted
from appliance.policy.engine.approvers import Approvals
from appliance.policy.engine.compile import OPEN, Compiled, compile, recompile  # noqa: A004 - its name
from appliance.policy.engine.routes import RouteTable, elect
from appliance.policy.engine.state import State
from appliance.policy.text.language import Background, Policy
from appliance.records import Node, NodeID, PolicyText, Role, Settings, User, UserID
from appliance.tailnet import routes
from appliance.tailnet.differences import differing
from appliance.tailnet.snapshot import Edit, Snapshot

_NOTHING = Background()

DENYING = Policy(acls=())
"""In force while there should be a policy and none can be: nobody reaches anything."""


def settle(old: Snapshot, new: Snapshot) -> Snapshot:
    """Return ``new`` with its derived state refreshed, starting from that of ``old``.

    Both must be of the same tailnet, and their mappings must not be written to any more. For a first
    snapshot pass ``new`` as ``old`` too. Costs next to nothing unless a policy names what changed.
    """
    compiled = _compiled(old, new)
    table = _routes(old, new, compiled)
    if compiled is new.compiled and table is new.routes:
        return new
    return replace(new, compiled=compiled, routes=table)


def deny_all(snapshot: Snapshot) -> Snapshot:
    """Return the snapshot with ``DENYING`` in force, and what follows from it."""
    denied = replace(snapshot, policy=DENYING, compiled=OPEN, routes=None)
    return settle(denied, denied)


def replace_policy(
    edit: Edit, admitted: Admitted, now: datetime, *, source: str, by: str
) -> PolicyText:
    """Put an admitted policy in force, and approve the routes that it approves.

    The text that is in force already stays the record it is.
    """
    record = edit.policy_text
    if record is None or (record.text, record.source) != (admitted.text, source):
        record = PolicyText(edit.ids.next_policy(), admitted.text, now, source, by)
    edit.put(record)
    edit.set_policy(admitted.policy, admitted.compiled)
    approve_offers(edit, list(edit.nodes.values()))
    return record


def approve_offers(edit: Edit, nodes: Iterable[Node]) -> None:
    """Approve those of the nodes' offered routes that need no administrator, and put the nodes."""
    approvals = _approvals(edit)
    if approvals is None:
        return
    for node in nodes:
        approved = _approved(approvals, edit, node)
        if approved is not node:
            edit.put(approved)


def with_approved_routes(edit: Edit, node: Node) -> Node:
    """Return the node with those of its offered routes approved that need no administrator.

    What was approved before stays. The same object if nothing follows; not yet put.
    """
    if not node.hostinfo.routable_ips:
        return node
    approvals = _approvals(edit)
    return node if approvals is None else _approved(approvals, edit, node)


def _approvals(edit: Edit) -> Approvals | None:
    rules = edit.policy.approvers
    if not rules.routes and not rules.exit_node:
        return None
    return Approvals(edit.policy, background(edit))


def _approved(approvals: Approvals, edit: Edit, node: Node) -> Node:
    given = approvals.of(node, edit.users)
    if set(given) <= set(node.approved_routes):
        return node
    return replace(node, approved_routes=routes.add_approved(node, given))


def background(tailnet: Snapshot | Edit) -> Background:
    """Return what policies depend on besides nodes and users."""
    return _background(tailnet.settings, tailnet.users)


def _background(settings: Settings, users: Mapping[UserID, User]) -> Background:
    roles = {user.id: user.role for user in users.values() if user.role is not Role.MEMBER}
    return Background(domains=settings.email_domains, roles=roles, providers=settings.providers)


def _is_of_settings(known: Background, settings: Settings) -> bool:
    return known.domains == settings.email_domains and known.providers == settings.providers


def _compiled(old: Snapshot, new: Snapshot) -> Compiled:
    if new.compiled.state is None and new.compiled is not OPEN:
        return new.compiled  # made by hand, for a test or a benchmark
    if _is_of(old.compiled, new.policy):
        base, nodes, users = old.compiled, old.nodes, old.users
    elif new.compiled.state is not None and _is_of(new.compiled, new.policy):
        # Made by who put the policy in force, for the tailnet as it was at that moment.
        base, nodes, users = new.compiled, new.compiled.state.nodes, new.compiled.state.users
    else:
        return compile(new.policy, new.users, new.nodes, background(new))
    known = base.state.rule_index.background if base.state is not None else _NOTHING
    if users is not new.users or not _is_of_settings(known, new.settings):
        known = background(new)
    elif nodes is new.nodes:
        return base
    nodes_changed, users_changed = differing(nodes, new.nodes), differing(users, new.users)
    return recompile(base, new.policy, new.users, new.nodes, nodes_changed, users_changed, known)


def _is_of(compiled: Compiled, policy: Policy) -> bool:
    return compiled.state is not None and compiled.state.rule_index.policy is policy


def _routes(old: Snapshot, new: Snapshot, compiled: Compiled) -> RouteTable | None:
    state, before = compiled.state, old.routes
    if state is None:
        return None
    if before is not None and _has_same_routers(before.state, state):
        was, now = old.presence, new.presence
        if was is now or all(was.get(each) is now.get(each) for each in state.routers):
            return before if before.state is state else before.at(state)

    def is_usable(node_id: NodeID) -> bool:
        presence = new.presence_of(node_id)
        return presence.online and not presence.expired

    elections = elect(state, is_usable, None if before is None else before.elections)
    if before is not None and before.state is state and before.elections is elections:
        return before
    return RouteTable(state, elections, before)


def _has_same_routers(old: State, new: State) -> bool:
    return old is new or (old.rule_index is new.rule_index and old.routers is new.routers)
