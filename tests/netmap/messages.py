"""Bytes of the encoder back to messages."""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence

import zstandard

from appliance.wire import tailcfg


def read_messages(parts: Sequence[bytes], *, zstd: bool) -> list[tailcfg.MapResponse]:
    """Take parts for what a client reads: messages with a length in front, of one frame or many."""
    data = b"".join(parts)
    messages = []
    while data:
        (size,) = struct.unpack_from("<I", data)
        body, data = data[4 : 4 + size], data[4 + size :]
        assert len(body) == size > 0
        messages.append(tailcfg.decode_map_response(unpack(body) if zstd else body))
    return messages


def unpack(body: bytes) -> bytes:
    """Decode all frames, as the client does; each must be whole."""
    decompressor = zstandard.ZstdDecompressor()
    reader = decompressor.stream_reader(io.BytesIO(body), read_across_frames=True)
    return reader.read()
