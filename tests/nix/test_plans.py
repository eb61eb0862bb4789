"""Nix and Python plan alike on many settings that nobody wrote, right ones and wrong ones."""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any, cast

import pytest

from appliance.config import ConfigError, build
from appliance.deploy import plan
from appliance.deploy.document import document
from tests.nix.evaluation import HERE, ROOT, evaluate, needs_nix

SITES = 300
SEEDS = (1, 2)

Tree = dict[str, Any]

# Each key with values that it may have; most are right, by themselves or together.
CHOICES: dict[str, list[Any]] = {
    "listen": [
        ["0.0.0.0:443", "[::]:443"],
        [":443"],
        ["127.0.0.1:8443", "[::1]:8443"],
        ["192.0.2.1:443", "198.51.100.2:8443"],
        ["[2001:db8::1]:443"],
        ["localhost:443"],
        ["0.0.0.0:0"],
        ["192.0.2.1"],
        [],
    ],
    "listen_plain": [[], ["0.0.0.0:80", "[::]:80"], [":80"], ["0.0.0.0:443"], ["0.0.0.0:00080"]],
    "metrics.listen": [None, "127.0.0.1:9090", "0.0.0.0:9090", "127.0.0.1:443", ":443", "9090"],
    "socket.mode": ["0770", "660", "0o600", 432, 511, 0, "rwx"],
    "socket.path": ["/run/headwater/headwater.sock", "/run/h.sock", "h.sock", ""],
    "state_dir": ["/var/lib/headwater", "/var/lib/a/b", "/var/lib", "/srv/x", "/var/lib/../x"],
    "database_url": [
        "",
        "sqlite:////var/lib/headwater/a.db",
        "sqlite:////srv/a.db",
        "postgresql://hw@db/hw",
        "postgresql://hw:pw@db/hw",
    ],
    "database_password_file": [None, "db", "/run/db", 5],
    "tls.mode": ["local_ca", "off", "files", "on", False],
    "tls.cert_file": [None, "/etc/c.pem", "cert"],
    "tls.key_file": [None, "/etc/k.pem", "key", "/root/k.pem"],
    "derp.server.enabled": [True, False, "no"],
    "derp.server.separate": [False, True],
    "derp.server.listen": [[], ["0.0.0.0:8443"], ["[::]:8443", "0.0.0.0:443"]],
    "derp.server.metrics_listen": [None, "127.0.0.1:9091", "0.0.0.0:9090", ":8443"],
    "derp.server.stun_listen": [["0.0.0.0:3478", "[::]:3478"], [], [":3479"], ["127.0.0.1:3478"]],
    "derp.server.region_id": [999, 1, 0, 70000, "9"],
    "derp.server.ipv4": [None, "192.0.2.1", "192.0.2"],
    "tailnet.key_expiry": [None, "30d", "1h30m", "0.5h", "30", "1 d"],
    "tailnet.base_domain": ["t.example.net", "example.com", "hw.example.com"],
    "tailnet.prefixes.v6": ["fd7a:115c:a1e0::/48", None, "fd7a::/300", "x"],
    "trusted_proxies": [[], ["10.0.0.0/8"], ["::1/128"], ["10.0.0.0/40"]],
    "proxy_protocol": [False, True, "yes"],
    "dns.nameservers.global": [[], ["9.9.9.9"], "9.9.9.9"],
    "dns.override_local_dns": [False, True],
    "policy": [
        {"mode": "database"},
        {"mode": "settings", "document": {"acls": [], "groups": {"group:a": ["b@"]}}},
        {"mode": "fil"},
    ],
    "log": [{}, {"level": "debug"}, {"levl": "debug"}, "debug"],
    "server_url": ["https://hw.example.com", "https://hw.example.com:8443/", "http://h", "hw"],
}


def site(rng: random.Random) -> Tree:
    """Make the settings of a site; some keys are said, the first choice of each the likeliest."""
    settings: Tree = {"server_url": "https://hw.example.com", "tls": {"mode": "local_ca"}}
    for key in rng.sample(sorted(CHOICES), rng.randrange(1, 8)):
        choices = CHOICES[key]
        *sections, last = key.split(".")
        place = settings
        for section in sections:
            place = place.setdefault(section, {})
        place[last] = choices[min(rng.randrange(len(choices)), rng.randrange(len(choices)))]
    return {"settings": settings, "role": rng.choice(["server", "server", "server", "relay"])}


def planned(site: Tree) -> Tree | None:
    """Plan in Python; None for a site that is refused."""
    try:
        made = plan.make(build(site["settings"]), role=site["role"])
    except ConfigError:
        return None
    return {
        "mistakes": [],
        "tcpPorts": list(made.tcp_ports),
        "udpPorts": list(made.udp_ports),
        "stateDirectory": made.state_directory,
        "credentials": dict(made.credentials),
        "services": [
            {"unit": each.unit, "command": each.command, "after": list(each.after)}
            for each in made.services
        ],
        "sockets": [
            {
                "unit": group.unit,
                "service": group.service,
                "purpose": group.purpose,
                "stream": list(group.stream),
                "datagram": list(group.datagram),
                "mode": group.options.get("SocketMode"),
            }
            for group in made.sockets
        ],
    }


def kinds(value: object) -> set[str]:
    """Name every kind of value that the schema has."""
    if isinstance(value, list):
        return set().union(*map(kinds, value))
    if not isinstance(value, dict):
        return set()
    own = {value["kind"]} if isinstance(value.get("kind"), str) else set()
    return own.union(*map(kinds, value.values()))


def test_nix_knows_every_kind_of_value() -> None:
    """A new type of setting needs a line in nix/check.nix."""
    check = (ROOT / "nix" / "check.nix").read_text()
    for kind in kinds(document()["settings"]):
        assert f"    {kind} = " in check or f'type.kind == "{kind}"' in check, kind


@needs_nix
@pytest.mark.parametrize("seed", SEEDS)
def test_nix_plans_and_refuses_like_the_program(seed: int, tmp_path: Path) -> None:
    rng = random.Random(seed)
    sites = [site(rng) for _ in range(SITES)]
    (tmp_path / "sites.json").write_text(json.dumps(sites))
    made = evaluate(HERE / "plans.nix", sites=str(tmp_path / "sites.json"))
    found = cast("list[Tree]", made)
    planned_ones = [planned(each) for each in sites]
    for each, nix, ours in zip(sites, found, planned_ones, strict=True):
        if ours is None:
            assert nix["mistakes"], each
        else:
            assert nix == ours, each
    assert SITES // 5 < planned_ones.count(None) < SITES * 4 // 5
