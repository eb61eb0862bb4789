"""The node's side of the Noise handshake and of what the server says first, for clients in tests.

Beside ``wire.controlbase``, which is the server's side.
Source: tailscale control/controlbase/handshake.go, control/ts2021/conn.go.
"""

from __future__ import annotations

from collections.abc import Callable

from appliance.wire import noise, tailcfg
from appliance.wire.controlbase import (
    EARLY_PAYLOAD_HEADER_BYTES,
    EARLY_PAYLOAD_MAGIC,
    HEADER_BYTES,
    MAX_EARLY_PAYLOAD_BYTES,
    MAX_ERROR_CHARS,
    RESPONSE_BYTES,
    TYPE_ERROR,
    TYPE_INITIATION,
    TYPE_RESPONSE,
    Session,
    prologue,
)
from appliance.wire.errors import ProtocolError
from appliance.wire.keys import MachineKey, PrivateKey


class ClientHandshake:
    """The node's side, for our own clients: send ``initiation``, feed until a Session comes."""

    __slots__ = ("_initiator", "_partial", "initiation")

    def __init__(
        self,
        machine: PrivateKey,
        server: MachineKey,
        version: int,
        random_bytes: Callable[[int], bytes],
    ) -> None:
        self._partial = b""
        self._initiator = noise.Initiator(
            machine, server.raw, prologue(version), PrivateKey.generate(random_bytes)
        )
        self.initiation = (
            version.to_bytes(2, "big")
            + bytes([TYPE_INITIATION])
            + noise.INITIATION_BYTES.to_bytes(2, "big")
            + self._initiator.initiation
        )

    def feed(self, data: bytes) -> tuple[Session, bytes] | None:
        """Take bytes; give None until the response is whole, then the link and what follows it.

        Raises ProtocolError for an error frame (with its text) and for a wrong response.
        """
        self._partial += data
        if len(self._partial) < HEADER_BYTES:
            return None
        kind = self._partial[0]
        length = int.from_bytes(self._partial[1:HEADER_BYTES], "big")
        body = self._partial[HEADER_BYTES : HEADER_BYTES + length]
        if kind == TYPE_ERROR:
            if len(body) < min(length, MAX_ERROR_CHARS):
                return None
            reason = body[:MAX_ERROR_CHARS].decode("utf-8", "replace")
            raise ProtocolError(f"controlbase: the server says {reason!r}")
        if kind != TYPE_RESPONSE or length != noise.RESPONSE_BYTES:
            raise ProtocolError(f"controlbase: no response but type {kind}, {length} bytes")
        if len(body) < length:
            return None
        return Session(self._initiator.finish(body)), self._partial[RESPONSE_BYTES:]


def split_early_payload(plaintext: bytes) -> tuple[tailcfg.EarlyNoise | None, bytes] | None:
    """Split the first plaintext from a server into early payload and the rest; for clients.

    None while bytes are missing. Raises ProtocolError for an oversized or malformed one.
    """
    if not plaintext.startswith(EARLY_PAYLOAD_MAGIC[: len(plaintext)]):
        return None, plaintext
    if len(plaintext) < EARLY_PAYLOAD_HEADER_BYTES:
        return None
    length = int.from_bytes(plaintext[5:EARLY_PAYLOAD_HEADER_BYTES], "big")
    if length > MAX_EARLY_PAYLOAD_BYTES:
        raise ProtocolError(f"controlbase: early payload of {length} bytes")
    end = EARLY_PAYLOAD_HEADER_BYTES + length
    if len(plaintext) < end:
        return None
    early = tailcfg.decode_early_noise(plaintext[EARLY_PAYLOAD_HEADER_BYTES:end])
    return early, plaintext[end:]
