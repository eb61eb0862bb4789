"""DERP: the frames between relay and client, and the boxes of the login.

Bytes to values and back, of the frames that a relay and the mesh make or read; packets are turned
around in place (``relay.scan``). Not the duties that follow from a frame (``relay`` has
them) and not the HTTP upgrade in front. The relay's hot path rewrites packet frames in place by
the layout that is documented here. Sits beside the other codecs in ``wire``.

A frame is: type (1 byte), payload length (4 bytes, big-endian, without these five), payload.
Source: tailscale v1.104.5 derp/derp.go, derp/derp_client.go, derp/derpserver/derpserver.go.
"""

from __future__ import annotations

import struct
from collections.abc import Callable
from dataclasses import dataclass
from enum import IntEnum, IntFlag
from ipaddress import IPv4Address, IPv6Address
from typing import TypeVar

import msgspec
import nacl.exceptions
from nacl import bindings as sodium

from appliance.wire.errors import ProtocolError
from appliance.wire.keys import KEY_BYTES, MeshKey, NodeKey, PrivateKey

# -- of the protocol --

MAGIC = b"DERP\xf0\x9f\x94\x91"
VERSION = 2
HEADER_BYTES = 5
NONCE_BYTES = 24
BOX_TAG_BYTES = 16
PING_BYTES = 8
MAX_PING_BYTES = 1000
MAX_PACKET_BYTES = 64 * 1024
MAX_SEND_BYTES = KEY_BYTES + MAX_PACKET_BYTES
MAX_FORWARD_BYTES = 2 * KEY_BYTES + MAX_PACKET_BYTES
MAX_SERVER_KEY_BYTES = 1024
MAX_APP_NAME_BYTES = 32

DISCO_MAGIC = b"TS\xf0\x9f\x92\xac"
MIN_DISCO_BYTES = 62
"""Magic, sender's disco key and nonce: what the official relay takes for a disco packet."""

# -- our own limits --

MAX_CLIENT_INFO_BYTES = 16 * 1024
"""The official relay takes 256 KiB; a stock client sends about 200 bytes, and this one is read
before we know who is there."""

MAX_FRAME_BYTES = 1024 * 1024
"""Any frame that a reader of ours accepts; stock clients have the same bound."""

_HEADER = struct.Struct(">BI")
_U16 = struct.Struct(">H")


class FrameType(IntEnum):
    """The kinds of frame. C is the client, S the relay, M a client that presented the mesh key."""

    SERVER_KEY = 0x01  # S: magic, relay's public key
    CLIENT_INFO = 0x02  # C: client's public key, nonce, box of ClientInfo
    SERVER_INFO = 0x03  # S: nonce, box of ServerInfo
    SEND_PACKET = 0x04  # C: destination, data
    RECV_PACKET = 0x05  # S: source, data
    KEEP_ALIVE = 0x06  # S: nothing
    NOTE_PREFERRED = 0x07  # C: 1 if this relay is the client's home, else 0
    PEER_GONE = 0x08  # S: key, reason
    PEER_PRESENT = 0x09  # S to M: key, address, port, flags, application name
    FORWARD_PACKET = 0x0A  # M: source, destination, data
    WATCH_CONNS = 0x10  # M: nothing
    CLOSE_PEER = 0x11  # M: key
    PING = 0x12  # both: 8 bytes to echo
    PONG = 0x13  # both: the 8 bytes of the ping
    HEALTH = 0x14  # S: text, empty when healthy again
    RESTARTING = 0x15  # S: reconnect in, try for (ms)


class GoneReason(IntEnum):
    """Why a peer cannot be reached. Other values are tolerated from the wire as plain numbers."""

    DISCONNECTED = 0x00
    NOT_HERE = 0x01


class PresentFlag(IntFlag):
    """What sort of connection a PeerPresent tells about; REGULAR stands alone."""

    REGULAR = 1
    MESH_PEER = 2
    PROBER = 4
    NOT_IDEAL = 8


@dataclass(frozen=True, slots=True)
class Frame:
    """One frame; ``kind`` may be a type that nobody knows."""

    kind: int
    payload: bytes


