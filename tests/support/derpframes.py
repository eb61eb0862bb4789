"""DERP frames that the relay never makes or reads as values, for clients and checks in tests.

The relay turns packets around in place (``relay.scan``) and obeys small frames by their layout; the
official clients read and write what is spelled out here. Beside ``wire.derp``, whose layouts these
are. Source: tailscale v1.104.5 derp/derp.go, derp/derp_client.go, derp/derpserver/derpserver.go.
"""

from __future__ import annotations

import struct

from appliance.wire.derp import (
    DISCO_MAGIC,
    MAX_FORWARD_BYTES,
    MAX_FRAME_BYTES,
    MAX_PACKET_BYTES,
    MAX_SEND_BYTES,
    MIN_DISCO_BYTES,
    FrameType,
    encode_frame,
)
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import KEY_BYTES

_U32_PAIR = struct.Struct(">II")


def looks_disco(data: bytes | bytearray | memoryview) -> bool:
    """Tell whether a packet is of path discovery, by its magic and least length.

    Source: disco/disco.go LooksLikeDiscoWrapper.
    """
    return len(data) >= MIN_DISCO_BYTES and data[: len(DISCO_MAGIC)] == DISCO_MAGIC


def encode_send_packet(destination: bytes, data: bytes) -> bytes:
    """Encode SendPacket, client to relay: destination key (32), data. Raises ProtocolError.

    Source: derp_client.go send.
    """
    return encode_frame(FrameType.SEND_PACKET, destination + _bounded(data))


def decode_send_packet(payload: bytes) -> tuple[bytes, bytes]:
    """Give destination key and data. Raises ProtocolError. Source: derpserver.go recvPacket."""
    _sized("SendPacket", payload, KEY_BYTES, MAX_SEND_BYTES)
    return payload[:KEY_BYTES], payload[KEY_BYTES:]


def encode_recv_packet(source: bytes, data: bytes) -> bytes:
    """Encode RecvPacket, relay to client: source key (32), data. Raises ProtocolError.

    Has the same length as the SendPacket that it came in as: type and key are all that differs.
    Source: derpserver.go sendPacket, protocol version 2.
    """
    return encode_frame(FrameType.RECV_PACKET, source + _bounded(data))


def decode_recv_packet(payload: bytes) -> tuple[bytes, bytes]:
    """Give source key and data. Raises ProtocolError. Source: derp_client.go recvTimeout."""
    _sized("RecvPacket", payload, KEY_BYTES, MAX_SEND_BYTES)
    return payload[:KEY_BYTES], payload[KEY_BYTES:]


def encode_forward_packet(source: bytes, destination: bytes, data: bytes) -> bytes:
    """Encode ForwardPacket, between relays: source key (32), destination key (32), data.

    Raises ProtocolError. Source: derp_client.go ForwardPacket.
    """
    return encode_frame(FrameType.FORWARD_PACKET, source + destination + _bounded(data))


def decode_forward_packet(payload: bytes) -> tuple[bytes, bytes, bytes]:
    """Give source key, destination key and data. Raises ProtocolError.

    Source: derpserver.go recvForwardPacket.
    """
    _sized("ForwardPacket", payload, 2 * KEY_BYTES, MAX_FORWARD_BYTES)
    return payload[:KEY_BYTES], payload[KEY_BYTES : 2 * KEY_BYTES], payload[2 * KEY_BYTES :]


def _bounded(data: bytes) -> bytes:
    if len(data) > MAX_PACKET_BYTES:
        raise ProtocolError(f"derp: a packet of {len(data)} bytes, at most {MAX_PACKET_BYTES}")
    return data


def encode_close_peer(key: bytes) -> bytes:
    """Encode ClosePeer: key (32). Source: derp_client.go ClosePeer."""
    return encode_frame(FrameType.CLOSE_PEER, key)


def decode_close_peer(payload: bytes) -> bytes:
    """Give the key. Raises ProtocolError. Source: derpserver.go handleFrameClosePeer."""
    _sized("ClosePeer", payload, KEY_BYTES, KEY_BYTES)
    return payload


def encode_note_preferred(*, preferred: bool) -> bytes:
    """Encode NotePreferred: 1 or 0 (1 byte). Source: derp_client.go NotePreferred."""
    return encode_frame(FrameType.NOTE_PREFERRED, b"\1" if preferred else b"\0")


def decode_note_preferred(payload: bytes) -> bool:
    """Tell whether the relay is the client's home. Raises ProtocolError.

    Source: derpserver.go handleFrameNotePreferred.
    """
    _sized("NotePreferred", payload, 1, 1)
    return payload[0] != 0


def encode_health(problem: str) -> bytes:
    """Encode Health: text, empty when all is well again. Source: derp/derp.go FrameHealth."""
    return encode_frame(FrameType.HEALTH, problem.encode())


def decode_health(payload: bytes) -> str:
    """Give the problem's text. Source: derp_client.go recvTimeout."""
    return payload.decode("utf-8", "replace")


def encode_restarting(reconnect_in_ms: int, try_for_ms: int) -> bytes:
    """Encode Restarting: two big-endian u32 in ms. Source: derp/derp.go FrameRestarting."""
    return encode_frame(FrameType.RESTARTING, _U32_PAIR.pack(reconnect_in_ms, try_for_ms))


def decode_restarting(payload: bytes) -> tuple[int, int]:
    """Give when to reconnect and how long to try, in ms. Raises ProtocolError."""
    _sized("Restarting", payload, _U32_PAIR.size, MAX_FRAME_BYTES)
    reconnect_in_ms, try_for_ms = _U32_PAIR.unpack_from(payload)
    return reconnect_in_ms, try_for_ms


def _sized(name: str, payload: bytes, least: int, most: int) -> None:
    if not least <= len(payload) <= most:
        raise ProtocolError(f"derp: {name} of {len(payload)} bytes, want {least} to {most}")
