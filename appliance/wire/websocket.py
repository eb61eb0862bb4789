"""WebSocket frames and the opening handshake, as far as a byte stream over WebSocket needs them.

For relay and control clients that cannot speak anything else (browsers). Messages are not put
together: both protocols treat binary messages as one stream of bytes, so every piece is passed on
as it arrives and nothing is collected. No extensions, no text. Sits beside the other codecs.
Source: RFC 6455 sections 4.2, 5, 7.4.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
import struct
from dataclasses import dataclass
from enum import IntEnum

from appliance.wire import http1
from appliance.wire.errors import ProtocolError

# -- of the specification --

ACCEPT_GUID = b"258EAFA5-E914-47DA-95CA-C5AB0DC85B11"
VERSION = "13"
MASK_BYTES = 4
MAX_CONTROL_BYTES = 125
KEY_BYTES = 16

# -- our own limits --

MAX_FRAME_BYTES = 1024 * 1024
"""Stock clients write at most one Noise or relay frame at a time, below 70 KiB."""

MAX_MESSAGE_BYTES = 32 * 1024
"""What we send in one message: the client's library refuses more by default."""

SMALL_BYTES = 16
MAX_SMALL_AT_ONCE = 256
"""Frames with less than SMALL_BYTES, and control frames, in one feed. Each costs some 5 us for 6
bytes on the wire, so a full read of them would hold up everybody for 50 ms. Clients send few."""

_U16 = struct.Struct("!H")
_U64 = struct.Struct("!Q")


class Opcode(IntEnum):
    """The kinds of frame."""

    CONTINUATION = 0
    TEXT = 1
    BINARY = 2
    CLOSE = 8
    PING = 9
    PONG = 10


class CloseCode(IntEnum):
    """Why a connection ends."""

    NORMAL = 1000
    GOING_AWAY = 1001
    PROTOCOL = 1002
    UNSUPPORTED = 1003
    POLICY = 1008
    TOO_BIG = 1009


class WebSocketError(ProtocolError):
    """The peer broke a rule of WebSocket; ``code`` is what the close frame should say."""

    def __init__(self, code: CloseCode, text: str) -> None:
        super().__init__(f"websocket: {text}")
        self.code = code


@dataclass(frozen=True, slots=True)
class Data:
    """A piece of the byte stream."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Ping:
    """To be answered with a pong of the same payload."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Pong:
    """The answer to a ping; also comes unasked."""

    payload: bytes


@dataclass(frozen=True, slots=True)
class Close:
    """The peer ends the connection; ``code`` is None when it gave none."""

    code: int | None


Event = Data | Ping | Pong | Close


def offered_subprotocols(head: http1.Head) -> frozenset[str]:
    """Give what the client offers in ``Sec-WebSocket-Protocol``, in lower case."""
    return head.tokens("sec-websocket-protocol")


def is_handshake(head: http1.Head) -> bool:
    """Tell whether this request asks for WebSocket."""
    return "websocket" in head.tokens("upgrade")


def accept_token(key: str) -> str:
    """Compute ``Sec-WebSocket-Accept`` for the client's ``Sec-WebSocket-Key``."""
    digest = hashlib.sha1(key.encode("latin-1") + ACCEPT_GUID, usedforsecurity=False).digest()
    return base64.b64encode(digest).decode()


def answer_handshake(head: http1.Head, subprotocol: str) -> bytes:
    """Make the 101 answer that opens the connection with this subprotocol.

    Raises WebSocketError when the request is not a proper opening handshake or does not offer the
    subprotocol. Source: RFC 6455 section 4.2.
    """
    if head.method != "GET" or head.minor != 1 or head.has_body:
        raise WebSocketError(CloseCode.PROTOCOL, "the handshake is a GET of HTTP/1.1 without body")
    if not is_handshake(head) or "upgrade" not in head.tokens("connection"):
        raise WebSocketError(CloseCode.PROTOCOL, "the request does not ask for the upgrade")
    if head.get("sec-websocket-version") != VERSION:
        raise WebSocketError(CloseCode.PROTOCOL, f"want version {VERSION}")
    key = head.get("sec-websocket-key") or ""
    try:
        proper = len(base64.b64decode(key, validate=True)) == KEY_BYTES
    except (binascii.Error, ValueError):
        proper = False
    if not proper:
        raise WebSocketError(CloseCode.PROTOCOL, f"the key is not {KEY_BYTES} bytes in base64")
    if subprotocol.lower() not in offered_subprotocols(head):
        raise WebSocketError(CloseCode.POLICY, f"the subprotocol {subprotocol} is not offered")
    headers = {
        "Upgrade": "websocket",
        "Connection": "Upgrade",
        "Sec-WebSocket-Accept": accept_token(key),
        "Sec-WebSocket-Protocol": subprotocol,
    }
    return http1.encode_answer(http1.Answer(101, headers=headers), keep_alive=True)


def encode_frame(
    opcode: Opcode, payload: bytes | memoryview, *, mask: bytes | None = None, fin: bool = True
) -> bytes:
    """Encode one frame: FIN and opcode, mask bit and length (7, 16 or 64 bits), mask, payload.

    Servers send without ``mask``, clients with four random bytes. Source: RFC 6455 section 5.2.
    """
    size = len(payload)
    first = (0x80 if fin else 0) | opcode
    flag = 0x80 if mask else 0
    if size <= MAX_CONTROL_BYTES:
        head = bytes((first, flag | size))
    elif size <= 0xFFFF:
        head = bytes((first, flag | 126)) + _U16.pack(size)
    else:
        head = bytes((first, flag | 127)) + _U64.pack(size)
    if mask is None:
        return b"".join((head, payload))
    return b"".join((head, mask, apply_mask(payload, mask)))


