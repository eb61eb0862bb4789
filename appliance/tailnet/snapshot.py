"""The tailnet as one immutable value, and the draft of its next version.

A ``Snapshot`` holds every record, the indexes over them, presence and the compiled policy. It is
changed by making an ``Edit`` from it, putting and dropping records there, and ``finish()``, which
gives the next ``Snapshot`` and the ``Rows`` that the store must write before anyone may see it.
An equal record keeps the old object, so "is not the same object" means "changed" everywhere.

Not for rules: the verbs in this package call ``put`` and ``drop``. No clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, Protocol, TypeVar, assert_never, cast

from appliance.errors import Conflict
from appliance.policy.engine.compile import OPEN, Compiled
from appliance.policy.engine.routes import RouteTable
from appliance.policy.text.language import UNWRITTEN, Policy
from appliance.records import (
    OFFLINE,
    Address,
    AuditEntry,
    AuthKey,
    AuthKeyID,
    Node,
    NodeID,
    PolicyText,
    PolicyTextID,
    Presence,
    Record,
    Settings,
    Tailnet,
    User,
    UserID,
)
from appliance.wire.keys import MachineKey, NodeKey

K = TypeVar("K")
V = TypeVar("V")


@dataclass(frozen=True, slots=True, eq=False)
class Snapshot:
    """Everything that is true of one tailnet at one version. Never changed, only replaced.

    The mappings are plain dictionaries that nobody writes to once the snapshot exists.
    ``expired`` are the nodes whose presence says so.
    ``last_ipv4`` and ``last_ipv6`` are where ``addresses`` goes on; None after a start.
    ``compiled`` and ``routes`` follow from the rest: ``policies.settle`` brings them up to date
    before a snapshot is published; ``routes`` is None before the first time.
    """

    tailnet: Tailnet
    version: int = 0
    settings: Settings = field(default_factory=Settings)
    users: Mapping[UserID, User] = field(default_factory=dict)
    nodes: Mapping[NodeID, Node] = field(default_factory=dict)
    auth_keys: Mapping[AuthKeyID, AuthKey] = field(default_factory=dict)
    presence: Mapping[NodeID, Presence] = field(default_factory=dict)
    expired: frozenset[NodeID] = frozenset()
    policy_text: PolicyText | None = None
    policy: Policy = UNWRITTEN
    compiled: Compiled = OPEN
    routes: RouteTable | None = None
    by_node_key: Mapping[NodeKey, NodeID] = field(default_factory=dict)
    by_machine_key: Mapping[MachineKey, frozenset[NodeID]] = field(default_factory=dict)
    by_name: Mapping[str, NodeID] = field(default_factory=dict)
    by_address: Mapping[Address, NodeID] = field(default_factory=dict)
    by_key_prefix: Mapping[str, AuthKeyID] = field(default_factory=dict)
    last_ipv4: IPv4Address | None = None
    last_ipv6: IPv6Address | None = None

    def node_of(self, node_key: NodeKey) -> Node | None:
        """Find a node by its current node key."""
        node_id = self.by_node_key.get(node_key)
        return None if node_id is None else self.nodes[node_id]

    def presence_of(self, node_id: NodeID) -> Presence:
        """Return a node's presence; a node never heard of is offline."""
        return self.presence.get(node_id, OFFLINE)


@dataclass(frozen=True, slots=True)
class Rows:
    """What the store must write for one edit: whole records, dropped ids, and last-seen times.

    ``audit`` says who did it, in the same transaction. ``last_seen`` alone is not worth a wait, nor
    is ``audit`` of what is no record: the store may write it later, in bulk.
    """

    puts: tuple[Record, ...] = ()
    drops: tuple[Record, ...] = ()
    last_seen: tuple[tuple[NodeID, datetime], ...] = ()
    audit: tuple[AuditEntry, ...] = ()

    @property
    def is_durable(self) -> bool:
        """Return whether the edit must be on disk before it is published."""
        return bool(self.puts or self.drops)


