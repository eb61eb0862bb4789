"""Pieces of messages as bytes: JSON texts, their zstd frames, and how they become one message.

A message for a client that asked for zstd may be several frames in a row: the client decodes them
all and reads the result as one JSON text. So what many clients are told is compressed once.

Framing: u32 little-endian length, then the text, or the frames.
Source: tailscale control/controlclient/direct.go (decodeMsg), util/zstdframe; klauspost/compress
zstd/decoder.go (DecodeAll); measured: level 1 is as small as 2 and 3 (most of a map is keys).
"""

from __future__ import annotations

import struct
from collections import OrderedDict
from collections.abc import Callable, Sequence
from datetime import datetime
from typing import TypeAlias

import zstandard

from appliance.netmap.outlook import ALL_PLAIN, PLAIN, Face, Faces
from appliance.netmap.peers import peer, shown_last_seen
from appliance.records import OFFLINE, Node, NodeID, Presence
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg

ZSTD_LEVEL = 1

_LENGTH = struct.Struct("<I")
_compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)


def compress(data: bytes) -> bytes:
    """Return data as one zstd frame."""
    return _compressor.compress(data)


class Fragment:
    """A piece of a message's text, and its zstd frame once somebody needs it."""

    __slots__ = ("_frame", "text")

    def __init__(self, text: bytes) -> None:
        self.text = text
        self._frame = b""

    def data(self, *, zstd: bool) -> bytes:
        """Return the text, or its frame."""
        if not zstd:
            return self.text
        if not self._frame:
            self._frame = compress(self.text)
        return self._frame

    @property
    def held_bytes(self) -> int:
        """What keeping this costs."""
        return len(self.text) + len(self._frame)


Pieces: TypeAlias = "tuple[Fragment, ...]"
"""A text in pieces; every second one is shared with other texts, and counted there."""


class Fragments:
    """Fragments by the object that they are of and a form of it, up to so many bytes.

    The objects are kept with them, so that no other one can have the same identity.
    """

    __slots__ = ("_age", "_kept", "_max_bytes", "held_bytes")

    def __init__(self, max_bytes: int) -> None:
        self._kept: OrderedDict[tuple[int, int], tuple[object, Pieces, int]] = OrderedDict()
        self._max_bytes = max_bytes
        self._age = 0
        self.held_bytes = 0

    def __len__(self) -> int:
        return len(self._kept)

    def of(self, what: object, form: int, make: Callable[[], bytes]) -> Fragment:
        """Return the fragment of an object in a form, made if it is not there."""
        return self.pieces_of(what, form, lambda: (Fragment(make()),))[0]

    def pieces_of(self, what: object, form: int, make: Callable[[], Pieces]) -> Pieces:
        """Return the pieces of an object in a form, made if they are not there."""
        key = id(what), form
        known = self._kept.pop(key, None)
        pieces = make() if known is None else known[1]
        self._kept[key] = what, pieces, self._age
        if known is None:
            self.held_bytes += _own_bytes(pieces)
            while self.held_bytes > self._max_bytes and len(self._kept) > 1:
                self._drop_oldest()
        return pieces

    def grow_older(self) -> None:
        """Evict entries unused for two calls.

        An old version of a large object would else be held by a small text of it.
        """
        while self._kept and next(iter(self._kept.values()))[2] < self._age:
            self._drop_oldest()
        self._age += 1

    def _drop_oldest(self) -> None:
        _, (_, gone, _) = self._kept.popitem(last=False)
        self.held_bytes -= _own_bytes(gone)


def _own_bytes(pieces: Pieces) -> int:
    """Return what pieces cost at most: a frame is never longer than its text, or hardly."""
    return 2 * sum(len(piece.text) for piece in pieces[::2])


def framed(parts: Sequence[bytes]) -> list[bytes]:
    """Make a message of its parts, which are texts or frames: put the length in front."""
    length = _LENGTH.pack(sum(map(len, parts)))
    return [length + parts[0], *parts[1:]]


def message(text: bytes, *, zstd: bool) -> bytes:
    """Make a message of one text."""
    body = compress(text) if zstd else text
    return _LENGTH.pack(len(body)) + body


class PeerTexts:
    """The JSON of all peers, each made once for what it is made of."""

    __slots__ = ("_domain", "_texts")

    def __init__(self) -> None:
        self._domain = ""
        self._texts: dict[NodeID | tuple[NodeID, Face], tuple[Node, Presence, bytes]] = {}

    @property
    def held_bytes(self) -> int:
        """What keeping the texts costs."""
        return sum(len(text) for _, _, text in self._texts.values())

    def __len__(self) -> int:
        return len(self._texts)

    def of_peers(
        self, snapshot: Snapshot, ids: Sequence[NodeID], faces: Faces = ALL_PLAIN
    ) -> list[bytes]:
        """Return the texts of these nodes, which must be in the snapshot."""
        self._make_room(snapshot)
        texts, nodes, presences = self._texts, snapshot.nodes, snapshot.presence
        given = []
        for node_id in ids:
            face = faces.get(node_id)
            key = node_id if face is None else (node_id, face)
            known = texts.get(key)
            if (
                known is not None
                and known[0] is nodes[node_id]
                and known[1] is presences.get(node_id, OFFLINE)
            ):
                given.append(known[2])
            else:
                given.append(self._make(snapshot, nodes[node_id], face, known))
        return given

    def _make(
        self,
        snapshot: Snapshot,
        node: Node,
        face: Face | None,
        known: tuple[Node, Presence, bytes] | None,
    ) -> bytes:
        presence = snapshot.presence_of(node.id)
        if known is not None and known[0] is node and looks(known[1]) == looks(presence):
            text = known[2]
        else:
            text = tailcfg.encode(peer(snapshot, node, face or PLAIN))
        self._texts[node.id if face is None else (node.id, face)] = (node, presence, text)
        return text

    def _make_room(self, snapshot: Snapshot) -> None:
        """Forget what nobody shows any more, now and then."""
        if self._domain != snapshot.tailnet.domain:
            self._domain = snapshot.tailnet.domain
            self._texts.clear()
        elif len(self._texts) > 3 * len(snapshot.nodes) + 256:
            nodes = snapshot.nodes
            kept = {i: k for i, k in self._texts.items() if nodes.get(k[0].id) is k[0]}
            # Many faces of one node are rare, and are made again when they are asked for.
            self._texts = kept if len(kept) <= 2 * len(nodes) + 128 else {}


def looks(presence: Presence) -> tuple[bool, datetime | None, bool]:
    """Return what peers see of a presence."""
    return presence.online, shown_last_seen(presence), presence.expired
