"""Noise IK: two messages that agree on keys, then sealed messages in both directions.

Not for framing (``controlbase``) nor for keeping keys (``keys``). Sits on ``keys``.
Pattern ``Noise_IK_25519_ChaChaPoly_BLAKE2s`` with empty payloads; after the handshake the nonce
is the message number as 12 bytes **big-endian** (the Noise specification says little-endian).
Source: noiseprotocol.org revision 34 (5, 7.5, 11); tailscale control/controlbase/handshake.go,
conn.go.
"""

from __future__ import annotations

from functools import lru_cache
from hashlib import blake2s

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import ChaCha20Poly1305

from appliance.wire.errors import ProtocolError
from appliance.wire.keys import KEY_BYTES, PrivateKey

PROTOCOL_NAME = b"Noise_IK_25519_ChaChaPoly_BLAKE2s"
TAG_BYTES = 16
INITIATION_BYTES = KEY_BYTES + KEY_BYTES + TAG_BYTES + TAG_BYTES
RESPONSE_BYTES = KEY_BYTES + TAG_BYTES
MESSAGE_NUMBER_LIMIT = 2**64 - 1
"""The number that no message may have; there is no re-keying, a link ends there."""

_HANDSHAKE_NONCE = bytes(12)  # each handshake key seals one message
_BLOCK_BYTES = 64
_INNER_PAD = bytes(byte ^ 0x36 for byte in range(256))
_OUTER_PAD = bytes(byte ^ 0x5C for byte in range(256))


class CipherState:
    """One direction after the handshake. Unusable after an error."""

    __slots__ = ("_aead", "_number")

    def __init__(self, key: bytes, number: int = 0) -> None:
        self._aead = ChaCha20Poly1305(key)
        self._number = number

    def seal(self, plaintext: bytes | memoryview) -> bytes:
        """Seal the next message: ciphertext and tag, 16 bytes longer than the plaintext.

        Raises ProtocolError when the message numbers are used up.
        """
        number = self._number
        if number >= MESSAGE_NUMBER_LIMIT:
            raise ProtocolError("noise: message numbers are used up")
        self._number = number + 1
        return self._aead.encrypt(number.to_bytes(12, "big"), plaintext, None)

    def open(self, ciphertext: bytes | memoryview) -> bytes:
        """Open the next message. Raises ProtocolError for a forged, lost or repeated one."""
        number = self._number
        if number >= MESSAGE_NUMBER_LIMIT:
            raise ProtocolError("noise: message numbers are used up")
        try:
            plaintext = self._aead.decrypt(number.to_bytes(12, "big"), ciphertext, None)
        except InvalidTag:
            self._number = MESSAGE_NUMBER_LIMIT
            raise ProtocolError("noise: a message does not open") from None
        self._number = number + 1
        return plaintext


class _Transcript:
    """The hash over all that was said, and the chain of keys."""

    __slots__ = ("chain", "hash")

    def __init__(self, prologue: bytes, responder_static: bytes) -> None:
        self.chain = _NAME_HASH
        self.hash = _first_hash(prologue, responder_static)

    def mix_hash(self, part: bytes) -> None:
        self.hash = blake2s(self.hash + part).digest()

    def mix_key(self, shared: bytes) -> ChaCha20Poly1305:
        self.chain, key = _derive(self.chain, shared)
        return ChaCha20Poly1305(key)

    def seal(self, aead: ChaCha20Poly1305, plaintext: bytes) -> bytes:
        sealed = aead.encrypt(_HANDSHAKE_NONCE, plaintext, self.hash)
        self.mix_hash(sealed)
        return sealed

    def open(self, aead: ChaCha20Poly1305, sealed: bytes) -> bytes:
        try:
            plaintext = aead.decrypt(_HANDSHAKE_NONCE, sealed, self.hash)
        except InvalidTag:
            raise ProtocolError("noise: the handshake does not open") from None
        self.mix_hash(sealed)
        return plaintext

    def split(self) -> tuple[bytes, bytes]:
        """Give the keys initiator to responder, responder to initiator."""
        return _derive(self.chain, b"")


_NAME_HASH = blake2s(PROTOCOL_NAME).digest()  # the name is longer than 32 bytes, so it is hashed