class Sequences:
    """Counters for new ids, shared by all tailnets of a server; ids are never used twice."""

    __slots__ = ("auth_key", "node", "policy", "tailnet", "user")

    def __init__(
        self, *, tailnet: int = 0, user: int = 0, node: int = 0, auth_key: int = 0, policy: int = 0
    ) -> None:
        self.tailnet = tailnet
        self.user = user
        self.node = node
        self.auth_key = auth_key
        self.policy = policy

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


class Edit:
    """A draft of the next snapshot: reads like one, copies a mapping at its first write.

    Not usable after ``finish()``. A verb that raises leaves the draft half made: throw it away.
    Only the net change counts: a value changed and changed back yields no row.

    ``private`` names mappings of the base that nobody has seen and nobody will: they are written
    to instead of copied, so that a long row of drafts costs one copy of each and not one per
    draft. Such a draft is thrown away by ``abandon()``, which takes back what it wrote.
    """

    def __init__(
        self, base: Snapshot, ids: Sequences, *, private: frozenset[str] = frozenset()
    ) -> None:
        self._base = base
        self.ids = ids
        self.tailnet = base.tailnet
        self.settings = base.settings
        self.policy_text = base.policy_text
        self.policy = base.policy
        self.compiled = base.compiled
        self.last_ipv4 = base.last_ipv4
        self.last_ipv6 = base.last_ipv6
        self._users = _Draft(base.users, in_place="users" in private)
        self._nodes = _Draft(base.nodes, in_place="nodes" in private)
        self._auth_keys = _Draft(base.auth_keys, in_place="auth_keys" in private)
        self._presence = _Draft(base.presence, in_place="presence" in private)
        self._by_node_key = _Draft(base.by_node_key, in_place="by_node_key" in private)
        self._by_machine_key = _Draft(base.by_machine_key, in_place="by_machine_key" in private)
        self._by_name = _Draft(base.by_name, in_place="by_name" in private)
        self._by_address = _Draft(base.by_address, in_place="by_address" in private)
        self._by_key_prefix = _Draft(base.by_key_prefix, in_place="by_key_prefix" in private)
        self._puts: dict[tuple[type, int], Record] = {}
        self._drops: dict[tuple[type, int], Record] = {}
        self._presence_changes: tuple[tuple[NodeID, Presence, Presence], ...] = ()
        self._reasons: dict[tuple[type, int], tuple[str, str]] = {}
        self._is_finished = False

    @property
    def base(self) -> Snapshot:
        """The snapshot that this draft started from; with ``private`` mappings, in name only."""
        return self._base

    @property
    def users(self) -> Mapping[UserID, User]:
        """The users as drafted."""
        return self._users.now

    @property
    def nodes(self) -> Mapping[NodeID, Node]:
        """The nodes as drafted."""
        return self._nodes.now

    @property
    def auth_keys(self) -> Mapping[AuthKeyID, AuthKey]:
        """The auth keys as drafted."""
        return self._auth_keys.now

    @property
    def by_node_key(self) -> Mapping[NodeKey, NodeID]:
        """Node ids by current node key, as drafted."""
        return self._by_node_key.now

    @property
    def by_machine_key(self) -> Mapping[MachineKey, frozenset[NodeID]]:
        """Node ids by machine key, as drafted."""
        return self._by_machine_key.now

    @property
    def by_name(self) -> Mapping[str, NodeID]:
        """Node ids by MagicDNS label, as drafted."""
        return self._by_name.now

    @property
    def by_address(self) -> Mapping[Address, NodeID]:
        """Node ids by tailnet address, as drafted."""
        return self._by_address.now

    @property
    def by_key_prefix(self) -> Mapping[str, AuthKeyID]:
        """Auth key ids by public prefix, as drafted."""
        return self._by_key_prefix.now

    def node_of(self, node_key: NodeKey) -> Node | None:
        """Find a node by its current node key, as drafted."""
        node_id = self.by_node_key.get(node_key)
        return None if node_id is None else self.nodes[node_id]

    def presence_of(self, node_id: NodeID) -> Presence:
        """Return a node's presence as drafted."""
        return self._presence.now.get(node_id, OFFLINE)

    def put(self, record: Record) -> None:
        """Add or replace a record; an equal one changes nothing.

        Raises Conflict if a node's key, name or address belongs to another node.
        """
        self._check_open()
        before = self._before(record)
        if before is not None and before == record:
            record = before
        match record:
            case Node():
                changed = self._put_node(record)
            case User():
                changed = self._users.put(record.id, record)
            case AuthKey():
                changed = self._put_auth_key(record)
            case Tailnet():
                changed = record != self.tailnet
                self.tailnet = record if changed else self.tailnet
            case PolicyText():
                changed = record != self.policy_text
                self.policy_text = record if changed else self.policy_text
            case _:
                assert_never(record)
        if changed:
            key = (type(record), record.id)
            self._drops.pop(key, None)
            if record is before:
                self._puts.pop(key, None)
            else:
                self._puts[key] = record

    def drop(self, record: Node | User | AuthKey) -> None:
        """Remove the record with this id; one that is not there changes nothing."""
        self._check_open()
        match record:
            case Node():
                changed = self._drop_node(record.id)
            case User():
                changed = self._users.drop(record.id) is not None
            case AuthKey():
                changed = self._drop_auth_key(record.id)
            case _:
                assert_never(record)
        if changed:
            key = (type(record), record.id)
            self._puts.pop(key, None)
            # Also for one that was put in this draft: the store must not give its id again.
            self._drops[key] = self._before(record) or record

    def because(self, record: Record, act: str, reason: str) -> None:
        """Say for the audit log what befell this record, and why; else the edit's own act counts."""
        self._reasons[(type(record), record.id)] = (act, reason)

    def reason_of(self, record: Record) -> tuple[str, str] | None:
        """Give the act and the reason that were said for a record."""
        return self._reasons.get((type(record), record.id))

    def changes(self) -> Iterator[tuple[Record | None, Record | None]]:
        """List the records that differ from the base, each as it was and as it is."""
        for gone in self._drops.values():
            if (before := self._before(gone)) is not None:
                yield before, None
        for record in self._puts.values():
            yield self._before(record), record

    def expired_nodes(self) -> Iterator[Node]:
        """List the nodes that a finished draft has marked as expired."""
        for node_id, before, after in self._presence_changes:
            if after.expired and not before.expired and node_id in self._nodes.now:
                yield self._nodes.now[node_id]

    def set_presence(self, node_id: NodeID, presence: Presence) -> None:
        """Set a node's presence; ignored for a node that is gone."""
        self._check_open()
        if node_id not in self._nodes.now or self.presence_of(node_id) == presence:
            return
        before = self._presence.before(node_id)
        if before is None and presence == OFFLINE:
            self._presence.drop(node_id)
        else:
            self._presence.put(node_id, before if before == presence else presence)

    def set_settings(self, settings: Settings) -> None:
        """Take over what the site's configuration says; equal settings change nothing."""
        if settings != self.settings:
            self.settings = settings

    def set_policy(self, policy: Policy, compiled: Compiled) -> None:
        """Put a policy in force; ``compiled`` may be of the tailnet as it was a moment ago."""
        self.policy = policy
        self.compiled = compiled

    def set_compiled(self, compiled: Compiled) -> None:
        """Take over what follows from the policy in force."""
        self.compiled = compiled

    def finish(self) -> tuple[Snapshot, Rows]:
        """Return the next snapshot and what must be written; the base itself if nothing changed."""
        self._is_finished = True
        self._presence_changes = tuple(
            (node_id, before or OFFLINE, after or OFFLINE)
            for node_id, before, after in self._presence.changes()
        )
        rows = Rows(
            puts=tuple(self._puts.values()),
            drops=tuple(self._drops.values()),
            last_seen=tuple(
                (node_id, after.last_seen)
                for node_id, before, after in self._presence_changes
                if after.last_seen is not None and after.last_seen != before.last_seen
            ),
        )
        base = self._base
        same = (
            not rows.is_durable
            and not self._presence_changes
            and self.settings is base.settings
            and self.policy is base.policy
            and self.compiled is base.compiled
        )
        if same:
            return base, rows
        snapshot = Snapshot(
            tailnet=self.tailnet,
            version=base.version + 1,
            settings=self.settings,
            users=self._users.now,
            nodes=self._nodes.now,
            auth_keys=self._auth_keys.now,
            presence=self._presence.now,
            expired=self._expired(),
            policy_text=self.policy_text,
            policy=self.policy,
            compiled=self.compiled,
            routes=base.routes,
            by_node_key=self._by_node_key.now,
            by_machine_key=self._by_machine_key.now,
            by_name=self._by_name.now,
            by_address=self._by_address.now,
            by_key_prefix=self._by_key_prefix.now,
            last_ipv4=self.last_ipv4,
            last_ipv6=self.last_ipv6,
        )
        return snapshot, rows

    def _expired(self) -> frozenset[NodeID]:
        """Return the nodes whose presence says that they are expired; the same set if it is so."""
        expired = self._base.expired
        for node_id, before, after in self._presence_changes:
            if before.expired != after.expired:
                expired ^= {node_id}
        return expired

    def abandon(self) -> None:
        """Throw the draft away; one that was made in place takes back what it wrote."""
        self._is_finished = True
        for draft in self._drafts().values():
            draft.take_back()

    @property
    def private(self) -> frozenset[str]:
        """The mappings of the drafted snapshot that no earlier snapshot shares."""
        return frozenset(name for name, draft in self._drafts().items() if draft.is_mine)

    def replay(self, other: Edit) -> None:
        """Repeat a finished draft on another one. Raises Conflict if it no longer fits."""
        for gone in self._drops.values():
            if not isinstance(gone, Tailnet | PolicyText):
                other.drop(gone)
        for record in self._puts.values():
            other.put(record)
        other.last_ipv4, other.last_ipv6 = self.last_ipv4, self.last_ipv6
        self.carry_over(other)

    def carry_over(self, other: Edit) -> None:
        """Repeat on another draft what a finished one changed besides records.

        Sessions are counted on from what ``other`` has, since others may have come and gone.
        """
        for node_id, before, after in self._presence_changes:
            sessions = other.presence_of(node_id).sessions + after.sessions - before.sessions
            other.set_presence(node_id, replace(after, sessions=max(0, sessions)))
        if self.settings is not self._base.settings:
            other.set_settings(self.settings)
        if self.compiled is not self._base.compiled:
            other.set_policy(self.policy, self.compiled)

    def _drafts(self) -> dict[str, _AnyDraft]:
        return {
            "users": self._users,
            "nodes": self._nodes,
            "auth_keys": self._auth_keys,
            "presence": self._presence,
            "by_node_key": self._by_node_key,
            "by_machine_key": self._by_machine_key,
            "by_name": self._by_name,
            "by_address": self._by_address,
            "by_key_prefix": self._by_key_prefix,
        }

    def _check_open(self) -> None:
        if self._is_finished:
            # What was drafted is published by now: a late write would change it under readers.
            raise RuntimeError("this edit is finished; draft a new one")

    def _put_auth_key(self, key: AuthKey) -> bool:
        if self.by_key_prefix.get(key.prefix, key.id) != key.id:
            raise Conflict(
                "auth-key-taken",
                f"the prefix {key.prefix} belongs to another auth key",
                concerns=key.prefix,
            )
        old = self._auth_keys.now.get(key.id)
        if old is not None and old.prefix != key.prefix:
            self._by_key_prefix.drop(old.prefix)
        self._by_key_prefix.put(key.prefix, key.id)
        return self._auth_keys.put(key.id, key)

    def _drop_auth_key(self, key_id: AuthKeyID) -> bool:
        old = self._auth_keys.drop(key_id)
        if old is not None:
            self._by_key_prefix.drop(old.prefix)
        return old is not None

    def _drop_node(self, node_id: NodeID) -> bool:
        old = self._nodes.drop(node_id)
        if old is None:
            return False
        self._forget_node(old)
        self._presence.drop(node_id)
        return True

    def _before(self, record: Record) -> Record | None:
        """Return the record as it was in the snapshot that the draft started from."""
        match record:
            case Node():
                return self._nodes.before(record.id)
            case User():
                return self._users.before(record.id)
            case AuthKey():
                return self._auth_keys.before(record.id)
            case Tailnet():
                return self._base.tailnet
            case PolicyText():
                newest = self._base.policy_text
                return newest if newest is not None and newest.id == record.id else None
            case _:
                assert_never(record)

    def _put_node(self, node: Node) -> bool:
        old = self._nodes.now.get(node.id)
        if old == node:
            return False
        self._check_free(node)
        if old is not None:
            self._forget_node(old, unless=node)
        self._nodes.put(node.id, node)
        self._by_node_key.put(node.node_key, node.id)
        self._by_name.put(node.name, node.id)
        for address in node.addresses:
            self._by_address.put(address, node.id)
        mine = self.by_machine_key.get(node.machine_key, frozenset())
        if node.id not in mine:
            self._by_machine_key.put(node.machine_key, mine | {node.id})
        return True

    def _check_free(self, node: Node) -> None:
        if self.by_node_key.get(node.node_key, node.id) != node.id:
            raise Conflict("node-key-taken", "this node key belongs to another node")
        if self.by_name.get(node.name, node.id) != node.id:
            raise Conflict(
                "node-name-taken",
                f"the name {node.name!r} belongs to another node; choose a different one",
                concerns=node.name,
            )
        for address in node.addresses:
            if self.by_address.get(address, node.id) != node.id:
                raise Conflict(
                    "address-taken",
                    f"the address {address} belongs to another node",
                    concerns=str(address),
                )

    def _forget_node(self, old: Node, unless: Node | None = None) -> None:
        """Take a node out of the indexes, but for what its next form ``unless`` keeps."""
        if unless is None or unless.node_key != old.node_key:
            self._by_node_key.drop(old.node_key)
        if unless is None or unless.name != old.name:
            self._by_name.drop(old.name)
        kept = () if unless is None else unless.addresses
        for address in old.addresses:
            if address not in kept:
                self._by_address.drop(address)
        if unless is None or unless.machine_key != old.machine_key:
            rest = self.by_machine_key.get(old.machine_key, frozenset()) - {old.id}
            if rest:
                self._by_machine_key.put(old.machine_key, rest)
            else:
                self._by_machine_key.drop(old.machine_key)


