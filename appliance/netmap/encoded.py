"""The messages of ``full`` and ``delta`` as bytes, ready to be sent.

Not for deciding what is told (``view``, ``delta``). One ``Encoder`` serves one tailnet.

Framing: u32 little-endian length, then JSON, or JSON as zstd frames if the client asked for that.
Source: tailscale control/controlclient/direct.go (decodeMsg), util/zstdframe.
"""

from __future__ import annotations

import struct

import zstandard

from appliance.netmap.delta import delta
from appliance.netmap.view import full
from appliance.records import NodeID
from appliance.tailnet.snapshot import Snapshot
from appliance.wire import tailcfg

ZSTD_LEVEL = 1
"""Higher levels are up to 1.5 times dearer and no smaller: most of a map is keys."""

_LENGTH = struct.Struct("<I")
_compressor = zstandard.ZstdCompressor(level=ZSTD_LEVEL)


def compress(data: bytes) -> bytes:
    """Give data as one zstd frame."""
    return _compressor.compress(data)


class Encoder:
    """Makes the bytes of map responses for all nodes of one tailnet."""

    def full(self, snapshot: Snapshot, viewer: NodeID, capver: int, *, zstd: bool) -> list[bytes]:
        """Give the first message of a session; all parts, in order, are one message."""
        return [_frame(tailcfg.encode(full(snapshot, viewer, capver)), zstd=zstd)]

    def delta(
        self, old: Snapshot, new: Snapshot, viewer: NodeID, capver: int, *, zstd: bool
    ) -> list[bytes] | None:
        """Give the message (now and then two) from ``old`` to ``new``; None: nothing to say."""
        messages = delta(old, new, viewer, capver)
        return [_frame(tailcfg.encode(message), zstd=zstd) for message in messages] or None

    def keep_alive(self, *, zstd: bool) -> bytes:
        """Give the message that says nothing; always the same bytes, which clients know again."""
        return _KEEP_ALIVE_ZSTD if zstd else _KEEP_ALIVE


def _frame(data: bytes, *, zstd: bool) -> bytes:
    body = compress(data) if zstd else data
    return _LENGTH.pack(len(body)) + body


_KEEP_ALIVE = _frame(b'{"KeepAlive":true}', zstd=False)
_KEEP_ALIVE_ZSTD = _frame(b'{"KeepAlive":true}', zstd=True)