@lru_cache(maxsize=256)  # a server has one key, and meets few dozen versions (prologues)
def _first_hash(prologue: bytes, responder_static: bytes) -> bytes:
    after_prologue = blake2s(_NAME_HASH + prologue).digest()
    return blake2s(after_prologue + responder_static).digest()


def _hmac(key: bytes, message: bytes) -> bytes:
    # RFC 2104 by hand: the keys have 32 bytes, and this takes half the time of the hmac module.
    block = key.ljust(_BLOCK_BYTES, b"\0")
    inner = blake2s(block.translate(_INNER_PAD) + message).digest()
    return blake2s(block.translate(_OUTER_PAD) + inner).digest()


def _derive(chain: bytes, material: bytes) -> tuple[bytes, bytes]:
    secret = _hmac(chain, material)
    first = _hmac(secret, b"\x01")
    return first, _hmac(secret, first + b"\x02")


class Finished:
    """The result of a handshake, from one side's view."""

    __slots__ = ("handshake_hash", "receive", "send")

    def __init__(self, send_key: bytes, receive_key: bytes, handshake_hash: bytes) -> None:
        self.send = CipherState(send_key)
        self.receive = CipherState(receive_key)
        self.handshake_hash = handshake_hash


def respond(
    static: PrivateKey, prologue: bytes, initiation: bytes, ephemeral: PrivateKey
) -> tuple[bytes, bytes, Finished]:
    """Answer an initiation: give the initiator's static key, the response, the ciphers.

    ``ephemeral`` must be fresh. Initiation: 32 bytes ephemeral key, 48 bytes sealed static key,
    16 bytes tag of nothing. Response: 32 bytes ephemeral key, 16 bytes tag of nothing.
    Any initiator is accepted: the result proves only that it holds its static key.
    Raises ProtocolError if the initiation is not for us, is forged, or uses a weak key.
    """
    if len(initiation) != INITIATION_BYTES:
        raise ProtocolError(f"noise: initiation of {len(initiation)} bytes")
    transcript = _Transcript(prologue, static.public_raw)
    their_ephemeral = initiation[:KEY_BYTES]
    transcript.mix_hash(their_ephemeral)
    aead = transcript.mix_key(static.exchange(their_ephemeral))
    their_static = transcript.open(aead, initiation[KEY_BYTES:-TAG_BYTES])
    aead = transcript.mix_key(static.exchange(their_static))
    transcript.open(aead, initiation[-TAG_BYTES:])

    transcript.mix_hash(ephemeral.public_raw)
    transcript.mix_key(ephemeral.exchange(their_ephemeral))
    aead = transcript.mix_key(ephemeral.exchange(their_static))
    response = ephemeral.public_raw + transcript.seal(aead, b"")
    theirs, ours = transcript.split()
    return their_static, response, Finished(ours, theirs, transcript.hash)


class Initiator:
    """The side that knows the other's static key; for our own clients. One use each."""

    __slots__ = ("_ephemeral", "_static", "_transcript", "initiation")

    def __init__(
        self, static: PrivateKey, responder: bytes, prologue: bytes, ephemeral: PrivateKey
    ) -> None:
        self._static = static
        self._ephemeral = ephemeral
        self._transcript = transcript = _Transcript(prologue, responder)
        transcript.mix_hash(ephemeral.public_raw)
        aead = transcript.mix_key(ephemeral.exchange(responder))
        sealed_static = transcript.seal(aead, static.public_raw)
        aead = transcript.mix_key(static.exchange(responder))
        self.initiation = ephemeral.public_raw + sealed_static + transcript.seal(aead, b"")

    def finish(self, response: bytes) -> Finished:
        """Read the response. Raises ProtocolError if it does not come from the right key."""
        if len(response) != RESPONSE_BYTES:
            raise ProtocolError(f"noise: response of {len(response)} bytes")
        transcript = self._transcript
        their_ephemeral = response[:KEY_BYTES]
        transcript.mix_hash(their_ephemeral)
        transcript.mix_key(self._ephemeral.exchange(their_ephemeral))
        aead = transcript.mix_key(self._static.exchange(their_ephemeral))
        transcript.open(aead, response[KEY_BYTES:])
        ours, theirs = transcript.split()
        return Finished(ours, theirs, transcript.hash)
