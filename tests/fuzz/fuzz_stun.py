"""STUN datagrams from strangers: a transaction id or ProtocolError, nothing else."""

from __future__ import annotations

import contextlib
import random
from ipaddress import IPv4Address, IPv6Address

from appliance.wire import stun
from appliance.wire.errors import ProtocolError
from tests.fuzz.harness import main, mutate
from tests.support import stunclient


def case(rng: random.Random) -> None:
    request = stunclient.encode_request(rng.randbytes(12))
    for data in (mutate(rng, request), rng.randbytes(rng.randint(0, 600))):
        with contextlib.suppress(ProtocolError):
            assert len(stun.decode_request(data)) == stun.TXID_BYTES
    address = (
        IPv4Address(rng.randbytes(4)) if rng.random() < 0.5 else IPv6Address(rng.randbytes(16))
    )
    answer = stun.encode_response(rng.randbytes(12), address, rng.randrange(65536))
    with contextlib.suppress(ProtocolError):
        stunclient.decode_response(mutate(rng, answer))


if __name__ == "__main__":
    main(case)
