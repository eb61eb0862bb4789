"""Hellos of every kind of client: the half of ``front.clienthello`` that a server does not need.

``random_hello`` makes what OpenSSL answers; ``in_records`` and ``cut`` bring it as networks do.
"""

from __future__ import annotations

from dataclasses import dataclass
from random import Random

GREASE = tuple(0x0A0A + 0x1010 * i for i in range(16))
SUITES = (0xC02B, 0xC02F, 0xC02C, 0xC030, 0xCCA9)
TLS13_SUITES = (0x1301, 0x1302, 0x1303)
GROUPS = (29, 23, 24)
POST_QUANTUM = 0x11EC
SIGNATURES = (0x0403, 0x0804, 0x0805, 0x0806, 0x0401)
VALIDATOR = (b"acme-tls/1",)
PROTOCOLS = ((), (b"h2", b"http/1.1"), (b"http/1.1",), (b"acme-tls/1", b"h2"), VALIDATOR)


@dataclass(frozen=True, slots=True)
class Hello:
    """One hello: its message, and what a reader must find in it."""

    message: bytes
    server_name: str | None
    protocols: tuple[bytes, ...]

    @property
    def is_validator(self) -> bool:
        return self.protocols == VALIDATOR


def block(size: int, content: bytes) -> bytes:
    return len(content).to_bytes(size, "big") + content


def numbers(values: list[int]) -> bytes:
    return b"".join(value.to_bytes(2, "big") for value in values)


def extension(kind: int, content: bytes) -> bytes:
    return kind.to_bytes(2, "big") + block(2, content)


def random_hello(rng: Random, names: tuple[str, ...]) -> Hello:
    """Make one that OpenSSL answers: of any age, with or without a name, GREASE, large key shares."""
    name = rng.choice((*names, None))
    protocols = rng.choice(PROTOCOLS)
    grease, newest = rng.random() < 0.5, rng.random() < 0.5
    suites = [*(TLS13_SUITES if newest else ()), *SUITES]
    is_large = newest and rng.random() < 0.5
    groups = [*((POST_QUANTUM,) if is_large else ()), *GROUPS]
    extensions = [
        extension(10, block(2, numbers(groups))),
        extension(11, block(1, b"\0")),
        extension(13, block(2, numbers(list(SIGNATURES)))),
        extension(23, b""),
    ]
    if name is not None:
        spelled = "".join(rng.choice((letter, letter.upper())) for letter in name)
        extensions.append(extension(0, block(2, b"\0" + block(2, spelled.encode()))))
    if protocols:
        offered = b"".join(block(1, each) for each in protocols)
        extensions.append(extension(16, block(2, offered)))
    if newest:
        versions = [0x0304, 0x0303]
        extensions.append(extension(43, block(1, numbers(versions))))
        extensions.append(extension(51, block(2, key_shares(rng, post_quantum=is_large))))
        extensions.append(extension(45, block(1, b"\1")))
    if grease:
        suites.insert(0, rng.choice(GREASE))
        first, last = rng.sample(GREASE, 2)
        extensions.append(extension(first, b""))
        extensions.append(extension(last, b"\0"))
    if rng.random() < 0.2:
        extensions.append(extension(21, bytes(rng.randrange(600))))
    rng.shuffle(extensions)
    body = (
        b"\x03\x03"
        + rng.randbytes(32)
        + block(1, rng.choice((b"", rng.randbytes(32))))
        + block(2, numbers(suites))
        + block(1, b"\0")
        + block(2, b"".join(extensions))
    )
    return Hello(b"\1" + block(3, body), name, protocols)


def key_shares(rng: Random, *, post_quantum: bool) -> bytes:
    shares = numbers([29]) + block(2, rng.randbytes(32))
    if post_quantum:
        shares = numbers([POST_QUANTUM]) + block(2, rng.randbytes(1216)) + shares
    return shares


def in_records(message: bytes, size: int) -> bytes:
    """Put a message into records of this size."""
    cut = [message[at : at + size] for at in range(0, len(message), size)]
    return b"".join(b"\x16\x03\x01" + block(2, one) for one in cut)


def pieces(rng: Random, data: bytes, most: int) -> list[bytes]:
    """Cut bytes anywhere into up to so many segments."""
    places = sorted(rng.sample(range(1, len(data)), min(rng.randrange(most), len(data) - 1)))
    return [data[a:b] for a, b in zip([0, *places], [*places, len(data)], strict=True)]
