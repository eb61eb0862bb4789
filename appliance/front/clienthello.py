"""The ClientHello as far as it decides which certificate is served: the name, and the protocols offered.

Read before OpenSSL sees it, because Python's ``ssl`` tells of ALPN only when the certificate is sent.
Not for deciding anything (``tlsstream`` does), and not for encrypted hellos, whose inner name nobody
here could read. Pure: bytes in, values out. The half that clients need is in ``tests/support``.
Source: RFC 8446 sections 4.1.2, 5.1; RFC 6066 section 3; RFC 7301 section 3.1.
"""

from __future__ import annotations

from dataclasses import dataclass

from appliance.wire.errors import ProtocolError

# -- our own limits --

MAX_HELLO_BYTES = 16 * 1024
"""A ClientHello before OpenSSL sees it: with post-quantum key shares it has about 2 KB. OpenSSL needs
39 KB from the first byte on, so it gets a hello when that is whole."""

MAX_HELLO_RECORDS = 8
"""TLS records of one hello; clients use one, or two when they hide from middleboxes."""

# -- the wire --

_HEAD_BYTES = 4
"""Type and u24 length of a handshake message."""
_RANDOM_BYTES = 2 + 32
"""Version and random number, which a hello begins with."""
_SERVER_NAME, _ALPN = 0, 16
_HOST_NAME = 0


@dataclass(frozen=True, slots=True)
class ClientHello:
    """What a client asks for before anything is encrypted."""

    server_name: str | None
    """In lower case; None when the client names none."""
    protocols: tuple[bytes, ...]
    """Of ALPN, in the client's order; empty when it offers none."""


def gather(data: memoryview) -> bytes | None:
    """Take the first handshake message out of its records; None while it is incomplete.

    Layout: records of type 22, version 3.x, u16 length; in them a handshake message of type 1, u24
    length. What is no hello gives nothing, and need not be waited for: OpenSSL refuses it, with the
    alert that fits. Raises ProtocolError if it is longer than MAX_HELLO_BYTES or in too many records.
    """
    message = b""
    at = 0
    for _ in range(MAX_HELLO_RECORDS):
        record = bytes(data[at : at + 5])
        if not b"\x16\x03".startswith(record[:2]):
            return b""
        size = int.from_bytes(record[3:5], "big") if len(record) == 5 else 0
        message += data[at + 5 : at + 5 + size]
        at += 5 + size
        if message and message[0] != 1:
            return b""
        if len(message) >= _HEAD_BYTES:
            due = _HEAD_BYTES + int.from_bytes(message[1:4], "big")
            if due > MAX_HELLO_BYTES:
                raise ProtocolError(f"TLS hello: {due} bytes")
            if len(message) >= due:
                return message[:due]
        if len(record) < 5 or at > len(data):
            return None
    raise ProtocolError("TLS hello: in too many records")


def decode_hello(message: bytes) -> ClientHello:
    """Read a gathered hello. Raises ProtocolError for what is none."""
    body = _Reader(message)
    if body.take(_HEAD_BYTES)[:1] != b"\x01":
        raise ProtocolError("TLS hello: another message")
    body.take(_RANDOM_BYTES)
    body.block(1)  # session id
    body.block(2)  # cipher suites
    body.block(1)  # compression methods
    name: str | None = None
    protocols: tuple[bytes, ...] = ()
    extensions = _Reader(body.block(2) if body.is_left else b"")
    while extensions.is_left:
        kind, content = extensions.number(2), _Reader(extensions.block(2))
        if kind == _SERVER_NAME:
            name = _decode_name(content)
        elif kind == _ALPN:
            protocols = _decode_protocols(content)
    return ClientHello(name, protocols)


def _decode_name(content: _Reader) -> str | None:
    names = _Reader(content.block(2))
    while names.is_left:
        kind, name = names.number(1), names.block(2)
        if kind == _HOST_NAME:
            return name.decode("ascii", "replace").lower()
    return None


def _decode_protocols(content: _Reader) -> tuple[bytes, ...]:
    found: list[bytes] = []
    names = _Reader(content.block(2))
    while names.is_left:
        found.append(names.block(1))
    return tuple(found)


class _Reader:
    """Takes values from the front of some bytes. Raises ProtocolError when there are too few."""

    __slots__ = ("_at", "_data")

    def __init__(self, data: bytes) -> None:
        self._data = data
        self._at = 0

    @property
    def is_left(self) -> bool:
        return self._at < len(self._data)

    def take(self, size: int) -> bytes:
        end = self._at + size
        if end > len(self._data):
            raise ProtocolError("TLS hello: it ends too early")
        found = self._data[self._at : end]
        self._at = end
        return found

    def number(self, size: int) -> int:
        return int.from_bytes(self.take(size), "big")

    def block(self, size: int) -> bytes:
        """Take what a length of so many bytes stands before."""
        return self.take(self.number(size))
