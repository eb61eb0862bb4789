"""Site files of any content and ending: settings or ConfigError, nothing else."""

from __future__ import annotations

import contextlib
import json
import random
import tempfile
from pathlib import Path

from appliance import config
from appliance.config import ConfigError, resolved
from tests.fuzz.harness import main, mutate

GOOD: dict[str, object] = {
    "server_url": "https://hw.example.com",
    "listen": ["127.0.0.1:8443", "[::1]:8443"],
    "state_dir": "/nonexistent/hw",
    "socket": {"path": "/nonexistent/s", "mode": "0660"},
    "tls": {"mode": "local_ca"},
    "tailnet": {
        "base_domain": "tail.example.com",
        "email_domains": ["example.com"],
        "policy": {"mode": "settings", "document": {"acls": [], "groups": {"group:a": ["b@"]}}},
    },
    "derp": {"server": {"region_id": 900, "stun_listen": ["127.0.0.1:3478"], "ipv4": "192.0.2.1"}},
    "trusted_proxies": ["10.0.0.0/8"],
    "log": {"level": "info", "format": "json"},
}
ODD: list[object] = [
    None, True, 0, -1, 2**70, 1.5, float("inf"), "", "x" * 5000, "\0", "no", [], {}, [[]], {"": 1},
    "https://[", "https://a:b@c", "127.0.0.1:99999", "::::", "9" * 400 + "h", "\ud800",
]  # fmt: skip
TEXTS = (
    json.dumps(GOOD),
    'server_url = "https://a.example"\n[tls]\nmode = "off"\n',
    "server_url: https://a.example\ntls: {mode: off}\nlisten: [':8443']\n",
    "a: &a [*a]\n",
    "a: !!python/object/apply:os.system [x]\n",
    "a: &b [1,1]\nc: &d [*b,*b,*b,*b]\ne: [*d,*d,*d,*d]\n",
)


def spoil(rng: random.Random, value: object) -> object:
    """Replace, drop or add something somewhere in a document."""
    if rng.random() < 0.15:
        return rng.choice(ODD)
    if isinstance(value, dict):
        spoiled = {key: spoil(rng, each) for key, each in value.items() if rng.random() < 0.95}
        if rng.random() < 0.1:
            spoiled[rng.choice(("derp", "oidc", "x", "dns", "tailnets", "listen_plain"))] = (
                rng.choice(ODD)
            )
        return spoiled
    if isinstance(value, list):
        return [spoil(rng, each) for each in value]
    return value


def case(rng: random.Random) -> None:
    with contextlib.suppress(ConfigError):
        for tailnet in config.build(spoil(rng, GOOD), source="fuzz").all_tailnets:
            resolved.policy_source(tailnet)
    data = rng.choice(TEXTS).encode()
    data = mutate(rng, data) if rng.random() < 0.8 else rng.randbytes(rng.randint(0, 200))
    with tempfile.TemporaryDirectory() as directory:
        path = Path(directory) / f"site.{rng.choice(('toml', 'yaml', 'yml', 'json', 'conf'))}"
        path.write_bytes(data)
        with contextlib.suppress(ConfigError):
            config.load(path)


if __name__ == "__main__":
    main(case)
