"""The tailnet as one immutable value, and the draft of its next version.

A ``Snapshot`` holds every record, the indexes over them, presence and the compiled policy. It is
changed by making an ``Edit`` from it, putting and dropping records there, and ``finish()``, which
gives the next ``Snapshot`` and the ``Rows`` that the store must write before anyone may see it.
An equal record keeps the old object, so "is not the same object" means "changed" everywhere.

Not for rules: the verbs in this package call ``put`` and ``drop``. No clock, no I/O.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from ipaddress import IPv4Address, IPv6Address
from typing import Generic, TypeVar, assert_never, cast

from appliance.errors import Conflict
from appliance.policy.compile import OPEN, Compiled
from appliance.records import (
    OFFLINE,
    Address,
    AuthKey,
    AuthKeyID,
    Node,
    NodeID,
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
    ``last_ipv4`` and ``last_ipv6`` are where ``addresses`` goes on; None after a start.
    """

    tailnet: Tailnet
    version: int = 0
    settings: Settings = field(default_factory=Settings)
    users: Mapping[UserID, User] = field(default_factory=dict)
    nodes: Mapping[NodeID, Node] = field(default_factory=dict)
    auth_keys: Mapping[AuthKeyID, AuthKey] = field(default_factory=dict)
    presence: Mapping[NodeID, Presence] = field(default_factory=dict)
    compiled: Compiled = OPEN
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
        """Give a node's presence; a node never heard of is offline."""
        return self.presence.get(node_id, OFFLINE)


@dataclass(frozen=True, slots=True)
class Rows:
    """What the store must write for one edit: whole records, dropped ids, and last-seen times.

    ``last_seen`` alone is not worth a wait: the store may write it later, in bulk.
    """

    puts: tuple[Record, ...] = ()
    drops: tuple[Record, ...] = ()
    last_seen: tuple[tuple[NodeID, datetime], ...] = ()

    @property
    def is_durable(self) -> bool:
        """Tell whether the edit must be on disk before it is published."""
        return bool(self.puts or self.drops)


class Sequences:
    """Counters for new ids, shared by all tailnets of a server; ids are never used twice."""

    __slots__ = ("auth_key", "node", "tailnet", "user")

    def __init__(
        self, *, tailnet: int = 0, user: int = 0, node: int = 0, auth_key: int = 0
    ) -> None:
        self.tailnet = tailnet
        self.user = user
        self.node = node
        self.auth_key = auth_key

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


class Edit:
    """A draft of the next snapshot: reads like one, copies a mapping at its first write.

    Not usable after ``finish()``. A verb that raises leaves the draft half made: throw it away.
    """

    def __init__(self, base: Snapshot, ids: Sequences) -> None:
        self._base = base
        self.ids = ids
        self.tailnet = base.tailnet
        self.settings = base.settings
        self.compiled = base.compiled
        self.last_ipv4 = base.last_ipv4
        self.last_ipv6 = base.last_ipv6
        self._users = _Draft(base.users)
        self._nodes = _Draft(base.nodes)
        self._auth_keys = _Draft(base.auth_keys)
        self._presence = _Draft(base.presence)
        self._by_node_key = _Draft(base.by_node_key)
        self._by_machine_key = _Draft(base.by_machine_key)
        self._by_name = _Draft(base.by_name)
        self._by_address = _Draft(base.by_address)
        self._by_key_prefix = _Draft(base.by_key_prefix)
        self._puts: dict[tuple[type, int], Record] = {}
        self._drops: dict[tuple[type, int], Record] = {}
        self._last_seen: dict[NodeID, datetime] = {}

    @property
    def base(self) -> Snapshot:
        """The snapshot that this draft started from."""
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
        """Give a node's presence as drafted."""
        return self._presence.now.get(node_id, OFFLINE)

    def put(self, record: Record) -> None:
        """Add or replace a record; an equal one changes nothing.

        Raises Conflict if a node's key, name or address belongs to another node.
        """
        match record:
            case Node():
                changed = self._put_node(record)
            case User():
                changed = self._users.put(record.id, record)
            case AuthKey():
                changed = self._auth_keys.put(record.id, record)
                self._by_key_prefix.put(record.prefix, record.id)
            case Tailnet():
                changed = record != self.tailnet
                self.tailnet = record if changed else self.tailnet
            case _:
                assert_never(record)
        if changed:
            key = (type(record), record.id)
            self._puts[key] = record
            self._drops.pop(key, None)

    def drop(self, record: Node | User | AuthKey) -> None:
        """Remove a record; one that is not there changes nothing."""
        match record:
            case Node():
                old = self._nodes.now.get(record.id)
                if old is None:
                    return
                self._forget_node(old)
                self._nodes.drop(old.id)
                self._presence.drop(old.id)
                self._last_seen.pop(old.id, None)
            case User():
                if not self._users.drop(record.id):
                    return
            case AuthKey():
                if not self._auth_keys.drop(record.id):
                    return
                self._by_key_prefix.drop(record.prefix)
            case _:
                assert_never(record)
        key = (type(record), record.id)
        self._puts.pop(key, None)
        self._drops[key] = record

    def set_presence(self, node_id: NodeID, presence: Presence) -> None:
        """Say whether a node is connected; for a node that is gone, do nothing."""
        old = self.presence_of(node_id)
        if node_id not in self._nodes.now or old == presence:
            return
        self._presence.put(node_id, presence)
        if presence.last_seen is not None and presence.last_seen != old.last_seen:
            self._last_seen[node_id] = presence.last_seen

    def set_settings(self, settings: Settings) -> None:
        """Take over what the site's configuration says; equal settings change nothing."""
        if settings != self.settings:
            self.settings = settings

    def set_compiled(self, compiled: Compiled) -> None:
        """Take over a newly compiled policy."""
        self.compiled = compiled

    def finish(self) -> tuple[Snapshot, Rows]:
        """Give the next snapshot and what must be written; the base itself if nothing changed."""
        rows = Rows(
            puts=tuple(self._puts.values()),
            drops=tuple(self._drops.values()),
            last_seen=tuple(self._last_seen.items()),
        )
        base = self._base
        same = (
            not self._users.is_written
            and not self._nodes.is_written
            and not self._auth_keys.is_written
            and not self._presence.is_written
            and self.settings is base.settings
            and self.compiled is base.compiled
            and self.tailnet is base.tailnet
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
            compiled=self.compiled,
            by_node_key=self._by_node_key.now,
            by_machine_key=self._by_machine_key.now,
            by_name=self._by_name.now,
            by_address=self._by_address.now,
            by_key_prefix=self._by_key_prefix.now,
            last_ipv4=self.last_ipv4,
            last_ipv6=self.last_ipv6,
        )
        return snapshot, rows

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


class _Draft(Generic[K, V]):
    """A mapping that is copied at its first write."""

    __slots__ = ("is_written", "now")

    def __init__(self, base: Mapping[K, V]) -> None:
        self.now: Mapping[K, V] = base
        self.is_written = False

    def put(self, key: K, value: V) -> bool:
        """Set a value; an equal one keeps the old object. Tell whether anything changed."""
        if key in self.now and self.now[key] == value:
            return False
        self._writable()[key] = value
        return True

    def drop(self, key: K) -> bool:
        """Remove a key; tell whether it was there."""
        if key not in self.now:
            return False
        del self._writable()[key]
        return True

    def _writable(self) -> dict[K, V]:
        if not self.is_written:
            self.now = dict(self.now)
            self.is_written = True
        return cast(dict[K, V], self.now)  # made two lines up, or at an earlier write