class _AnyDraft(Protocol):
    """What all drafts of mappings have, whatever is in them."""

    is_mine: bool

    def take_back(self) -> None: ...


class _Draft(Generic[K, V]):
    """A mapping that is copied at its first write, or written to in place; remembers what was."""

    __slots__ = ("_in_place", "_was", "is_mine", "now")

    def __init__(self, base: Mapping[K, V], *, in_place: bool) -> None:
        self.now: Mapping[K, V] = base
        self._in_place = in_place
        self.is_mine = in_place
        self._was: dict[K, V | None] = {}

    def before(self, key: K) -> V | None:
        """Return what a key had when the draft began; None: nothing."""
        return self._was[key] if key in self._was else self.now.get(key)

    def changes(self) -> Iterator[tuple[K, V | None, V | None]]:
        """List the keys that have another object than before, with both."""
        for key, old in self._was.items():
            new = self.now.get(key)
            if new is not old:
                yield key, old, new

    def put(self, key: K, value: V) -> bool:
        """Set a value; an equal one keeps the old object. Tell whether anything changed."""
        old = self.now.get(key)
        if old is not None and old == value:
            return False
        self._writable(key, old)[key] = value
        return True

    def drop(self, key: K) -> V | None:
        """Remove a key; give what it had."""
        old = self.now.get(key)
        if old is not None:
            del self._writable(key, old)[key]
        return old

    def take_back(self) -> None:
        """Undo all writes, if they went to a mapping that is not ours alone."""
        if not self._in_place:
            return
        shared = cast(dict[K, V], self.now)  # in place means that it is one
        for key, old in self._was.items():
            if old is None:
                shared.pop(key, None)
            else:
                shared[key] = old

    def _writable(self, key: K, old: V | None) -> dict[K, V]:
        self._was.setdefault(key, old)
        if not self.is_mine:
            self.now = dict(self.now)
            self.is_mine = True
        return cast(dict[K, V], self.now)  # made two lines up, or at an earlier write
