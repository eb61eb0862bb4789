"""Key texts from strangers: a key that writes itself back, or ProtocolError."""

from __future__ import annotations

import contextlib
import random

from appliance.wire import keys
from appliance.wire.errors import ProtocolError
from tests.fuzz.harness import main, mutate

KINDS: list[type[keys.PublicKey | keys.HardwareKey]] = [
    keys.MachineKey,
    keys.NodeKey,
    keys.DiscoKey,
    keys.ChallengeKey,
    keys.LockKey,
    keys.HardwareKey,
]


def case(rng: random.Random) -> None:
    kind = rng.choice(KINDS)
    raw = b"\x04" + rng.randbytes(64) if kind is keys.HardwareKey else rng.randbytes(32)
    good = str(kind(raw))
    text = mutate(rng, good.encode()).decode("latin-1") if rng.random() < 0.9 else good.upper()
    with contextlib.suppress(ProtocolError):
        assert str(kind.parse(text)) == text.lower()
    with contextlib.suppress(ProtocolError):
        keys.PrivateKey.parse(text.replace(kind.prefix, keys.PrivateKey.prefix))
    with contextlib.suppress(ProtocolError):
        keys.MeshKey.parse(text.removeprefix(kind.prefix))
    with contextlib.suppress(ProtocolError):
        weak = rng.choice((bytes(32), b"\x01" + bytes(31), b"\xff" * 32, rng.randbytes(31)))
        keys.PrivateKey(rng.randbytes(32)).exchange(weak)


if __name__ == "__main__":
    main(case)
