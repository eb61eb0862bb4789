"""ts2021: the frames around Noise on the connection between a node and control.

Not for the HTTP upgrade before it, nor for HTTP/2 inside it (``control.ts2021``). Sans-IO: feed
bytes, get plaintext, get bytes to send. Sits on ``noise``.

Initiation, client to server, 101 bytes (in the header ``X-Tailscale-Handshake``):
u16 version, u8 type 1, u16 length 96, Noise initiation. Response, 51 bytes: u8 type 2,
u16 length 48, Noise response. Then in both directions: u8 type 4, u16 length, ciphertext and tag;
a frame has at most 4096 bytes. Instead of the response: u8 type 3, u16 length, error as UTF-8.
All numbers are big-endian.
Source: tailscale control/controlbase/{handshake,conn,messages}.go, control/ts2021/conn.go.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from appliance.wire import noise, tailcfg
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import ChallengeKey, MachineKey, PrivateKey

if TYPE_CHECKING:
    from collections.abc import Callable

# The protocol's numbers.
TYPE_INITIATION = 1
TYPE_RESPONSE = 2
TYPE_ERROR = 3
TYPE_RECORD = 4
HEADER_BYTES = 3
INITIATION_HEADER_BYTES = 5
INITIATION_BYTES = INITIATION_HEADER_BYTES + noise.INITIATION_BYTES
RESPONSE_BYTES = HEADER_BYTES + noise.RESPONSE_BYTES
MAX_FRAME_BYTES = 4096
MAX_CIPHERTEXT_BYTES = MAX_FRAME_BYTES - HEADER_BYTES
MAX_PLAINTEXT_BYTES = MAX_CIPHERTEXT_BYTES - noise.TAG_BYTES
EARLY_PAYLOAD_MAGIC = b"\xff\xff\xffTS"
EARLY_PAYLOAD_HEADER_BYTES = 9

# Our own limits.
RECORDS_PER_PART = 16
"""64 KiB: a join of 256 KiB halves the throughput (memory is fetched anew each time)."""
MAX_EARLY_PAYLOAD_BYTES = 1024
"""What the strictest client reads; ours has 95 bytes."""
MAX_ERROR_CHARS = 200
"""What we repeat of a stranger's error text."""

_FULL_HEADER = bytes([TYPE_RECORD]) + MAX_CIPHERTEXT_BYTES.to_bytes(2, "big")


class HandshakeError(ProtocolError):
    """The initiation is no good. ``answer`` is what to send before closing, perhaps nothing."""

    def __init__(self, reason: str, answer: bytes = b"") -> None:
        super().__init__(reason)
        self.answer = answer


class Session:
    """An open connection. After a ProtocolError it is unusable in both directions."""

    __slots__ = ("_broken", "_partial", "_receive", "_send", "handshake_hash")

    def __init__(self, finished: noise.Finished) -> None:
        self._send = finished.send
        self._receive = finished.receive
        self._partial = bytearray()  # less than one frame
        self._broken = False
        self.handshake_hash = finished.handshake_hash

    def feed(self, data: bytes | bytearray | memoryview) -> bytes:
        """Take bytes from the wire, give the plaintext of all records that are now complete.

        Raises ProtocolError for a frame of another type, an oversized, forged or repeated one.
        """
        self._check()
        partial = self._partial
        if partial:
            partial += data
            data = bytes(partial)
            partial.clear()
        view = memoryview(data)
        plaintexts = []
        start, end = 0, len(view)
        try:
            while end - start >= HEADER_BYTES:
                length = view[start + 1] << 8 | view[start + 2]
                if view[start] != TYPE_RECORD or length > MAX_CIPHERTEXT_BYTES:
                    raise _bad_frame(view[start:])
                after = start + HEADER_BYTES + length
                if after > end:
                    break
                plaintexts.append(self._receive.open(view[start + HEADER_BYTES : after]))
                start = after
        except ProtocolError:
            self._broken = True
            raise
        if start < end:
            partial += view[start:]
        return plaintexts[0] if len(plaintexts) == 1 else b"".join(plaintexts)

    def seal(self, data: bytes | bytearray | memoryview) -> bytes:
        """Give the records of some plaintext, for short ones; nothing for nothing."""
        parts = self.seal_parts(data)
        return parts[0] if len(parts) == 1 else b"".join(parts)

    def seal_parts(self, data: bytes | bytearray | memoryview) -> list[bytes]:
        """Give the records of some plaintext in parts of at most 64 KiB, to be sent in order.

        Raises ProtocolError when the connection is broken or its message numbers are used up.
        """
        self._check()
        seal = self._send.seal
        size = len(data)
        if size <= MAX_PLAINTEXT_BYTES:
            return [_header(size) + seal(bytes(data))] if size else []
        view = memoryview(data)
        parts: list[bytes] = []
        frames: list[bytes] = []
        for start in range(0, size, MAX_PLAINTEXT_BYTES):
            chunk = view[start : start + MAX_PLAINTEXT_BYTES]
            full = len(chunk) == MAX_PLAINTEXT_BYTES
            frames += (_FULL_HEADER if full else _header(len(chunk)), seal(chunk))
            if len(frames) == 2 * RECORDS_PER_PART:
                parts.append(b"".join(frames))
                frames.clear()
        if frames:
            parts.append(b"".join(frames))
        return parts

    @property
    def has_partial_record(self) -> bool:
        """Tell whether bytes of an unfinished record wait: then an end of stream is a cut."""
        return bool(self._partial)

    def _check(self) -> None:
        if self._broken:
            raise ProtocolError("noise: the connection is broken")


