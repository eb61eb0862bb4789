"""All peers that a visibility class sees, in chunks that are compressed once for all its viewers.

A full map is the viewer's own part, then these chunks; only the chunk in which the viewer itself
stands is made anew, without it. A table follows the versions: what did not change stays.

Measured: 64 peers a chunk make maps 6 % larger than whole compression, 32 make 9 %, 128 make 4 %.
"""

from __future__ import annotations

from bisect import bisect_right
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet

from appliance.netmap.capver import Band
from appliance.netmap.outlook import ALL_PLAIN, Faces, changed_faces, shown, visible
from appliance.netmap.scene import Basis, Scene
from appliance.netmap.texts import Fragment, PeerTexts, compress, looks
from appliance.policy.engine.compile import Sight
from appliance.records import Node, NodeID, User, UserID
from appliance.tailnet.snapshot import Snapshot

CHUNK_PEERS = 64
REBUILD_SHARE = 4
"""When more than one node in this many changed, a table is made anew: that is cheaper."""

_MISSING = b""


class Chunk:
    """Neighbours by id, and their text in the forms that were asked for.

    ``made`` holds text and frame, each without and with a comma in front.
    """

    __slots__ = ("ids", "made")

    def __init__(self, ids: list[NodeID]) -> None:
        self.ids = ids
        self.made = [_MISSING] * 4