def encode_stream(data: bytes | memoryview) -> bytes:
    """Encode a piece of the byte stream as binary messages of bounded size, without mask."""
    if len(data) <= MAX_MESSAGE_BYTES:
        return encode_frame(Opcode.BINARY, data)
    view = memoryview(data)
    return b"".join(
        encode_frame(Opcode.BINARY, view[at : at + MAX_MESSAGE_BYTES])
        for at in range(0, len(view), MAX_MESSAGE_BYTES)
    )


def encode_close(code: CloseCode) -> bytes:
    """Encode a close frame without a reason text, without mask."""
    return encode_frame(Opcode.CLOSE, _U16.pack(code))


def apply_mask(payload: bytes | memoryview, mask: bytes, phase: int = 0) -> bytes:
    """Mask or unmask: exclusive-or with the four bytes, beginning ``phase`` bytes into them."""
    size = len(payload)
    if not size:
        return b""
    turned = mask[phase & 3 :] + mask[: phase & 3]
    stream = (turned * (size // MASK_BYTES + 1))[:size]
    mixed = int.from_bytes(payload, "little") ^ int.from_bytes(stream, "little")
    return mixed.to_bytes(size, "little")


class FrameReader:
    """Turns received bytes into events, for a server (``masked``) or a client.

    Keeps only an unfinished head or control frame. After a WebSocketError or a Close it is not to
    be fed again.
    """

    __slots__ = ("_buffer", "_in_message", "_left", "_mask", "_masked", "_phase")

    def __init__(self, *, masked: bool) -> None:
        self._masked = masked
        self._buffer = b""
        self._in_message = False
        self._left = 0  # bytes of the current data frame that are still to come
        self._mask = b""
        self._phase = 0

    def feed(self, data: bytes | memoryview) -> list[Event]:
        """Take bytes and give what they complete. Raises WebSocketError."""
        view = memoryview(self._buffer + data if self._buffer else data)
        self._buffer = b""
        events: list[Event] = []
        at = small = 0
        while at < len(view):
            if self._left:
                piece = view[at : at + self._left]
                events.append(Data(self._unmask(piece)))
                self._left -= len(piece)
                at += len(piece)
                continue
            head = self._head(view, at)
            if head is None:
                self._buffer = bytes(view[at:])
                break
            opcode, fin, size, at_payload = head
            small += opcode >= Opcode.CLOSE or size < SMALL_BYTES
            if small > MAX_SMALL_AT_ONCE:
                raise WebSocketError(CloseCode.POLICY, "a flood of small frames")
            if opcode < Opcode.CLOSE:
                self._in_message = not fin
                self._left = size
                at = at_payload
                continue
            if len(view) - at_payload < size:
                self._buffer = bytes(view[at:])
                break
            at = at_payload + size
            payload = self._unmask(view[at_payload:at])
            events.append(_control(opcode, payload))
            if opcode == Opcode.CLOSE:
                break
        return events

    def _head(self, view: memoryview, at: int) -> tuple[Opcode, bool, int, int] | None:
        """Read a frame's head: opcode, FIN, payload size and where the payload begins."""
        if len(view) - at < 2:
            return None
        first, second = view[at], view[at + 1]
        opcode = self._check(first, second)
        size = second & 0x7F
        at += 2
        if size >= 126:
            form = _U16 if size == 126 else _U64
            if len(view) - at < form.size:
                return None
            (size,) = form.unpack_from(view, at)
            if size <= (MAX_CONTROL_BYTES if form is _U16 else 0xFFFF):
                raise WebSocketError(CloseCode.PROTOCOL, "a length is not in its shortest form")
            at += form.size
        if size > MAX_FRAME_BYTES:
            raise WebSocketError(CloseCode.TOO_BIG, f"a frame of {size} bytes")
        if self._masked:
            if len(view) - at < MASK_BYTES:
                return None
            self._mask = bytes(view[at : at + MASK_BYTES])
            self._phase = 0
            at += MASK_BYTES
        return opcode, bool(first & 0x80), size, at

    def _check(self, first: int, second: int) -> Opcode:
        if first & 0x70:
            raise WebSocketError(CloseCode.PROTOCOL, "a reserved bit is set")
        if bool(second & 0x80) is not self._masked:
            raise WebSocketError(CloseCode.PROTOCOL, "the mask bit is wrong for this side")
        try:
            opcode = Opcode(first & 0x0F)
        except ValueError:
            raise WebSocketError(CloseCode.PROTOCOL, "unknown opcode") from None
        if opcode == Opcode.TEXT:
            raise WebSocketError(CloseCode.UNSUPPORTED, "text where bytes are spoken")
        if opcode >= Opcode.CLOSE:
            if not first & 0x80 or second & 0x7F > MAX_CONTROL_BYTES:
                raise WebSocketError(CloseCode.PROTOCOL, "a control frame is long or in pieces")
        elif (opcode == Opcode.CONTINUATION) is not self._in_message:
            raise WebSocketError(CloseCode.PROTOCOL, "a message begins or goes on out of turn")
        return opcode

    def _unmask(self, payload: memoryview) -> bytes:
        if not self._masked:
            return bytes(payload)
        plain = apply_mask(payload, self._mask, self._phase)
        self._phase += len(payload)
        return plain


def _control(opcode: Opcode, payload: bytes) -> Event:
    if opcode == Opcode.PING:
        return Ping(payload)
    if opcode == Opcode.PONG:
        return Pong(payload)
    if len(payload) == 1:
        raise WebSocketError(CloseCode.PROTOCOL, "a close code of one byte")
    return Close(_U16.unpack_from(payload)[0] if payload else None)