def _header(plaintext_bytes: int) -> bytes:
    return bytes([TYPE_RECORD]) + (plaintext_bytes + noise.TAG_BYTES).to_bytes(2, "big")


def _bad_frame(frame: memoryview) -> ProtocolError:
    length = frame[1] << 8 | frame[2]
    if frame[0] != TYPE_RECORD:
        return ProtocolError(f"controlbase: frame of type {frame[0]}")
    return ProtocolError(f"controlbase: frame of {HEADER_BYTES + length} bytes")


def prologue(version: int) -> bytes:
    """Give the text that both sides mix into the handshake, so that neither lies about version."""
    return b"Tailscale Control Protocol v%d" % version


class ServerHandshake:
    """The server's side; one object serves all connections."""

    __slots__ = ("_random_bytes", "_static")

    def __init__(self, static: PrivateKey, random_bytes: Callable[[int], bytes]) -> None:
        self._static = static
        self._random_bytes = random_bytes

    def read(self, initiation: bytes) -> tuple[MachineKey, int, bytes, Session]:
        """Take the 101 bytes: give the machine key, the capability version, the answer, the link.

        Any machine is let in. Raises HandshakeError (a ProtocolError).
        """
        if len(initiation) != INITIATION_BYTES:
            raise _refused("handshake message has the wrong size")
        version = int.from_bytes(initiation[:2], "big")
        if initiation[2] != TYPE_INITIATION:
            raise _refused("handshake message has the wrong type")
        if int.from_bytes(initiation[3:5], "big") != noise.INITIATION_BYTES:
            raise _refused("handshake message has the wrong length")
        ephemeral = PrivateKey.generate(self._random_bytes)
        try:
            machine, response, finished = noise.respond(
                self._static, prologue(version), initiation[INITIATION_HEADER_BYTES:], ephemeral
            )
        except ProtocolError as error:
            raise HandshakeError(str(error)) from error
        return MachineKey(machine), version, _RESPONSE_HEADER + response, Session(finished)


_RESPONSE_HEADER = bytes([TYPE_RESPONSE]) + noise.RESPONSE_BYTES.to_bytes(2, "big")


def _refused(reason: str) -> HandshakeError:
    return HandshakeError(reason, encode_error(reason))


def encode_error(reason: str) -> bytes:
    """Encode an error, which only makes sense instead of the handshake's response."""
    data = reason.encode()[:MAX_CIPHERTEXT_BYTES]
    return bytes([TYPE_ERROR]) + len(data).to_bytes(2, "big") + data


def encode_early_payload(challenge: ChallengeKey) -> bytes:
    """Encode what a server may say first, inside the records and before HTTP/2.

    ``ff ff ff T S``, u32 length, JSON.
    """
    data = tailcfg.encode(tailcfg.EarlyNoise(node_key_challenge=challenge))
    return EARLY_PAYLOAD_MAGIC + len(data).to_bytes(4, "big") + data
