"""Keys: one type per role, each with its text prefix, so that no key can stand in for another.

Not for using the keys (``noise``, ``derp`` do). Sits at the bottom of ``wire``.
Source: tailscale types/key/{machine,node,disco,nl,chal,derp}.go.
"""

from __future__ import annotations

import base64
import hashlib
import hmac
from typing import TYPE_CHECKING, ClassVar, Self

from nacl import bindings as sodium

from appliance.wire.errors import ProtocolError

if TYPE_CHECKING:
    from collections.abc import Callable

KEY_BYTES = 32
HARDWARE_KEY_BYTES = 65
UNCOMPRESSED_POINT = 4
"""First byte of an elliptic curve point that is written as 0x04, x, y."""

_HEX = frozenset("0123456789abcdefABCDEF")


class PublicKey:
    """32 bytes and a role; text form is ``prefix`` and 64 hex digits (input in either case).

    The zero key is valid text and means "none" wherever the protocol sends it.
    """

    __slots__ = ("_hash", "raw")
    prefix: ClassVar[str] = ""
    raw: bytes

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ProtocolError(f"{type(self).__name__}: {len(raw)} bytes, want {KEY_BYTES}")
        self.raw = bytes(raw)
        self._hash = hash(self.raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form. Raises ProtocolError for a wrong prefix, length or digit."""
        return cls(_unhex(cls.prefix, text, cls.__name__))

    @classmethod
    def zero(cls) -> Self:
        """Give the key of 32 zero bytes, which stands for "none"."""
        return cls(bytes(KEY_BYTES))

    @property
    def is_zero(self) -> bool:
        """Tell whether this is the "none" key."""
        return not any(self.raw)

    @property
    def short(self) -> str:
        """Give the form for logs: ``[`` five characters of base64 ``]``; empty for zero."""
        return "" if self.is_zero else f"[{base64.b64encode(self.raw).decode()[:5]}]"

    def __str__(self) -> str:
        return self.prefix + self.raw.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.short or 'zero'})"

    def __eq__(self, other: object) -> bool:
        return type(other) is type(self) and self.raw == other.raw

    def __hash__(self) -> int:
        return self._hash


class MachineKey(PublicKey):
    """The identity of a device; learned from Noise, never believed from JSON."""

    __slots__ = ()
    prefix = "mkey:"


class NodeKey(PublicKey):
    """The WireGuard key of a node; also its address on a relay."""

    __slots__ = ()
    prefix = "nodekey:"


class DiscoKey(PublicKey):
    """The key of a node's path discovery."""

    __slots__ = ()
    prefix = "discokey:"

    @property
    def short(self) -> str:
        """Give the form for logs, which differs: ``d:`` and 16 hex digits; empty for zero."""
        return "" if self.is_zero else f"d:{self.raw[:8].hex()}"


class ChallengeKey(PublicKey):
    """The key in the early Noise payload."""

    __slots__ = ()
    prefix = "chalpub:"


class LockKey(PublicKey):
    """The Ed25519 key of a node for the tailnet lock; input may also say ``tlpub:``."""

    __slots__ = ()
    prefix = "nlpub:"

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read ``nlpub:`` or the command line's ``tlpub:`` form."""
        if text.startswith("tlpub:"):
            return cls(_unhex("tlpub:", text, cls.__name__))
        return super().parse(text)


class HardwareKey:
    """The P-256 key of a node's hardware attestation: ``hwattestpub:`` and 130 hex digits."""

    __slots__ = ("raw",)
    prefix: ClassVar[str] = "hwattestpub:"
    raw: bytes

    def __init__(self, raw: bytes) -> None:
        if len(raw) != HARDWARE_KEY_BYTES or raw[0] != UNCOMPRESSED_POINT:
            raise ProtocolError("hardware key: want an uncompressed point of 65 bytes")
        self.raw = bytes(raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the text form. Raises ProtocolError for a wrong prefix, length, digit or point."""
        return cls(_unhex(cls.prefix, text, "hardware key", HARDWARE_KEY_BYTES))

    def __str__(self) -> str:
        return self.prefix + self.raw.hex()

    def __repr__(self) -> str:
        return f"HardwareKey([{base64.b64encode(self.raw[1:]).decode()[:5]}])"

    def __eq__(self, other: object) -> bool:
        return type(other) is HardwareKey and self.raw == other.raw

    def __hash__(self) -> int:
        return hash(self.raw)


class PrivateKey:
    """A Curve25519 private key, clamped; never printed, never compared with ``==``.

    Text form (files only): ``privkey:`` and 64 hex digits.
    """

    __slots__ = ("_public", "_raw")
    prefix: ClassVar[str] = "privkey:"

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ProtocolError(f"private key: {len(raw)} bytes, want {KEY_BYTES}")
        clamped = bytearray(raw)
        clamped[0] &= 248
        clamped[31] = (clamped[31] & 127) | 64
        self._raw = bytes(clamped)
        self._public = sodium.crypto_scalarmult_base(self._raw)

    @classmethod
    def generate(cls, random_bytes: Callable[[int], bytes]) -> Self:
        """Make a key from ``random_bytes(32)``, which must be a cryptographic source."""
        return cls(random_bytes(KEY_BYTES))

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read the file form. Raises ProtocolError without repeating the text."""
        return cls(_unhex(cls.prefix, text.strip(), "private key"))

    @property
    def public_raw(self) -> bytes:
        """The 32 bytes of the public key."""
        return self._public

    def derive(self, purpose: bytes) -> bytes:
        """Return 32 bytes that only the holder of this key can make, for another purpose.

        ``purpose`` has at most 16 bytes. From the result nobody learns the key, or what another
        purpose gives. Source: BLAKE2 keyed mode, with the purpose as its personalisation.
        """
        return hashlib.blake2b(key=self._raw, digest_size=32, person=purpose).digest()

    def exchange(self, public_raw: bytes) -> bytes:
        """Curve25519 with the other side's 32 bytes.

        Raises ProtocolError for a point of low order (the result would be all zero).
        """
        if len(public_raw) != KEY_BYTES:  # the library reads 32 bytes without looking
            raise ProtocolError(f"key exchange with {len(public_raw)} bytes")
        try:
            return sodium.crypto_scalarmult(self._raw, public_raw)
        except Exception as error:
            raise ProtocolError("key exchange with a point of low order") from error

    def reveal(self) -> bytes:
        """Give the secret bytes: for the key's file and for libraries that need them."""
        return self._raw

    def reveal_text(self) -> str:
        """Give the text for the key's file."""
        return self.prefix + self._raw.hex()

    def __repr__(self) -> str:
        return f"{type(self).__name__}(hidden)"

    __eq__ = None  # type: ignore[assignment]  # secrets are not compared with ==
    __hash__ = None  # type: ignore[assignment]  # nor used as keys of a mapping


class MeshKey:
    """The secret that relays of one region share: 64 hex digits, no prefix."""

    __slots__ = ("_raw",)

    def __init__(self, raw: bytes) -> None:
        if len(raw) != KEY_BYTES:
            raise ProtocolError(f"mesh key: {len(raw)} bytes, want {KEY_BYTES}")
        self._raw = bytes(raw)

    @classmethod
    def parse(cls, text: str) -> Self:
        """Read 64 hex digits; white space around them is ignored, as in a key file."""
        return cls(_unhex("", text.strip(), "mesh key"))

    def matches(self, other: MeshKey) -> bool:
        """Compare in constant time; the zero key matches nothing."""
        return any(self._raw) and hmac.compare_digest(self._raw, other._raw)

    def reveal_text(self) -> str:
        """Give the text for the key's file and for the login of a mesh link."""
        return self._raw.hex()

    def __repr__(self) -> str:
        return "MeshKey(hidden)"

    __eq__ = None  # type: ignore[assignment]  # use matches(), which takes constant time
    __hash__ = None  # type: ignore[assignment]  # nor used as keys of a mapping


def _unhex(prefix: str, text: str, what: str, size_bytes: int = KEY_BYTES) -> bytes:
    if not text.startswith(prefix):
        raise ProtocolError(f"{what}: the text does not start with {prefix!r}")
    digits = text[len(prefix) :]
    if len(digits) != 2 * size_bytes or not _HEX.issuperset(digits):
        raise ProtocolError(f"{what}: want {2 * size_bytes} hex digits after {prefix!r}")
    return bytes.fromhex(digits)
