"""Map responses as bytes, ready to be sent; what many clients are told, made once.

Not for deciding what is told: that is in the table of ``fields``. ``model`` makes plain messages
of the same table, and a client that reads these bytes knows the same. One ``Encoder`` serves one
tailnet. Sits on ``texts`` and ``chunks``.

Everything is remembered by identity: of records, sights, snapshots. All of it is bounded.
Source: tailscale control/controlclient/map.go (a patch of an unknown peer is passed over).
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Collection, Iterable, Mapping
from datetime import datetime
from typing import Any, NamedTuple

from appliance.netmap import fields
from appliance.netmap.capver import Band, band
from appliance.netmap.changes import changes, touched
from appliance.netmap.chunks import CHUNK_PEERS, REBUILD_SHARE, ChunkTable, differing_nodes
from appliance.netmap.messages import around_expiry, full_fields
from appliance.netmap.outlook import Outlook, Outlooks, changed_faces, visible
from appliance.netmap.ruletexts import LONG_LIST, MAX_FILTER_BYTES, RuleTexts, packed
from appliance.netmap.scene import Scene
from appliance.netmap.steps import Steps, own_owners, steps_between
from appliance.netmap.texts import Fragment, PeerTexts, Pieces, compress, framed, message
from appliance.policy.engine.compile import Compiled, Sight
from appliance.records import NodeID, UserID
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


class Limits(NamedTuple):
    """What an encoder keeps at most."""

    table_bytes: int = MAX_TABLE_BYTES
    pairs: int = MAX_PAIRS
    pair_bytes: int = MAX_PAIR_BYTES
    filter_bytes: int = MAX_FILTER_BYTES


DEFAULT_LIMITS = Limits()


class Kept(NamedTuple):
    """What an encoder keeps: tables of peers (by sight), ways between versions, filters, texts."""

    sights: frozenset[Sight]
    table_bytes: int
    pairs: int
    shared_deltas: int
    filters: int
    filter_bytes: int
    peers: int


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
        """Return what a viewer is sent that is told nothing else."""
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
        "ready",
        "scenes",
        "shared",
        "special",
    )

    def __init__(self, old: Scene, new: Scene, before: Outlooks, after: Outlooks) -> None:
        self.old = old.snapshot
        self.new = new.snapshot
        self.scenes = old, new
        self.before = before
        self.after = after
        self.changed = changes(self.old, self.new)
        self.special = self.changed.touched
        if self.old.expired or self.new.expired:
            self.special |= self.old.expired | self.new.expired
        self.all_special = (
            before is not after
            or bool(self.changed.users)
            or any(row.concerns_all(old, new) for row in fields.OWN)
        )
        self.common: dict[Band, dict[str, object]] = {}
        self.shared: dict[tuple[Outlook, Outlook, Band], _Shared] = {}
        self.ready: dict[tuple[Outlook, int, bool], list[bytes] | None] = {}
        self.held_bytes = 0


class Encoder:
    """Makes the bytes of map responses for all nodes of one tailnet.

    Parts that are given out are shared: they must not be changed. Not for several threads.
    """

    def __init__(
        self,
        chunk_peers: int = CHUNK_PEERS,
        long_list: int = LONG_LIST,
        limits: Limits = DEFAULT_LIMITS,
    ) -> None:
        self._chunk_peers = chunk_peers
        self._limits = limits
        self._texts = PeerTexts()
        self._tables: OrderedDict[Outlook, ChunkTable] = OrderedDict()
        self._rules = RuleTexts(long_list, limits.filter_bytes)
        self._compiled: Compiled | None = None
        self._sharers: Mapping[Sight, int] = {}
        self._outlooks: list[Outlooks] = []
        self._touched: tuple[Snapshot, Snapshot, frozenset[NodeID]] | None = None
        self._scene: Scene | None = None
        # Of these the text is kept by the value's identity; it is never None.
        self._pieces: Mapping[str, Callable[[Any, Band], Pieces]] = {
            "packet_filters": self._rules.filter,
            "ssh_policy": self._rules.ssh,
        }
        kept, made = _parted(fields.OWN, self._pieces.keys())
        self._kept = [(row.value, self._pieces[row.field]) for row in kept]
        self._made = [(row.field, row.value, row.form) for row in made]
        self._pair: _Pair | None = None
        self._pairs: OrderedDict[int, _Pair] = OrderedDict()

    def keep_alive(self, *, zstd: bool) -> bytes:
        """Return the message that says nothing; always the same bytes, which clients know again."""
        return _KEEP_ALIVE_ZSTD if zstd else _KEEP_ALIVE

    @property
    def kept(self) -> Kept:
        """How much of each kind is kept."""
        return Kept(
            sights=frozenset(outlook.sight for outlook in self._tables),
            table_bytes=sum(table.held_bytes for table in self._tables.values()),
            pairs=len(self._pairs),
            shared_deltas=sum(len(pair.shared) for pair in self._pairs.values()),
            filters=self._rules.filters,
            filter_bytes=self._rules.filter_bytes,
            peers=len(self._texts),
        )

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
        """Return the first message of a session; all parts, in order, are one message.

        Raises KeyError if there is no such node.
        """
        of, scene = band(capver), self._scene_of(snapshot)
        if viewer in snapshot.expired:
            told = {**full_fields(scene, viewer, of), "control_time": now}
            return [message(tailcfg.encode(fields.response(told)), zstd=zstd)]
        outlooks = self._outlooks_of(snapshot)
        outlook = outlooks.of(viewer)
        own = self._own_text(scene, viewer, of, now)
        if self._is_shared(snapshot, outlook.sight):
            table = self._table(snapshot, outlooks, outlook)
            if table.has_others(viewer):
                return self._full_shared(table, scene, viewer, of, own, zstd=zstd)
        return self._full_alone(scene, viewer, of, own, zstd=zstd)

    def _scene_of(self, snapshot: Snapshot) -> Scene:
        """Return the scene of a snapshot; the last one is kept."""
        if self._scene is None or self._scene.snapshot is not snapshot:
            self._scene = Scene(snapshot, self._scene)
        return self._scene

    def _own_text(
        self, scene: Scene, viewer: NodeID, of: Band, now: datetime | None
    ) -> list[Fragment]:
        """Return the beginning of a full map: what only this viewer is told."""
        told: dict[str, object] = {"control_time": now}
        for field, value_of, form in self._made:
            if (value := value_of(scene, viewer)) is not None:
                told[field] = form(value, of)
        parts = [Fragment(b"{" + _text(told) + b",")]
        for value_of, pieces in self._kept:
            if len(parts) > 1:
                parts.append(_COMMA)
            parts += pieces(value_of(scene, viewer), of)
        return parts

    def _outlooks_of(self, snapshot: Snapshot) -> Outlooks:
        """Return the outlooks of a snapshot; those of some versions are kept."""
        for known in self._outlooks:
            if known.is_of(snapshot):
                return known
        made = Outlooks(snapshot, self._outlooks[0] if self._outlooks else None)
        self._outlooks.insert(0, made)
        del self._outlooks[MAX_OUTLOOKS:]
        return made

    def warm(self, snapshot: Snapshot) -> None:
        """Make now what the first full map would make: 30 us a node, once after the start."""
        outlooks = self._outlooks_of(snapshot)
        for viewer in snapshot.nodes:
            outlook = outlooks.of(viewer)
            if self._is_shared(snapshot, outlook.sight):
                table = self._table(snapshot, outlooks, outlook)
                table.without(NodeID(0), zstd=True)
                return

    def _full_shared(
        self,
        table: ChunkTable,
        scene: Scene,
        viewer: NodeID,
        of: Band,
        own: list[Fragment],
        *,
        zstd: bool,
    ) -> list[bytes]:
        owner = scene.snapshot.nodes[viewer].owner_id
        if owner in table.owners:
            head = table.head(of, scene, lambda: _head(scene, of, table.owners))
        else:
            head = _head(scene, of, (*table.owners, owner))
        parts = [
            *(piece.data(zstd=zstd) for piece in own),
            head.data(zstd=zstd),
            *table.without(viewer, zstd=zstd),
            _END_OF_PEERS.data(zstd=zstd),
        ]
        self._bound_tables()
        return framed(parts)

    def _full_alone(
        self, scene: Scene, viewer: NodeID, of: Band, own: list[Fragment], *, zstd: bool
    ) -> list[bytes]:
        snapshot = scene.snapshot
        outlooks = self._outlooks_of(snapshot)
        outlook = outlooks.of(viewer)
        ids = [i for i in visible(snapshot, outlook.sight) if i != viewer]
        owners = {snapshot.nodes[node_id].owner_id for node_id in (viewer, *ids)}
        head = _head(scene, of, owners).text
        texts = self._texts.of_peers(snapshot, ids, outlooks.faces(outlook))
        parts = (
            *(piece.text for piece in own),
            head if ids else head.removesuffix(_PEERS),
            b",".join(texts),
            b"]}" if ids else b"}",
        )
        return [message(b"".join(parts), zstd=zstd)]

    def _table(self, snapshot: Snapshot, outlooks: Outlooks, outlook: Outlook) -> ChunkTable:
        faces = outlooks.faces(outlook)
        table = self._tables.get(outlook)
        if table is None:
            table = self._adopted(snapshot, outlooks, outlook)
            if table is None:
                sight, peers = outlook.sight, self._chunk_peers
                table = ChunkTable(sight, self._texts, snapshot, peers, faces)
            self._tables[outlook] = table
        if table.snapshot is not snapshot:
            touched = self._touched_between(table.snapshot, snapshot)
            table.advance(snapshot, touched, outlook.sight, faces)
        self._tables.move_to_end(outlook)
        return table

    def _adopted(
        self, snapshot: Snapshot, outlooks: Outlooks, outlook: Outlook
    ) -> ChunkTable | None:
        """Take over the table of an outlook that is no more, and shows nearly the same nodes.

        When a node joins, all who see it have a new sight; most of their chunks are as before.
        """
        found, fewest = None, len(snapshot.nodes) // REBUILD_SHARE
        for key, table in self._tables.items():
            if outlooks.is_of(table.snapshot):
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
            and sum(table.held_bytes for table in self._tables.values()) > self._limits.table_bytes
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

    # ── deltas ───────────────────────────────────────────────────────────────────────────────

    def delta(
        self, old: Snapshot, new: Snapshot, viewer: NodeID, capver: int, *, zstd: bool
    ) -> list[bytes] | None:
        """Return the message (now and then two) from ``old`` to ``new``; None: nothing to say.

        All parts, in order, are whole messages. Raises KeyError if the viewer is not in both.
        """
        pair = self._pair
        if pair is None or pair.old is not old or pair.new is not new:
            pair = self._pair_of(old, new)
        if pair.all_special or viewer in pair.special:
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
        before, now = pair.scenes
        if viewer in pair.old.expired or viewer in pair.new.expired:
            told = around_expiry(before, now, viewer, of)
            return [message(b"{" + _text(told) + b"}", zstd=zstd)] if told else None
        own = fields.own_changes(before, now, viewer)
        owners = own_owners(pair.old, pair.new, viewer, pair.changed)
        after = pair.after.of(viewer)
        shared = self._shared(pair, pair.before.of(viewer), after, of)
        steps = shared.steps
        if viewer in shared.whole or not set(owners) <= set(steps.owners):
            alone = steps.without(viewer).with_owners(owners)
            return self._compose(own, self._make_shared(pair, alone, after, of), of, zstd=zstd)
        if not own:
            return None if shared.only == viewer else shared.parts(zstd=zstd)
        return self._compose(own, shared, of, zstd=zstd)

    def _compose(
        self, own: Mapping[str, object], shared: _Shared, of: Band, *, zstd: bool
    ) -> list[bytes] | None:
        """Return what a viewer is told of itself, and then what it is told of others."""
        if not own:
            return shared.parts(zstd=zstd)
        mine: list[bytes | Fragment] = []
        for field, value in own.items():
            mine.append(b",")
            if (pieces := self._pieces.get(field)) is None:
                mine.append(_text({field: fields.own_form(field, value, of)}))
            else:
                mine += pieces(value, of)
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
            now = self._scene_of(new)
            pair = self._pairs[id(old)] = _Pair(Scene(old, now), now, before, after)
            if len(self._pairs) > self._limits.pairs:
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
                if pair.held_bytes > self._limits.pair_bytes:
                    pair.shared.clear()
                    pair.ready.clear()
                    pair.held_bytes = shared.held_bytes
                pair.shared[key] = shared
        return shared

    def _make_shared(self, pair: _Pair, steps: Steps, now: Outlook, of: Band) -> _Shared:
        before, after = pair.scenes
        common = pair.common.get(of)
        if common is None:
            common = pair.common[of] = fields.shared_changes(before, after, of)
        first = b""
        if removed := steps.removed_first():
            first = tailcfg.encode(tailcfg.MapResponse(peers_removed=removed))
        told = fields.with_rebuild({**common, **fields.peers_changes(after, steps)}, after)
        body = _text(told)
        if steps.whole:
            texts = self._texts.of_peers(pair.new, steps.whole, pair.after.faces(now))
            changed = b'"PeersChanged":[' + b",".join(texts) + b"]"
            body = changed + b"," + body if body else changed
        return _Shared(steps, first, body, has_more=bool(steps.owners or common))


def _parted(
    rows: Iterable[fields.OwnRow[Any]], names: Collection[str]
) -> tuple[list[fields.OwnRow[Any]], list[fields.OwnRow[Any]]]:
    """Return the rows with these names, and the others."""
    found: tuple[list[fields.OwnRow[Any]], list[fields.OwnRow[Any]]] = [], []
    for row in rows:
        found[row.field not in names].append(row)
    return found


_PEERS = b',"Peers":['


def _text(told: Mapping[str, object]) -> bytes:
    """Return the text of a message without its braces."""
    return tailcfg.encode(fields.response(told))[1:-1]


def _head(scene: Scene, of: Band, owners: Collection[UserID]) -> Fragment:
    """Return what stands before the peers and is the same for many, up to the list's bracket."""
    told = fields.shared_fields(scene, of)
    crowd = fields.Crowd((), owners)
    told |= {
        row.field: row.full(scene, crowd)
        for row in fields.PEERS
        if row.full is not None and not row.nodes
    }
    return Fragment(b"," + _text(told) + _PEERS)


_KEEP_ALIVE = message(b'{"KeepAlive":true}', zstd=False)
_KEEP_ALIVE_ZSTD = message(b'{"KeepAlive":true}', zstd=True)