def encode_frame(kind: int, payload: bytes | memoryview = b"") -> bytes:
    """Encode any frame: type, big-endian length, payload."""
    return b"".join((_HEADER.pack(kind, len(payload)), payload))


class FrameReader:
    """Cuts a byte stream into frames; for clients (the relay itself works in place).

    Keeps at most one unfinished frame. After a ProtocolError it is not to be fed again.
    """

    __slots__ = ("_buffer", "_max_bytes")

    def __init__(self, max_bytes: int = MAX_FRAME_BYTES) -> None:
        self._buffer = bytearray()
        self._max_bytes = max_bytes

    @property
    def unfinished(self) -> int:
        """How many bytes of an incomplete frame are kept."""
        return len(self._buffer)

    def feed(self, data: bytes | memoryview) -> list[Frame]:
        """Take bytes, give the frames that they complete. Raises ProtocolError for a long one."""
        buffer = self._buffer
        buffer += data
        frames: list[Frame] = []
        at = 0
        while len(buffer) - at >= HEADER_BYTES:
            kind, size = _HEADER.unpack_from(buffer, at)
            if size > self._max_bytes:
                raise ProtocolError(f"derp: a frame of {size} bytes, at most {self._max_bytes}")
            end = at + HEADER_BYTES + size
            if len(buffer) < end:
                break
            frames.append(Frame(kind, bytes(buffer[at + HEADER_BYTES : end])))
            at = end
        del buffer[:at]
        return frames


# -- login --


@dataclass(frozen=True, slots=True)
class ClientInfo:
    """What a client says about itself; ``mesh_key`` makes it a trusted relay of the region."""

    version: int = VERSION
    mesh_key: MeshKey | None = None
    can_ack_pings: bool = False
    is_prober: bool = False
    app_name: str = ""


@dataclass(frozen=True, slots=True)
class ServerInfo:
    """What a relay says after the login; a rate makes the Go client drop what is over it.

    A burst below 65,573 would make large packets undeliverable for good.
    """

    version: int = VERSION
    bytes_per_second: int = 0
    bytes_burst: int = 0


class _ClientInfoJson(msgspec.Struct, omit_defaults=True):
    meshKey: str | None = None  # noqa: N815  # the protocol's own spelling
    version: int = 0
    CanAckPings: bool = False
    IsProber: bool = False
    AppName: str = ""


class _ServerInfoJson(msgspec.Struct, omit_defaults=True):
    version: int = 0
    TokenBucketBytesPerSecond: int = 0
    TokenBucketBytesBurst: int = 0


_Json = TypeVar("_Json")

_decode_client_json = msgspec.json.Decoder(_ClientInfoJson).decode
_decode_server_json = msgspec.json.Decoder(_ServerInfoJson).decode
_encode_json = msgspec.json.encode


class LoginBox:
    """The boxes between one private and one public key (curve25519, xsalsa20, poly1305).

    A box is: nonce (24 bytes), tag (16), ciphertext. The exchange of keys, which is the dear part
    of a login, is done once for both directions. Raises ProtocolError for a key of low order.
    """

    __slots__ = ("_shared",)

    def __init__(self, private: PrivateKey, public_raw: bytes) -> None:
        try:
            self._shared = sodium.crypto_box_beforenm(public_raw, private.reveal())
        except (nacl.exceptions.CryptoError, RuntimeError) as error:
            raise ProtocolError("derp: the peer's key is of low order") from error

    def seal(self, message: bytes, nonce: bytes) -> bytes:
        """Seal; the nonce must be 24 fresh random bytes."""
        return nonce + sodium.crypto_box_afternm(message, nonce, self._shared)

    def open(self, box: bytes) -> bytes:
        """Open. Raises ProtocolError when it was not sealed for us by the owner of the key."""
        if len(box) < NONCE_BYTES + BOX_TAG_BYTES:
            raise ProtocolError("derp: a box without room for nonce and tag")
        try:
            return sodium.crypto_box_open_afternm(
                box[NONCE_BYTES:], box[:NONCE_BYTES], self._shared
            )
        except nacl.exceptions.CryptoError as error:
            raise ProtocolError("derp: a box that does not open") from error


