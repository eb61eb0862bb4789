"""The messages of ``full`` and ``delta`` as bytes, ready to be sent; what many are told, made once.

Not for deciding what is told: that is in ``view`` and ``delta``, and a client that reads these
bytes knows the same. One ``Encoder`` serves one tailnet. Sits on ``texts`` and ``chunks``.

Everything is remembered by identity: of records, sights, snapshots. All of it is bounded.
Source: tailscale control/controlclient/map.go (a patch of an unknown peer is passed over).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Iterator, Mapping
from datetime import datetime

from appliance.netmap import nextdns
from appliance.netmap.capver import Band, band, fit_derp_map
from appliance.netmap.changes import changes, touched
from appliance.netmap.chunks import CHUNK_PEERS, REBUILD_SHARE, ChunkTable, differing_nodes
from appliance.netmap.delta import (
    Common,
    Own,
    Steps,
    are_all_touched,
    common_between,
    own_between,
    rebuilding_domain,
    steps_between,
)
from appliance.netmap.dns import dns_config, is_personal, personal_between
from appliance.netmap.outlook import Outlook, Outlooks, changed_faces
from appliance.netmap.peers import self_node
from appliance.netmap.relays import derp_map
from appliance.netmap.ruletexts import LONG_LIST, RuleTexts, packed
from appliance.netmap.texts import Fragment, PeerTexts, compress, framed, message
from appliance.netmap.users import profiles
from appliance.netmap.view import default_auto_update, ssh_rules, visible
from appliance.policy.engine.compile import Compiled, Sight
from appliance.records import NodeID, Settings, Tailnet, UserID
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg

__all__ = ["Encoder", "compress"]

MIN_SHARERS = 4
"""Viewers from which on a visibility class has its chunks kept: fewer are cheaper one by one."""
MAX_TABLE_BYTES = 48 << 20
"""All chunk tables together: 40 classes of 5,000 nodes."""
MAX_PAIRS = 16
"""Old versions for which a way to the newest is kept: sessions that are not stuck share one."""
MAX_PAIR_BYTES = 8 << 20
"""Shared deltas kept for one old version; real ones are some kB."""
MAX_OUTLOOKS = 4
"""Policy versions whose outlooks are kept: the newest two serve nearly every session."""
_CLOSE = Fragment(b"}")
_COMMA = Fragment(b",")
_END_OF_PEERS = Fragment(b"]}")


class _Shared:
    """What one visibility class is told between two snapshots.

    ``first`` is the text of a message that goes before, ``body`` the rest without its braces;
    both may be empty. ``whole`` are nodes that must not be told this; ``only`` is the one node
    that all of it is about, if there is one.
    """

    __slots__ = ("body", "first", "only", "ready", "steps", "whole")

    def __init__(self, steps: Steps, first: bytes, body: bytes, *, has_more: bool) -> None:
        self.steps = steps
        self.first = first
        self.body = Fragment(body)
        self.whole = frozenset((*steps.gone, *steps.again, *steps.whole))
        concerned = {*self.whole, *steps.unseen, *(patch.node_id for patch in steps.patches)}
        self.only = min(concerned) if len(concerned) == 1 and not has_more else None
        self.ready: dict[bool, list[bytes] | None] = {}

    def parts(self, *, zstd: bool) -> list[bytes] | None:
        """Give what a viewer is sent that is told nothing else."""
        if zstd not in self.ready:
            parts = [message(self.first, zstd=zstd)] if self.first else []
            if self.body.text:
                parts.append(message(b"{" + self.body.text + b"}", zstd=zstd))
            self.ready[zstd] = parts or None
        return self.ready[zstd]

    @property
    def held_bytes(self) -> int:
        """What keeping this costs at most."""
        return 3 * (len(self.first) + len(self.body.text))


class _Pair:
    """Two snapshots and what is known of the way from one to the other.

    ``special`` are the nodes that must be looked at one by one; ``all_special``: every node.
    """

    __slots__ = (
        "after",
        "all_special",
        "before",
        "changed",
        "common",
        "held_bytes",
        "new",
        "old",
        "personal",
        "ready",
        "shared",
    )

    def __init__(self, old: Snapshot, new: Snapshot, before: Outlooks, after: Outlooks) -> None:
        self.old = old
        self.new = new
        self.before = before
        self.after = after
        self.changed = changes(old, new)
        self.personal = personal_between(old, new)
        self.all_special = (
            before is not after
            or bool(self.changed.users)
            or are_all_touched(old, new)
            or (self.personal is not None and self.personal.is_changed)
        )
        self.common: dict[Band, Common] = {}
        self.shared: dict[tuple[Outlook, Outlook, Band], _Shared] = {}
        self.ready: dict[tuple[Outlook, int, bool], list[bytes] | None] = {}
        self.held_bytes = 0


class Encoder:
    """Makes the bytes of map responses for all nodes of one tailnet.

    Parts that are given out are shared: they must not be changed. Not for several threads.
    """

    def __init__(self, chunk_peers: int = CHUNK_PEERS, long_list: int = LONG_LIST) -> None:
        self._chunk_peers = chunk_peers
        self._texts = PeerTexts()
        self._tables: OrderedDict[Outlook, ChunkTable] = OrderedDict()
        self._rules = RuleTexts(long_list)
        self._compiled: Compiled | None = None
        self._sharers: Mapping[Sight, int] = {}
        self._outlooks: list[Outlooks] = []
        self._touched: tuple[Snapshot, Snapshot, frozenset[NodeID]] | None = None
        self._dns: tuple[Settings, Tailnet, tailcfg.DNSConfig | None] | None = None
        self._pair: _Pair | None = None
        self._pairs: OrderedDict[int, _Pair] = OrderedDict()

    def keep_alive(self, *, zstd: bool) -> bytes:
        """Give the message that says nothing; always the same bytes, which clients know again."""
        return _KEEP_ALIVE_ZSTD if zstd else _KEEP_ALIVE

    @property
    def held_bytes(self) -> int:
        """What all that is kept costs, without the snapshots."""
        return (
            self._texts.held_bytes
            + sum(table.held_bytes for table in self._tables.values())
            + sum(pair.held_bytes for pair in self._pairs.values())
            + self._rules.held_bytes
        )

    # ── full maps ────────────────────────────────────────────────────────────────────────────

    def full(
        self,
        snapshot: Snapshot,
        viewer: NodeID,
        capver: int,
        *,
        zstd: bool,
        now: datetime | None = None,
    ) -> list[bytes]:
        """Give the first message of a session; all parts, in order, are one message.

        Raises KeyError if there is no such node.
        """
        of = band(capver)
        scene = self._outlooks_of(snapshot)
        outlook = scene.of(viewer)
        own = _own_text(snapshot, viewer, now, self._personal_dns(snapshot))
        if self._is_shared(snapshot, outlook.sight):
            table = self._table(snapshot, scene, outlook)
            if table.has_others(viewer):
                return self._full_shared(table, viewer, of, own, zstd=zstd)
        return self._full_alone(snapshot, viewer, of, own, zstd=zstd)

    def _outlooks_of(self, snapshot: Snapshot) -> Outlooks:
        """Give the outlooks of a snapshot; those of some versions are kept."""
        for known in self._outlooks:
            if known.is_of(snapshot):
                return known
        made = Outlooks(snapshot, self._outlooks[0] if self._outlooks else None)
        self._outlooks.insert(0, made)
        del self._outlooks[MAX_OUTLOOKS:]
        return made

    def _personal_dns(self, snapshot: Snapshot) -> tailcfg.DNSConfig | None:
        """Give the DNS configuration in the settings if it is up to the node what it is told."""
        known = self._dns
        if known is None or known[0] is not snapshot.settings or known[1] is not snapshot.tailnet:
            config = dns_config(snapshot) if is_personal(snapshot) else None
            known = self._dns = snapshot.settings, snapshot.tailnet, config
        return known[2]

    def warm(self, snapshot: Snapshot) -> None:
        """Make now what the first full map would make: 30 us a node, once after the start."""
        scene = self._outlooks_of(snapshot)
        for viewer in snapshot.nodes:
            outlook = scene.of(viewer)
            if self._is_shared(snapshot, outlook.sight):
                table = self._table(snapshot, scene, outlook)
                table.without(NodeID(0), zstd=True)
                return

    def _full_shared(
        self, table: ChunkTable, viewer: NodeID, of: Band, own: bytes, *, zstd: bool
    ) -> list[bytes]:
        snapshot = table.snapshot
        owner = snapshot.nodes[viewer].owner_id
        if owner in table.owners:
            head = table.head(of, lambda: _head(snapshot, of, table.owners))
        else:
            head = _head(snapshot, of, (*table.owners, owner))
        parts = [
            compress(own) if zstd else own,
            *(piece.data(zstd=zstd) for piece in self._rules_of(snapshot, viewer, of)),
            head.data(zstd=zstd),
            *table.without(viewer, zstd=zstd),
            _END_OF_PEERS.data(zstd=zstd),
        ]
        self._bound_tables()
        return framed(parts)

    def _full_alone(
        self, snapshot: Snapshot, viewer: NodeID, of: Band, own: bytes, *, zstd: bool
    ) -> list[bytes]:
        scene = self._outlooks_of(snapshot)
        outlook = scene.of(viewer)
        ids = [i for i in visible(snapshot, outlook.sight) if i != viewer]
        owners = {snapshot.nodes[node_id].owner_id for node_id in (viewer, *ids)}
        head = _head(snapshot, of, owners).text
        texts = self._texts.of_peers(snapshot, ids, scene.faces(outlook))
        parts = (
            own,
            *(piece.text for piece in self._rules_of(snapshot, viewer, of)),
            head if ids else head.removesuffix(_PEERS),
            b",".join(texts),
            b"]}" if ids else b"}",
        )
        return [message(b"".join(parts), zstd=zstd)]

    def _table(self, snapshot: Snapshot, scene: Outlooks, outlook: Outlook) -> ChunkTable:
        faces = scene.faces(outlook)
        table = self._tables.get(outlook)
        if table is None:
            table = self._adopted(snapshot, scene, outlook)
            if table is None:
                sight, peers = outlook.sight, self._chunk_peers
                table = ChunkTable(sight, self._texts, snapshot, peers, faces)
            self._tables[outlook] = table
        if table.snapshot is not snapshot:
            touched = self._touched_between(table.snapshot, snapshot)
            table.advance(snapshot, touched, outlook.sight, faces)
        self._tables.move_to_end(outlook)
        return table

    def _adopted(self, snapshot: Snapshot, scene: Outlooks, outlook: Outlook) -> ChunkTable | None:
        """Take over the table of an outlook that is no more, and shows nearly the same nodes.

        When a node joins, all who see it have a new sight; most of their chunks are as before.
        """
        found, fewest = None, len(snapshot.nodes) // REBUILD_SHARE
        for key, table in self._tables.items():
            if scene.is_of(table.snapshot):
                continue
            differing = differing_nodes(table.snapshot, key.sight, snapshot, outlook.sight)
            if len(differing) <= fewest:
                found, fewest = key, len(differing)
        return None if found is None else self._tables.pop(found)

    def _touched_between(self, old: Snapshot, new: Snapshot) -> frozenset[NodeID]:
        known = self._touched
        if known is None or known[0] is not old or known[1] is not new:
            known = self._touched = old, new, touched(old, new)
        return known[2]

    def _bound_tables(self) -> None:
        while (
            len(self._tables) > 1
            and sum(table.held_bytes for table in self._tables.values()) > MAX_TABLE_BYTES
        ):
            self._tables.popitem(last=False)

    def _is_shared(self, snapshot: Snapshot, sight: Sight) -> bool:
        compiled = snapshot.compiled
        if self._compiled is not compiled:
            self._compiled = compiled
            self._sharers = compiled.sizes()
            self._drop_tables()
            self._rules.grow_older()
        viewers = self._sharers.get(sight, 0)
        if sight is compiled.default_sight:
            viewers += len(snapshot.nodes) - len(compiled.sights)
        return viewers >= MIN_SHARERS

    def _drop_tables(self) -> None:
        """Drop the tables of sights that nobody has any more and nobody took over for a while."""
        for key, table in list(self._tables.items()):
            sight = key.sight
            if self._sharers.get(sight) or (
                self._compiled is not None and sight is self._compiled.default_sight
            ):
                continue
            if not any(known.is_of(table.snapshot) for known in self._outlooks):
                del self._tables[key]

    def _rules_of(self, snapshot: Snapshot, viewer: NodeID, of: Band) -> Iterator[Fragment]:
        """Give the rules that a viewer is told of, between two commas that others write."""
        yield from self._rules.ssh(ssh_rules(snapshot, viewer))
        yield _COMMA
        yield from self._rules.filter(snapshot.compiled.packet_filter(viewer), of)

    # ── deltas ───────────────────────────────────────────────────────────────────────────────

    def delta(
        self, old: Snapshot, new: Snapshot, viewer: NodeID, capver: int, *, zstd: bool
    ) -> list[bytes] | None:
        """Give the message (now and then two) from ``old`` to ``new``; None: nothing to say.

        All parts, in order, are whole messages. Raises KeyError if the viewer is not in both.
        """
        pair = self._pair
        if pair is None or pair.old is not old or pair.new is not new:
            pair = self._pair_of(old, new)
        if pair.all_special or viewer in pair.changed.touched:
            return self._delta_special(pair, viewer, band(capver), zstd=zstd)
        key = pair.after.of(viewer), capver, zstd
        try:
            return pair.ready[key]
        except KeyError:
            shared = self._shared(pair, key[0], key[0], band(capver))
            parts = pair.ready[key] = shared.parts(zstd=zstd)
            return parts

    def _delta_special(
        self, pair: _Pair, viewer: NodeID, of: Band, *, zstd: bool
    ) -> list[bytes] | None:
        old, new = pair.old, pair.new
        own = own_between(old, new, viewer, pair.changed, of, pair.personal)
        after = pair.after.of(viewer)
        shared = self._shared(pair, pair.before.of(viewer), after, of)
        steps = shared.steps
        if viewer in shared.whole or not set(own.owners) <= set(steps.owners):
            alone = self._make_shared(pair, steps.without(viewer), after, of, own.owners)
            return self._compose(own, alone, of, zstd=zstd)
        if own.is_empty:
            return None if shared.only == viewer else shared.parts(zstd=zstd)
        return self._compose(own, shared, of, zstd=zstd)

    def _compose(self, own: Own, shared: _Shared, of: Band, *, zstd: bool) -> list[bytes] | None:
        """Give what a viewer is told of itself, and then what it is told of others."""
        mine: list[bytes | Fragment] = []
        if own.node is not None:
            mine += (b",", _fields(tailcfg.MapResponse(node=own.node)))
        if own.packet_filter is not None:
            mine += (b",", *self._rules.filter(own.packet_filter, of))
        if own.ssh_policy is not None:
            mine += (b",", *self._rules.ssh(own.ssh_policy))
        if own.dns_config is not None:
            mine += (b",", _fields(tailcfg.MapResponse(dns_config=own.dns_config)))
        if not mine:
            return shared.parts(zstd=zstd)
        mine[0] = b"{"
        if not shared.body.text:
            parts = framed(packed((*mine, b"}"), zstd=zstd))
        else:
            parts = framed(
                (
                    *packed((*mine, b","), zstd=zstd),
                    shared.body.data(zstd=zstd),
                    _CLOSE.data(zstd=zstd),
                )
            )
        return [message(shared.first, zstd=zstd), *parts] if shared.first else parts

    def _pair_of(self, old: Snapshot, new: Snapshot) -> _Pair:
        if self._pair is not None and self._pair.new is not new:
            self._pairs.clear()
        pair = self._pairs.get(id(old))
        if pair is None:
            before, after = self._outlooks_of(old), self._outlooks_of(new)
            pair = self._pairs[id(old)] = _Pair(old, new, before, after)
            if len(self._pairs) > MAX_PAIRS:
                self._pairs.popitem(last=False)
        self._pair = pair
        return pair

    def _shared(self, pair: _Pair, before: Outlook, now: Outlook, of: Band) -> _Shared:
        key = before, now, of
        shared = pair.shared.get(key)
        if shared is None:
            faces = pair.after.faces(now)
            turned = changed_faces(pair.before.faces(before), faces)
            steps = steps_between(
                pair.old, pair.new, before.sight, now.sight, pair.changed, turned, faces
            )
            shared = self._make_shared(pair, steps, now, of)
            if self._is_shared(pair.new, now.sight):
                pair.held_bytes += shared.held_bytes
                if pair.held_bytes > MAX_PAIR_BYTES:
                    pair.shared.clear()
                    pair.ready.clear()
                    pair.held_bytes = shared.held_bytes
                pair.shared[key] = shared
        return shared

    def _make_shared(
        self, pair: _Pair, steps: Steps, now: Outlook, of: Band, owners: Iterable[UserID] = ()
    ) -> _Shared:
        common = pair.common.get(of)
        if common is None:
            common = pair.common[of] = common_between(pair.old, pair.new, of)
        first = b""
        if steps.again:
            removed = tuple(sorted((*steps.gone, *steps.again)))
            first = tailcfg.encode(tailcfg.MapResponse(peers_removed=removed))
        told = profiles(pair.new, {*steps.owners, *owners})
        body = _fields(
            tailcfg.MapResponse(
                derp_map=common.derp_map,
                peers_removed=None if steps.again else steps.gone or None,
                peers_changed_patch=steps.patches or None,
                peer_seen_change=dict.fromkeys(steps.unseen, False) or None,
                dns_config=common.dns_config,
                domain=rebuilding_domain(pair.new, common, told),
                user_profiles=told or None,
                debug=tailcfg.Debug(disable_log_tail=True) if common.disable_logs else None,
            )
        )
        if steps.whole:
            faces = pair.after.faces(now)
            texts = self._texts.of_peers(pair.new, steps.whole, faces)
            changed = b'"PeersChanged":[' + b",".join(texts) + b"]"
            body = changed + b"," + body if body else changed
        return _Shared(steps, first, body, has_more=bool(told) or not common.is_empty)


_PEERS = b',"Peers":['


def _fields(response: tailcfg.MapResponse) -> bytes:
    """Give the text of a response without its braces."""
    return tailcfg.encode(response)[1:-1]


def _own_text(
    snapshot: Snapshot,
    viewer: NodeID,
    now: datetime | None,
    personal: tailcfg.DNSConfig | None,
) -> bytes:
    """Give the beginning of a full map, up to the comma: what only this viewer is told."""
    node = self_node(snapshot, snapshot.nodes[viewer])
    dns = None if personal is None else nextdns.fit(personal, nextdns.asker(snapshot, viewer))
    response = tailcfg.MapResponse(node=node, control_time=now, dns_config=dns)
    return b"{" + _fields(response) + b","


def _head(snapshot: Snapshot, of: Band, owners: Iterable[UserID]) -> Fragment:
    """Give what stands before the peers and is the same for many, up to the list's bracket."""
    response = tailcfg.MapResponse(
        derp_map=fit_derp_map(derp_map(snapshot), of),
        dns_config=None if is_personal(snapshot) else dns_config(snapshot),
        domain=snapshot.tailnet.domain,
        user_profiles=profiles(snapshot, owners),
        debug=tailcfg.Debug(disable_log_tail=True) if snapshot.settings.disable_logs else None,
        default_auto_update=default_auto_update(of),
    )
    return Fragment(b"," + _fields(response) + _PEERS)


_KEEP_ALIVE = message(b'{"KeepAlive":true}', zstd=False)
_KEEP_ALIVE_ZSTD = message(b'{"KeepAlive":true}', zstd=True)
