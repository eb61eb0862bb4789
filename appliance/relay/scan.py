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

_SEND = int(FrameType.SEND_PACKET)
_RECV = int(FrameType.RECV_PACKET)
_head_at = struct.Struct(">BI32s").unpack_from  # type, length, key
long_head_at = struct.Struct(">BI32s6s").unpack_from  # and what a disco packet begins with
LONG_HEAD_BYTES = HEAD_BYTES + len(DISCO_MAGIC)
turn_at = struct.Struct(">BI32s").pack_into
_size_at = struct.Struct(">I").unpack_from
_pack_header = struct.Struct(">BI").pack

Run = tuple[bytes, int, int, int, int]
"""Frames in a row for one destination: its key, start, stop, frames, frames of path discovery."""


def rewrite_run(buffer: bytearray, start: int, end: int, source: bytes) -> Run:
    """Turn the SendPacket frames at ``start`` that have one destination into RecvPacket frames.

    The caller has seen that there is room for a head and that it begins with SendPacket. The run is
    empty when the first frame is incomplete. Raises ProtocolError when its length is impossible.

    One unpacking and one packing per frame is the least that Python can do: slices, or comparing
    with the head before, cost twice as much for a lonely packet and win little in a row.
    """
    at = start
    count = disco = 0
    destination = b""
    while True:
        left = end - at
        if left >= LONG_HEAD_BYTES:
            kind, size, key, magic = long_head_at(buffer, at)
        elif left >= HEAD_BYTES:
            kind, size, key = _head_at(buffer, at)
            magic = b""
        else:
            break
        if kind != _SEND or (count and key != destination):
            break
        destination = key
        if not KEY_BYTES <= size <= MAX_SEND_BYTES:
            if count:
                break  # what came before it is good; the next look meets the bad one first
            raise ProtocolError(f"derp: SendPacket of {size} bytes")
        total = HEADER_BYTES + size
        if total > left:
            break
        turn_at(buffer, at, _RECV, size, source)
        if magic == DISCO_MAGIC and size >= KEY_BYTES + MIN_DISCO_BYTES:
            disco += 1
        count += 1
        at += total
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