def encode_server_key(server_raw: bytes) -> bytes:
    """Encode ServerKey, the first frame of a relay: magic (8), public key (32).

    Source: derpserver.go sendServerKey.
    """
    return encode_frame(FrameType.SERVER_KEY, MAGIC + server_raw)


def decode_server_key(payload: bytes) -> bytes:
    """Give the relay's public key; more bytes may follow it. Raises ProtocolError.

    Source: derp_client.go recvServerKey.
    """
    if not len(MAGIC) + KEY_BYTES <= len(payload) <= MAX_SERVER_KEY_BYTES:
        raise ProtocolError(f"derp: ServerKey of {len(payload)} bytes")
    if not payload.startswith(MAGIC):
        raise ProtocolError("derp: ServerKey without the magic")
    return payload[len(MAGIC) : len(MAGIC) + KEY_BYTES]


def encode_client_info(client_raw: bytes, box: LoginBox, info: ClientInfo, nonce: bytes) -> bytes:
    """Encode ClientInfo: client's public key (32), box of the JSON.

    The mesh key is left out when there is none: an empty one is refused by official relays.
    Source: derp_client.go sendClientKey.
    """
    text = _encode_json(
        {
            **({"meshKey": info.mesh_key.reveal_text()} if info.mesh_key else {}),
            "version": info.version,
            "CanAckPings": info.can_ack_pings,
            **({"IsProber": True} if info.is_prober else {}),
            **({"AppName": info.app_name} if info.app_name else {}),
        }
    )
    return encode_frame(FrameType.CLIENT_INFO, client_raw + box.seal(text, nonce))


def decode_client_info(payload: bytes, server: PrivateKey) -> tuple[NodeKey, ClientInfo, LoginBox]:
    """Open ClientInfo: who the client proves to be, what it says, and the box to answer with.

    Raises ProtocolError for a box that does not open, JSON of another shape, a mesh key that is
    not 64 hex digits, an application name that is long or not printable ASCII.
    Source: derpserver.go recvClientKey, derp_client.go ValidAppName.
    """
    if not KEY_BYTES + NONCE_BYTES <= len(payload) <= MAX_CLIENT_INFO_BYTES:
        raise ProtocolError(f"derp: ClientInfo of {len(payload)} bytes")
    key = NodeKey(payload[:KEY_BYTES])
    box = LoginBox(server, key.raw)
    said = _from_json(_decode_client_json, box.open(payload[KEY_BYTES:]))
    name = said.AppName
    if len(name) > MAX_APP_NAME_BYTES or not (name.isascii() and name.isprintable()):
        raise ProtocolError("derp: the application name is not short printable ASCII")
    mesh_key = None if said.meshKey is None else MeshKey.parse(said.meshKey)
    info = ClientInfo(said.version, mesh_key, said.CanAckPings, said.IsProber, name)
    return key, info, box


def encode_server_info(box: LoginBox, info: ServerInfo, nonce: bytes) -> bytes:
    """Encode ServerInfo, which must be the first frame after the login: box of the JSON.

    Source: derpserver.go sendServerInfo.
    """
    said = _ServerInfoJson(info.version, info.bytes_per_second, info.bytes_burst)
    return encode_frame(FrameType.SERVER_INFO, box.seal(_encode_json(said), nonce))


def decode_server_info(payload: bytes, box: LoginBox) -> ServerInfo:
    """Open ServerInfo. Raises ProtocolError. Source: derp_client.go parseServerInfo."""
    said = _from_json(_decode_server_json, box.open(payload))
    return ServerInfo(said.version, said.TokenBucketBytesPerSecond, said.TokenBucketBytesBurst)


def _from_json(decode: Callable[[bytes], _Json], text: bytes) -> _Json:
    try:
        return decode(text)
    except (msgspec.MsgspecError, ValueError, RecursionError) as error:
        raise ProtocolError("derp: the JSON of the login has another shape") from error


