"""PROXY headers and forwarded addresses from a proxy that lies: a value or ProtocolError."""

from __future__ import annotations

import contextlib
import random
from ipaddress import ip_address

from appliance.front.proxy import (
    client_address,
    decode_preamble,
    forwarded_scheme,
    networks,
)
from appliance.wire.errors import ProtocolError
from tests.fuzz.harness import main, mutate, pieces
from tests.support.proxyheaders import encode_v1, encode_v2

TRUSTED = networks(["10.0.0.0/8", "fd00::/8"])
HOPS = [
    "1.2.3.4", "10.0.0.1", "[fd00::1]:80", "::ffff:10.0.0.2", "fe80::1%eth0", '"[2001:db8::1]"',
    "unknown", "_hidden", "", " ", ",,,", "1.2.3.4:99999", "\x00", "[", "999.1.1.1", "1.2.3.4, x",
]  # fmt: skip


def case(rng: random.Random) -> None:
    four = rng.random() < 0.5
    peer, local = (
        (("192.0.2.1", 4), ("10.0.0.1", 443)) if four else (("2001:db8::1", 4), ("::1", 1))
    )
    header = rng.choice((encode_v1, encode_v2))(peer, local)
    data = mutate(rng, header) if rng.random() < 0.9 else header + rng.randbytes(50)
    so_far = b""
    with contextlib.suppress(ProtocolError):
        for piece in pieces(rng, data):
            so_far += piece
            found = decode_preamble(so_far)
            if found is not None:
                assert 0 < found.size <= len(so_far)
                if found.peer is not None:
                    ip_address(found.peer[0])
                    assert 0 <= found.peer[1] <= 0xFFFF
                break
    values = [rng.choice(HOPS) for _ in range(rng.randint(0, 40))]
    client = client_address(rng.choice(("10.9.9.9", "fd00::9", "192.0.2.9", "?")), values, TRUSTED)
    assert client == "?" or ip_address(client)
    assert forwarded_scheme("10.9.9.9", rng.choice(HOPS), TRUSTED, "https") == "https"


if __name__ == "__main__":
    main(case)
