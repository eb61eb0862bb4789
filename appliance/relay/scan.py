"""The relay's innermost loop: packet frames turned around in place.

A SendPacket and the RecvPacket that it becomes have the same length: only the type byte and the
key differ. So a whole wake's bytes are rewritten where they lie, and consecutive frames for one
destination leave as one piece. Not for deciding where they go (``server`` does). Knows the layout
that ``wire.derp`` documents.
"""

from __future__ import annotations

import struct
from collections.abc import Iterator

from appliance.wire.derp import (
    DISCO_MAGIC,
    HEADER_BYTES,
    MAX_SEND_BYTES,
    MIN_DISCO_BYTES,
    FrameType,
)
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import KEY_BYTES

HEAD_BYTES = HEADER_BYTES + KEY_BYTES
"""Header and key of a packet frame: what is rewritten."""

_SEND = bytes((FrameType.SEND_PACKET,))
_RECV = bytes((FrameType.RECV_PACKET,))
_size_at = struct.Struct(">I").unpack_from
_pack_header = struct.Struct(">BI").pack
_MIN_DISCO_TOTAL = HEAD_BYTES + MIN_DISCO_BYTES


Run = tuple[bytes, int, int, int, int]
"""Frames in a row for one destination: its key, start, stop, frames, frames of path discovery."""


def rewrite_run(buffer: bytearray, view: memoryview, at: int, end: int, source: bytes) -> Run:
    """Turn the SendPacket frames at ``at`` that have one destination into RecvPacket frames.

    The caller has seen that a SendPacket with its key begins at ``at``. An incomplete frame is left
    as it is: the run may be empty. Raises ProtocolError when the first frame's length is impossible.
    """
    starts = buffer.startswith
    start = at
    destination = bytes(view[at + HEADER_BYTES : at + HEAD_BYTES])
    count = disco = 0
    while True:
        (size,) = _size_at(buffer, at + 1)
        if not KEY_BYTES <= size <= MAX_SEND_BYTES:
            if count:
                break  # what came before it is good; the next round meets the bad one first
            raise ProtocolError(f"derp: SendPacket of {size} bytes")
        total = HEADER_BYTES + size
        if at + total > end:
            break
        # Equal heads in a row (one flow's full packets) skip everything above.
        head = bytes(view[at : at + HEAD_BYTES])
        turned = bytearray(_RECV + head[1:HEADER_BYTES] + source)  # same type: no hidden copy
        may_be_disco = total >= _MIN_DISCO_TOTAL
        while True:
            buffer[at : at + HEAD_BYTES] = turned
            if may_be_disco and starts(DISCO_MAGIC, at + HEAD_BYTES):
                disco += 1
            count += 1
            at += total
            if at + total > end or not starts(head, at):
                break
        if end - at < HEAD_BYTES or not starts(_SEND, at):
            break
        if not starts(destination, at + HEADER_BYTES):
            break
    return destination, start, at, count, disco


def packets(frames: memoryview) -> Iterator[memoryview]:
    """Give the data of each packet in a run of whole RecvPacket frames."""
    at = 0
    while at < len(frames):
        (size,) = _size_at(frames, at + 1)
        yield frames[at + HEAD_BYTES : at + HEADER_BYTES + size]
        at += HEADER_BYTES + size


def count_disco(frames: memoryview) -> int:
    """Count the packets of path discovery in a run of whole RecvPacket frames."""
    return sum(
        len(data) >= MIN_DISCO_BYTES and data[: len(DISCO_MAGIC)] == DISCO_MAGIC
        for data in packets(frames)
    )


def forward_frames(frames: memoryview, source: bytes, destination: bytes) -> list[bytes]:
    """Make ForwardPacket frames out of a run of whole RecvPacket frames."""
    keys = source + destination
    return [
        b"".join((_pack_header(FrameType.FORWARD_PACKET, len(keys) + len(data)), keys, data))
        for data in packets(frames)
    ]


def recv_head(size: int, source: bytes) -> bytes:
    """Make the head of a RecvPacket for ``size`` bytes of data."""
    return _pack_header(FrameType.RECV_PACKET, KEY_BYTES + size) + source