# -- packets --


# -- presence --


@dataclass(frozen=True, slots=True)
class PeerPresent:
    """A client of the relay; the address is zero (``::``) when it is not known."""

    key: bytes
    address: IPv4Address | IPv6Address
    port: int
    flags: PresentFlag
    app_name: str = ""


_NO_ADDRESS = IPv6Address(0)


def encode_peer_gone(key: bytes, reason: int) -> bytes:
    """Encode PeerGone: key (32), reason (1). Source: derpserver.go sendPeerGone."""
    return encode_frame(FrameType.PEER_GONE, key + bytes((reason,)))


def decode_peer_gone(payload: bytes) -> tuple[bytes, int]:
    """Give key and reason (DISCONNECTED when an old relay leaves it out). Raises ProtocolError.

    Source: derp_client.go recvTimeout.
    """
    _sized("PeerGone", payload, KEY_BYTES, MAX_FRAME_BYTES)
    reason = payload[KEY_BYTES] if len(payload) > KEY_BYTES else GoneReason.DISCONNECTED
    return payload[:KEY_BYTES], int(reason)


def encode_peer_present(peer: PeerPresent) -> bytes:
    """Encode PeerPresent: key (32), address (16, IPv4 mapped), port (2, big-endian), flags (1),
    length of the application name (1), the name.

    Source: derpserver.go sendPeerPresent.
    """
    address = peer.address
    packed = b"\0" * 10 + b"\xff\xff" + address.packed if address.version == 4 else address.packed
    name = peer.app_name.encode()[:MAX_APP_NAME_BYTES]
    tail = bytes((peer.flags, len(name))) + name
    payload = b"".join((peer.key, packed, _U16.pack(peer.port), tail))
    return encode_frame(FrameType.PEER_PRESENT, payload)


def decode_peer_present(payload: bytes) -> PeerPresent:
    """Read a PeerPresent of any age: only the key (32 bytes), with address (50), with flags (51),
    with a name (52 or more). Raises ProtocolError.

    Source: derp/derp.go FramePeerPresent, derp_client.go recvTimeout.
    """
    _sized("PeerPresent", payload, KEY_BYTES, MAX_FRAME_BYTES)
    key, rest = payload[:KEY_BYTES], payload[KEY_BYTES:]
    if len(rest) < 18:
        return PeerPresent(key, _NO_ADDRESS, 0, PresentFlag(0))
    whole = IPv6Address(rest[:16])
    (port,) = _U16.unpack_from(rest, 16)
    flags = PresentFlag(rest[18] & 0x0F) if len(rest) > 18 else PresentFlag(0)
    name = rest[20 : 20 + rest[19]] if len(rest) > 19 else b""
    text = name.decode("ascii", "replace")[:MAX_APP_NAME_BYTES]
    return PeerPresent(key, whole.ipv4_mapped or whole, port, flags, text)


def encode_watch_conns() -> bytes:
    """Encode WatchConns: no payload. Source: derp_client.go WatchConnectionChanges."""
    return encode_frame(FrameType.WATCH_CONNS)


# -- small frames --


def encode_ping(data: bytes) -> bytes:
    """Encode Ping: 8 bytes. Source: derp_client.go SendPing."""
    return encode_frame(FrameType.PING, data)


def encode_pong(data: bytes) -> bytes:
    """Encode Pong: the 8 bytes of the ping. Source: derpserver.go sendPong."""
    return encode_frame(FrameType.PONG, data)


def decode_ping(payload: bytes) -> bytes:
    """Give the 8 bytes of a ping or pong; more may follow, up to 1000. Raises ProtocolError.

    Source: derpserver.go handleFramePing.
    """
    _sized("Ping", payload, PING_BYTES, MAX_PING_BYTES)
    return payload[:PING_BYTES]


def _sized(name: str, payload: bytes, least: int, most: int) -> None:
    if not least <= len(payload) <= most:
        raise ProtocolError(f"derp: {name} of {len(payload)} bytes, want {least} to {most}")