class ChunkTable:
    """The chunks of one outlook in one form, as of one snapshot at a time."""

    def __init__(
        self,
        sight: Sight,
        texts: PeerTexts,
        snapshot: Snapshot,
        chunk_peers: int = CHUNK_PEERS,
        faces: Faces = ALL_PLAIN,
    ) -> None:
        self.sight = sight
        self._faces = faces
        self._chunk_peers = chunk_peers
        self.snapshot = snapshot
        self.held_bytes = 0
        self.owners: Counter[UserID] = Counter()
        self._heads: dict[Band, tuple[Basis, Mapping[UserID, User], Fragment]] = {}
        self._texts = texts
        self._chunks: list[Chunk] = []
        self._starts: list[NodeID] = []
        self._build(snapshot)

    def advance(
        self,
        new: Snapshot,
        touched: Iterable[NodeID],
        sight: Sight | None = None,
        faces: Faces = ALL_PLAIN,
    ) -> None:
        """Bring the table to another snapshot, and to another sight and other faces.

        ``touched`` are the ids of all nodes that came, went, or have another record or presence.
        """
        old, self.snapshot = self.snapshot, new
        seen_before, self.sight = self.sight, sight or self.sight
        turned = changed_faces(self._faces, faces)
        self._faces = faces
        ids = {i for i in touched if seen_before.shows(i) or self.sight.shows(i)}
        ids |= turned
        if seen_before is not self.sight:
            ids |= differing_nodes(old, seen_before, new, self.sight)
        if (
            old.tailnet.domain != new.tailnet.domain
            or len(ids) * REBUILD_SHARE > sum(self.owners.values())
            or len(self._chunks) > 2 + 2 * sum(self.owners.values()) // self._chunk_peers
        ):
            self._build(new)
            return
        for node_id in ids:
            was = old.nodes.get(node_id) if seen_before.shows(node_id) else None
            now = new.nodes.get(node_id) if self.sight.shows(node_id) else None
            self._follow(old, new, node_id, was, now, is_turned=node_id in turned)

    def _follow(
        self,
        old: Snapshot,
        new: Snapshot,
        node_id: NodeID,
        was: Node | None,
        now: Node | None,
        *,
        is_turned: bool,
    ) -> None:
        if was is not None and now is not None:
            before, after = old.presence_of(node_id), new.presence_of(node_id)
            if is_turned or was is not now or looks(before) != looks(after):
                self._forget(self._chunks[self._index(node_id)])
        elif now is not None:
            self._insert(node_id)
        elif was is not None:
            self._remove(node_id)
        if was is not now:
            if was is not None:
                self._count(was.owner_id, -1)
            if now is not None:
                self._count(now.owner_id, 1)

    def has_others(self, viewer: NodeID) -> bool:
        """Return whether there is any node but the viewer."""
        return len(self._chunks) > 1 or (
            bool(self._chunks) and self._chunks[0].ids not in ([], [viewer])
        )

    def head(self, of: Band, scene: Scene, make: Callable[[], Fragment]) -> Fragment:
        """Return what stands before the peers, made anew when something in it may have changed."""
        users = self.snapshot.users
        known = self._heads.get(of)
        if known is None or known[0] is not scene.basis or known[1] is not users:
            known = self._heads[of] = scene.basis, users, make()
        return known[2]

    def without(self, viewer: NodeID, *, zstd: bool) -> list[bytes]:
        """Return all nodes but the viewer, as parts of a JSON list without its brackets."""
        parts: list[bytes] = []
        own = self._index(viewer)
        for index, chunk in enumerate(self._chunks):
            leading = bool(parts)
            if index == own and viewer in chunk.ids:
                others = [node_id for node_id in chunk.ids if node_id != viewer]
                if others:
                    parts.append(self._make(others, leading=leading, zstd=zstd))
            else:
                parts.append(self._shared(chunk, leading=leading, zstd=zstd))
        return parts

    def _build(self, snapshot: Snapshot) -> None:
        ids = visible(snapshot, self.sight)
        self.held_bytes = 0
        self._heads.clear()
        self.owners = Counter(snapshot.nodes[node_id].owner_id for node_id in ids)
        self._chunks = [
            Chunk(ids[start : start + self._chunk_peers])
            for start in range(0, len(ids), self._chunk_peers)
        ]
        self._starts = [chunk.ids[0] for chunk in self._chunks]

    def _index(self, node_id: NodeID) -> int:
        """Return the index of the chunk that has the node, or would."""
        return max(0, bisect_right(self._starts, node_id) - 1)

    def _insert(self, node_id: NodeID) -> None:
        if not self._chunks:
            self._chunks, self._starts = [Chunk([node_id])], [node_id]
            return
        index = self._index(node_id)
        ids = self._chunks[index].ids
        if node_id > ids[-1] and len(ids) >= self._chunk_peers:
            self._put(index + 1, [[node_id]], replacing=0)
            return
        grown = sorted([*ids, node_id])
        middle = len(grown) // 2
        split = [grown[:middle], grown[middle:]] if len(grown) > 2 * self._chunk_peers else [grown]
        self._put(index, split, replacing=1)

    def _remove(self, node_id: NodeID) -> None:
        index = self._index(node_id)
        rest = [other for other in self._chunks[index].ids if other != node_id]
        self._put(index, [rest] if rest else [], replacing=1)

    def _put(self, index: int, lists: Sequence[list[NodeID]], *, replacing: int) -> None:
        for chunk in self._chunks[index : index + replacing]:
            self._forget(chunk)
        self._chunks[index : index + replacing] = [Chunk(ids) for ids in lists]
        self._starts[index : index + replacing] = [ids[0] for ids in lists]

    def _count(self, owner: UserID, by: int) -> None:
        if not self.owners[owner]:
            self._heads.clear()
        self.owners[owner] += by
        if not self.owners[owner]:
            del self.owners[owner]
            self._heads.clear()

    def _forget(self, chunk: Chunk) -> None:
        self.held_bytes -= sum(map(len, chunk.made))
        chunk.made = [_MISSING] * 4

    def _shared(self, chunk: Chunk, *, leading: bool, zstd: bool) -> bytes:
        form = 2 * zstd + leading
        if not chunk.made[form]:
            chunk.made[form] = self._make(chunk.ids, leading=leading, zstd=zstd)
            self.held_bytes += len(chunk.made[form])
        return chunk.made[form]

    def _make(self, ids: Sequence[NodeID], *, leading: bool, zstd: bool) -> bytes:
        text = b",".join(self._texts.of_peers(self.snapshot, ids, self._faces))
        if leading:
            text = b"," + text
        return compress(text) if zstd else text


def differing_nodes(
    old: Snapshot, seen_before: Sight, new: Snapshot, seen_now: Sight
) -> AbstractSet[NodeID]:
    """Return the nodes that are seen in one of two snapshots only."""
    return shown(old, seen_before) ^ shown(new, seen_now)
