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
from typing import Any, TypeVar

from appliance.errors import Conflict
from appliance.policy.engine.compile import OPEN, Compiled
from appliance.policy.engine.routes import RouteTable
from appliance.policy.text.language import UNWRITTEN, Policy
from appliance.records import (
    OFFLINE,
    Address,
    ApiKey,
    ApiKeyID,
    AuditEntry,
    AuthKey,
    AuthKeyID,
    Credential,
    CredentialID,
    Kept,
    Node,
    NodeID,
    OAuthClient,
    OAuthClientID,
    PolicyText,
    Presence,
    Record,
    Session,
    SessionID,
    Settings,
    Tailnet,
    User,
    UserID,
)
from appliance.tailnet.draft import Draft
from appliance.tailnet.kinds import KIND_OF, Kind
from appliance.tailnet.sequences import Sequences as Sequences
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
    sessions: Mapping[SessionID, Session] = field(default_factory=dict)
    credentials: Mapping[CredentialID, Credential] = field(default_factory=dict)
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
    api_keys: Mapping[ApiKeyID, ApiKey] = field(default_factory=dict)
    by_api_key_prefix: Mapping[str, ApiKeyID] = field(default_factory=dict)
    oauth_clients: Mapping[OAuthClientID, OAuthClient] = field(default_factory=dict)
    by_client_id: Mapping[str, OAuthClientID] = field(default_factory=dict)
    by_session_hash: Mapping[str, SessionID] = field(default_factory=dict)
    by_credential: Mapping[str, CredentialID] = field(default_factory=dict)
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
        self._given = private
        self._nodes = Draft(base.nodes, in_place="nodes" in private)
        self._presence = Draft(base.presence, in_place="presence" in private)
        self._by_node_key = Draft(base.by_node_key, in_place="by_node_key" in private)
        self._by_machine_key = Draft(base.by_machine_key, in_place="by_machine_key" in private)
        self._by_name = Draft(base.by_name, in_place="by_name" in private)
        self._by_address = Draft(base.by_address, in_place="by_address" in private)
        # Mappings of ``kinds``, once something of theirs is written: most edits are about nodes.
        self._shelves: dict[str, Draft[Any, Any]] = {}
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
        return self._kept("users", self._base.users)

    @property
    def nodes(self) -> Mapping[NodeID, Node]:
        """The nodes as drafted."""
        return self._nodes.now

    @property
    def auth_keys(self) -> Mapping[AuthKeyID, AuthKey]:
        """The auth keys as drafted."""
        return self._kept("auth_keys", self._base.auth_keys)

    @property
    def sessions(self) -> Mapping[SessionID, Session]:
        """The sessions as drafted."""
        return self._kept("sessions", self._base.sessions)

    @property
    def credentials(self) -> Mapping[CredentialID, Credential]:
        """The credentials as drafted."""
        return self._kept("credentials", self._base.credentials)

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
        return self._kept("by_key_prefix", self._base.by_key_prefix)

    @property
    def api_keys(self) -> Mapping[ApiKeyID, ApiKey]:
        """The API keys as drafted."""
        return self._kept("api_keys", self._base.api_keys)

    @property
    def by_api_key_prefix(self) -> Mapping[str, ApiKeyID]:
        """API key ids by public prefix, as drafted."""
        return self._kept("by_api_key_prefix", self._base.by_api_key_prefix)

    @property
    def oauth_clients(self) -> Mapping[OAuthClientID, OAuthClient]:
        """The OAuth clients as drafted."""
        return self._kept("oauth_clients", self._base.oauth_clients)

    @property
    def by_client_id(self) -> Mapping[str, OAuthClientID]:
        """OAuth clients by their public id, as drafted."""
        return self._kept("by_client_id", self._base.by_client_id)

    @property
    def by_session_hash(self) -> Mapping[str, SessionID]:
        """Session ids by the hash of their secret, as drafted."""
        return self._kept("by_session_hash", self._base.by_session_hash)

    @property
    def by_credential(self) -> Mapping[str, CredentialID]:
        """Credential ids by what finds them, as drafted."""
        return self._kept("by_credential", self._base.by_credential)

    def node_of(self, node_key: NodeKey) -> Node | None:
        """Find a node by its current node key, as drafted."""
        node_id = self.by_node_key.get(node_key)
        return None if node_id is None else self.nodes[node_id]

    def presence_of(self, node_id: NodeID) -> Presence:
        """Return a node's presence as drafted."""
        return self._presence.now.get(node_id, OFFLINE)

    def put(self, record: Record) -> None:
        """Add or replace a record; an equal one changes nothing.

        Raises Conflict if a node's key, name or address belongs to another node, or the unique key
        of another kind of record to another one.
        """
        self._check_open()
        before = self._before(record)
        if before is not None and before == record:
            record = before
        match record:
            case Node():
                changed = self._put_node(record)
            case Tailnet():
                changed = record != self.tailnet
                self.tailnet = record if changed else self.tailnet
            case PolicyText():
                changed = record != self.policy_text
                self.policy_text = record if changed else self.policy_text
            case _:
                changed = self._put_kept(KIND_OF[type(record)], record)
        if changed:
            key = (type(record), record.id)
            self._drops.pop(key, None)
            if record is before:
                self._puts.pop(key, None)
            else:
                self._puts[key] = record

    def drop(self, record: Node | Kept) -> None:
        """Remove the record with this id; one that is not there changes nothing."""
        self._check_open()
        if isinstance(record, Node):
            changed = self._drop_node(record.id)
        else:
            changed = self._drop_kept(KIND_OF[type(record)], record)
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
        # Most drafts touch none of the other kinds, and asking for each alone is a tenth of an edit.
        kept: Snapshot | Edit = self if self._shelves else base
        snapshot = Snapshot(
            tailnet=self.tailnet,
            version=base.version + 1,
            settings=self.settings,
            users=kept.users,
            nodes=self._nodes.now,
            auth_keys=kept.auth_keys,
            sessions=kept.sessions,
            credentials=kept.credentials,
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
            by_key_prefix=kept.by_key_prefix,
            api_keys=kept.api_keys,
            by_api_key_prefix=kept.by_api_key_prefix,
            oauth_clients=kept.oauth_clients,
            by_client_id=kept.by_client_id,
            by_session_hash=kept.by_session_hash,
            by_credential=kept.by_credential,
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
        drafts = self._drafts()
        mine = frozenset(name for name, draft in drafts.items() if draft.is_mine)
        return mine | (self._given - drafts.keys())

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

    def _drafts(self) -> dict[str, Draft[Any, Any]]:
        """Give the drafts that were made, by the name of their mapping."""
        return {
            "nodes": self._nodes,
            "presence": self._presence,
            "by_node_key": self._by_node_key,
            "by_machine_key": self._by_machine_key,
            "by_name": self._by_name,
            "by_address": self._by_address,
            **self._shelves,
        }

    def _kept(self, name: str, base: Mapping[K, V]) -> Mapping[K, V]:
        """Give a mapping of ``kinds`` as drafted."""
        draft = self._shelves.get(name)
        return base if draft is None else draft.now

    def _shelf(self, name: str) -> Draft[Any, Any]:
        """Give the draft of a mapping of ``kinds``, to write to it."""
        draft = self._shelves.get(name)
        if draft is None:
            mapping = getattr(self._base, name)
            draft = self._shelves[name] = Draft(mapping, in_place=name in self._given)
        return draft

    def _check_open(self) -> None:
        if self._is_finished:
            # What was drafted is published by now: a late write would change it under readers.
            raise RuntimeError("this edit is finished; draft a new one")

    def _put_kept(self, kind: Kind, record: Kept) -> bool:
        records = self._shelf(kind.records)
        if kind.index:
            index, key = self._shelf(kind.index), kind.key(record)
            if index.now.get(key, record.id) != record.id:
                raise Conflict(
                    kind.taken,
                    f"the {kind.key_noun} {key} belongs to another {kind.noun}",
                    concerns=str(key),
                )
            old = records.now.get(record.id)
            if old is not None and kind.key(old) != key:
                index.drop(kind.key(old))
            index.put(key, record.id)
        return records.put(record.id, record)

    def _drop_kept(self, kind: Kind, record: Kept) -> bool:
        old = self._shelf(kind.records).drop(record.id)
        if old is not None and kind.index:
            self._shelf(kind.index).drop(kind.key(old))
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
            case Tailnet():
                return self._base.tailnet
            case PolicyText():
                newest = self._base.policy_text
                return newest if newest is not None and newest.id == record.id else None
            case _:
                return self._kept_before(KIND_OF[type(record)], record)

    def _kept_before(self, kind: Kind, record: Kept) -> Kept | None:
        draft = self._shelves.get(kind.records)
        before: Kept | None
        if draft is None:
            before = getattr(self._base, kind.records).get(record.id)
        else:
            before = draft.before(record.id)
        return before

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
