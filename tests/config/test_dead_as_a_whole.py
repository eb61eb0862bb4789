"""Settings that are right key by key and cannot work, or deserve a word (F1, F4, F5, S12)."""

# ruff: noqa: S104, S108  # texts of site files: nothing is bound, and no file is made

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.root import run
from appliance.config import ConfigError, build, resolved, yamlfile
from appliance.config.warnings import hidden_files, warnings

MINIMAL: dict[str, Any] = {"server_url": "https://hw.example.com", "tls": {"mode": "local_ca"}}
PLAIN: dict[str, Any] = {"tls": {"mode": "off"}}
NO_RELAY: dict[str, Any] = {"derp": {"server": {"enabled": False}}}


def refused(changes: dict[str, Any]) -> dict[str, str]:
    with pytest.raises(ConfigError) as raised:
        build({**MINIMAL, **changes})
    return {mistake.path: str(mistake) for mistake in raised.value.mistakes}


def told(changes: dict[str, Any]) -> str:
    return "\n".join(str(each) for each in warnings(build({**MINIMAL, **changes})))


def region(**node: object) -> dict[str, Any]:
    relay = {"host": "derp.example.com", **node}
    return {"derp": {"regions": [{"id": 900, "code": "my", "nodes": [relay]}]}}


def dns(**values: object) -> dict[str, Any]:
    return {"dns": values}


def tailnet(**values: object) -> dict[str, Any]:
    return {"tailnet": values}


def split(domain: str, *servers: str) -> dict[str, Any]:
    return dns(nameservers={"split": {domain: list(servers)}})


def record(name: str, **values: object) -> dict[str, Any]:
    return dns(extra_records=[{"name": name, "value": "100.64.0.1", **values}])


DEAD: list[tuple[dict[str, Any], str, str]] = [
    # F1, real clients 2: without a relay no client comes up
    (NO_RELAY, "derp", "no node comes up"),
    (
        {"derp": {"server": {"enabled": False}, "regions": []}},
        "derp",
        "turn derp.server.enabled on",
    ),
    # real clients 1: clients insist on TLS after the first interruption
    ({**PLAIN, "server_url": "http://hw.example.com"}, "server_url", "insist on TLS"),
    ({**PLAIN, "server_url": "http://203.0.113.14:80"}, "server_url", "insist on TLS"),
    ({**PLAIN, "server_url": "http://100.64.0.1:80"}, "server_url", "insist on TLS"),
    ({**PLAIN, "server_url": "http://[2001:db8::1]:8080"}, "server_url", "insist on TLS"),
    ({**PLAIN, "server_url": "http://localhost.example"}, "server_url", "insist on TLS"),
    # hosts that nobody can dial
    ({"server_url": "https://hw example.com"}, "server_url", "a host that clients can dial"),
    ({"server_url": "https://hw.example.com."}, "server_url", "a host that clients can dial"),
    ({"server_url": "https://hw..example.com"}, "server_url", "a host that clients can dial"),
    ({"server_url": "https://0.0.0.0"}, "server_url", "a host that clients can dial"),
    ({"server_url": "https://1.2.3"}, "server_url", "a host that clients can dial"),
    ({"server_url": "https://*.example.com"}, "server_url", "a host that clients can dial"),
    ({"server_url": "https://bücher.example"}, "server_url", "a host that clients can dial"),
    ({"server_url": "https://hw.example.com#x"}, "server_url", "question mark"),
    ({"server_url": "https://hw.example.com?"}, "server_url", "question mark"),
    # F4, DNS that clients cannot use
    (split("corp.example"), "dns.nameservers.split.corp.example", "leave the domain out"),
    (split("a.example", "tls://192.0.2.1"), "dns.nameservers.split.a.example[0]", "over TLS"),
    (
        split("b.example", "https://dns.example.com/dns-query"),
        "dns.nameservers.split.b.example[0]",
        "ask no other",
    ),
    (split("*.corp", "192.0.2.1"), "dns.nameservers.split.*.corp", "everything below"),
    (split("Corp.example", "192.0.2.1"), "dns.nameservers.split.Corp.example", "lower case"),
    (split(".", "192.0.2.1"), "dns.nameservers.split..", "lower case"),
    (dns(nameservers={"global": ["dns.example.com"]}), "dns.nameservers.global[0]", "look up no"),
    (dns(nameservers={"global": ["https://1.1.1.1/dns-query"]}), "dns.nameservers.global[0]", "IP"),
    (dns(nameservers={"global": ["quic://9.9.9.9"]}), "dns.nameservers.global[0]", "quic"),
    (dns(nameservers={"global": ["100.100.100.100"]}), "dns.nameservers.global[0]", "ask itself"),
    (dns(nameservers={"global": ["fe80::1%eth0"]}), "dns.nameservers.global[0]", "one machine"),
    (dns(nameservers={"global": ["0.0.0.0"]}), "dns.nameservers.global[0]", "nobody's"),
    (dns(nameservers={"global": ["9.9.9.9:0"]}), "dns.nameservers.global[0]", "ports"),
    (dns(nameservers={"global": ["https://dns.nextdns.io/"]}), "dns.nameservers.global[0]", "prof"),
    (dns(nameservers={"global": ["http://192.0.2.1/"]}), "dns.nameservers.global[0]", "of a node"),
    (record("*.apps.tn.example.net"), "dns.extra_records[0].name", "no wildcards"),
    (record("A.tn.example.net"), "dns.extra_records[0].name", "lower case"),
    (record("a.tn.example.net."), "dns.extra_records[0].name", "without dots"),
    (record(""), "dns.extra_records[0].name", "lower case"),
    (record("a.b", type="CNAME"), "dns.extra_records[0].type", "A or AAAA"),
    (dns(search_domains=["*.corp"]), "dns.search_domains[0]", "without *"),
    (
        tailnet(dns={"nameservers": {"split": {"x.y": []}}}),
        "tailnet.dns.nameservers.split.x.y",
        "or",
    ),
    # F5, relays that nobody can dial
    (region(host="https://derp.example.com"), "derp.regions[0].nodes[0].host", "without https://"),
    (region(host="derp.example.com:8443"), "derp.regions[0].nodes[0].host", "into 'port'"),
    (region(host="derp.example.com/derp"), "derp.regions[0].nodes[0].host", "alone"),
    (region(host=""), "derp.regions[0].nodes[0].host", "alone"),
    (region(ipv4="203.0.113"), "derp.regions[0].nodes[0].ipv4", "'none'"),
    (region(ipv4="2001:db8::1"), "derp.regions[0].nodes[0].ipv4", "of this family"),
    (region(ipv4="none", ipv6="none"), "derp.regions[0].nodes[0].ipv6", "nobody could reach"),
    (region(cert_name="sha256-raw:abc"), "derp.regions[0].nodes[0].cert_name", "64 hex"),
    (region(stun_only=True), "derp.regions[0].nodes", "no relay there"),
    ({"derp": {"server": {"host": "hw.example.com:443"}}}, "derp.server.host", "into 'port'"),
    ({"derp": {"server": {"ipv4": "0.0.0.0"}}}, "derp.server.ipv4", "dial"),
    (
        {"derp": {"regions": [{"id": 9, "code": "a", "latitude": 91, "nodes": [{"host": "a.b"}]}]}},
        "derp.regions[0].latitude",
        "from -90 to 90",
    ),
    (
        {
            "derp": {
                "regions": [
                    {"id": 1, "code": "a", "nodes": [{"host": "a.b", "name": "b-1"}]},
                    {"id": 2, "code": "b", "nodes": [{"host": "b.b"}]},
                ]
            }
        },
        "derp.regions[1].nodes[0].name",
        "used only once",
    ),
    # F5, times and prefixes
    (tailnet(ephemeral_timeout="0s"), "tailnet.ephemeral_timeout", "before it has its first map"),
    (tailnet(ephemeral_timeout="1s"), "tailnet.ephemeral_timeout", "at least 2s"),
    (tailnet(key_expiry="0s"), "tailnet.key_expiry", "write null"),
    (tailnet(prefixes={"v4": "100.115.92.0/29"}), "tailnet.prefixes.v4", "keep that range"),
    (tailnet(prefixes={"v4": "100.100.100.96/29"}), "tailnet.prefixes.v4", "keep that range"),
    (tailnet(prefixes={"v4": "100.100.0.0/24"}), "tailnet.prefixes.v4", "keep that range"),
    (tailnet(prefixes={"v6": "fd7a:115c:a1e0::53/128"}), "tailnet.prefixes.v6", "keep that"),
    (tailnet(prefixes={"v6": "fd7a:115c:a1e0:b1a::/64"}), "tailnet.prefixes.v6", "keep that"),
    # names
    (tailnet(base_domain="a b.example"), "tailnet.base_domain", "lower case"),
    (tailnet(base_domain="a..example"), "tailnet.base_domain", "lower case"),
    (tailnet(base_domain="*.example"), "tailnet.base_domain", "without *"),
    (tailnet(base_domain="tn.123"), "tailnet.base_domain", "lower case"),
    (
        {**tailnet(base_domain="tn.example"), "derp": {"server": {"host": "derp.tn.example"}}},
        "tailnet.base_domain",
        "MagicDNS for the relay",
    ),
    ({"tailnets": [{"name": "b"}]}, "tailnets[0].base_domain", "a domain of its own"),
    # F5, databases
    ({"database_url": "postgresql://a@corp@fd00::5:5433/hs"}, "database_url", "%40"),
    ({"database_url": "postgresql://a@fd00::5:5433/hs"}, "database_url", "brackets"),
    ({"database_url": "postgresql://hs@/run/postgresql:5432/hs"}, "database_url", "?host="),
    ({"database_url": "postgresql://hs@db:five/hs"}, "database_url", "65535"),
    ({"database_url": "postgresql://hs@db:70000/hs"}, "database_url", "65535"),
    ({"database_url": "postgresql://hs@[fd00::5/hs"}, "database_url", "postgresql://"),
    ({"database_url": "postgresql://hs@db/hs?port=x"}, "database_url", "65535"),
    ({"database_url": "postgresql://hs@db/hs?sslmode=on"}, "database_url", "verify-full"),
    ({"database_url": "postgresql://hs@db/hs#x"}, "database_url", "%23"),
    ({"database_url": "postgresql://d b/hs"}, "database_url", "%20"),
    (
        {"database_url": "postgresql://hs@a,b/hs?target_session_attrs=standby"},
        "database_url",
        "the server writes",
    ),
    ({"database_url": "postgresql:hs"}, "database_url", "postgresql://"),
    ({"database_url": "/var/lib/hs.db"}, "database_url", "sqlite:///PATH"),
    ({"database_url": "sqlite:hs.db"}, "database_url", "sqlite:///PATH"),
    ({"database_url": "sqlite:///x.db?mode=ro"}, "database_url", "sqlite:///PATH"),
    ({"database_password_file": "/run/pw"}, "database_password_file", "with SQLite"),
    # two sockets of one address
    ({"metrics": {"listen": "0.0.0.0:443"}}, "metrics.listen", "listen[0]"),
    ({"metrics": {"listen": "192.0.2.1:443"}}, "metrics.listen", "wildcard"),
    ({"listen": ["192.0.2.1:443"], "metrics": {"listen": ":443"}}, "metrics.listen", "listen[0]"),
    ({"listen": ["[::1]:443"], "metrics": {"listen": "[::]:443"}}, "metrics.listen", "listen[0]"),
    ({"listen": ["0.0.0.0:443", "127.0.0.1:443"]}, "listen[1]", "listen[0]"),
    ({"listen": [":443", ":443"]}, "listen[1]", "listen[0]"),
    ({"listen": ["localhost:443", "127.0.0.1:443"]}, "listen[1]", "listen[0]"),
    ({"listen": ["[0::1]:443", "[::1]:443"]}, "listen[1]", "listen[0]"),
    ({"listen_plain": ["192.0.2.1:443"]}, "listen_plain[0]", "listen[0]"),
    ({"derp": {"server": {"separate": True, "listen": [":443"]}}}, "derp.server.listen[0]", "[0]"),
    (
        {"derp": {"server": {"stun_listen": [":9", "127.0.0.1:9"]}}},
        "derp.server.stun_listen[1]",
        "9",
    ),
    ({"listen": ["256.1.1.1:443"]}, "listen[0]", "an address or a host name"),
    ({"listen": ["[h w]:443"]}, "listen[0]", "an address or a host name"),
    # places
    ({"state_dir": "state"}, "state_dir", "begins with /"),
    ({"socket": {"path": "hw.sock"}}, "socket.path", "begins with /"),
    ({"socket": {"path": "/run/" + "x" * 120}}, "socket.path", "107 bytes"),
]


@pytest.mark.parametrize(
    ("changes", "path", "words"), DEAD, ids=[f"{i}-{each[1]}" for i, each in enumerate(DEAD)]
)
def test_what_cannot_work_as_a_whole_is_refused(
    changes: dict[str, Any], path: str, words: str
) -> None:
    """F1, F4, F5, real clients 1 and 2: each was fine by ``config check``."""
    found = refused(changes)
    assert list(found) == [path]
    assert words in found[path]


@pytest.mark.parametrize("form", ["yaml", "json", "toml"])
def test_every_form_is_refused_alike(
    form: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / f"site.{form}"
    texts = {
        "yaml": yamlfile.dump({**MINIMAL, **NO_RELAY}),
        "json": json.dumps({**MINIMAL, **NO_RELAY}),
        "toml": 'server_url = "https://hw.example.com"\ntls.mode = "local_ca"\n'
        "derp.server.enabled = false\n",
    }
    path.write_text(texts[form])
    for command in (
        ["config", "check", str(path)],
        ["deploy", "render", str(path)],
        ["serve", "-c", str(path)],
        ["relay", "-c", str(path)],
    ):
        assert run(command) == 1
        said = capsys.readouterr().err
        assert "no node comes up" in said
        assert "Traceback" not in said


GOOD: list[dict[str, Any]] = [
    {**PLAIN, "server_url": "http://127.0.0.1:8080"},
    {**PLAIN, "server_url": "http://10.1.2.3"},
    {**PLAIN, "server_url": "http://[fd00::1]:80"},
    {**PLAIN, "server_url": "http://localhost:8080/"},
    {**PLAIN, "server_url": "https://hw.example.com"},
    {"server_url": "https://HW.example.com:8443"},
    {"server_url": "https://xn--bcher-kva.example"},
    {"server_url": "https://hw_1.example.com"},
    {"derp": {"server": {"enabled": False}, **region()["derp"]}},
    dns(
        nameservers={
            "global": [
                "9.9.9.9",
                "2620:fe::fe",
                "9.9.9.9:5353",
                "[2620:fe::fe]:53",
                "https://dns.quad9.net/dns-query",
                "https://dns.nextdns.io/abc123",
                "https://dns.nextdns.io/abc123/laptop",
                "https://dns.controld.com/xyz",
                "http://100.64.0.7:53/dns-query",
            ],
            "split": {"corp.example": ["10.0.0.1"], "internal": ["192.168.1.1"]},
        }
    ),
    record("_acme.tn.example.net"),
    record("grafana"),
    tailnet(prefixes={"v4": "100.64.0.1/32", "v6": None}),
    tailnet(prefixes={"v4": "100.115.92.0/22"}),
    tailnet(ephemeral_timeout="2s"),
    {"database_url": "postgresql:///hs?host=/run/postgresql"},
    {"database_url": "postgresql://u@%2Frun%2Fpostgresql/db"},
    {"database_url": "postgresql://a%40corp@[fd00::5]:5433/hs"},
    {"database_url": "postgresql://a:5432,b:5433/hs?target_session_attrs=read-write"},
    {"database_url": "postgres://db/hs", "database_password_file": "/run/pw"},
    {"listen": ["0.0.0.0:443", "[::]:443"], "metrics": {"listen": "127.0.0.1:9090"}},
    {"listen": ["127.0.0.1:0", "127.0.0.1:0"], "metrics": {"listen": "127.0.0.1:0"}},
    {"listen": ["0.0.0.0:443"], "listen_plain": ["[::]:443"]},
    {"listen": ["192.0.2.1:443", "192.0.2.2:443"]},
    {"listen": [":3478"]},  # STUN has UDP
]


@pytest.mark.parametrize("changes", GOOD, ids=range(len(GOOD)))
def test_what_works_is_not_refused(changes: dict[str, Any]) -> None:
    build({**MINIMAL, **changes})


OWN = {"id": 999, "code": "headwater"}
OTHER = {"host": "r2.example.com"}


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({**PLAIN, "server_url": "http://127.0.0.1:8080"}, "derp.server: clients dial relays with"),
        ({**PLAIN, "server_url": "https://hw.example.com"}, "trusted_proxies: a proxy speaks TLS"),
        (tailnet(ephemeral_timeout="30s"), "tailnet.ephemeral_timeout: with 30s"),
        (tailnet(base_domain="tn.local"), "tailnet.base_domain: names below .local"),
        (
            {
                **tailnet(policy={"mode": "file", "path": "/etc/p.hujson"}),
                "tailnets": [
                    {
                        "name": "b",
                        "base_domain": "b.example",
                        "policy": {"mode": "file", "path": "/etc/p.hujson"},
                    }
                ],
            },
            "tailnets[0].policy.path: tailnet has the same policy",
        ),
        (
            {
                "derp": {
                    "server": {"mesh": {"key_file": "k", "peers": ["https://r2.example.com/derp"]}}
                }
            },
            "derp.server.mesh.peers[0]: no node is told of this relay",
        ),
        (
            {"derp": {"regions": [{**OWN, "nodes": [OTHER]}]}},
            "derp.server.mesh.peers: r2.example.com stands in our own region",
        ),
        ({"database_url": "sqlite://"}, "database_url: everything is forgotten"),
    ],
)
def test_what_deserves_a_word_is_a_warning(changes: dict[str, Any], words: str) -> None:
    """S12, real clients 1: fine, and said."""
    assert words in told(changes)


@pytest.mark.parametrize(
    "changes",
    [
        {},
        {**PLAIN, "trusted_proxies": ["127.0.0.1/32"]},
        {
            "derp": {
                "server": {"mesh": {"key_file": "k", "peers": ["https://r2.example.com/derp"]}},
                "regions": [{**OWN, "nodes": [OTHER]}],
            }
        },
        {
            **PLAIN,
            "server_url": "http://127.0.0.1:8080",
            "derp": {"server": {"host": "relay.example.com", "port": 443}},
        },
    ],
)
def test_what_is_well_has_no_warning(changes: dict[str, Any]) -> None:
    assert told(changes) == ""


@pytest.mark.parametrize(
    ("changes", "key"),
    [
        ({"tls": {"cert_file": "/home/hw/c.pem", "key_file": "/etc/k.pem"}}, "tls.cert_file"),
        ({"tls": {"cert_file": "/etc/c.pem", "key_file": "/tmp/k.pem"}}, "tls.key_file"),
        (
            {"database_url": "postgresql://db/x", "database_password_file": "/root/pw"},
            "database_password_file",
        ),
        ({"database_url": "postgresql:///x?host=/tmp"}, "database_url (host)"),
        ({"database_url": "postgresql://db/x?sslrootcert=/root/ca"}, "database_url (sslrootcert)"),
        ({"derp": {"server": {"mesh": {"key_file": "/var/tmp/k"}}}}, "derp.server.mesh.key_file"),
        ({"derp": {"server": {"mesh": {"ca_file": "/run/user/0/ca"}}}}, "derp.server.mesh.ca_file"),
        (tailnet(policy={"mode": "file", "path": "/etc/../root/a.hujson"}), "tailnet.policy.path"),
        (
            {
                "tailnets": [
                    {"name": "b", "base_domain": "b", "policy": {"mode": "file", "path": "/tmp/p"}}
                ]
            },
            "tailnets[0].policy.path",
        ),
        (
            {
                "socket": {"path": "/tmp/hw.sock"},
                "derp": {"server": {"separate": True, "listen": [":8443"]}},
            },
            "socket.path",
        ),
    ],
)
def test_files_that_the_sandbox_hides_are_named(changes: dict[str, Any], key: str) -> None:
    """F6: a warning of the check; ``deploy render`` refuses them."""
    settings = build({**MINIMAL, **changes})
    assert [each.path for each in hidden_files(settings)] == [key]
    assert warnings(settings) == ()


def test_check_prints_warnings_and_passes(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "site.yaml"
    path.write_text(yamlfile.dump({**MINIMAL, **tailnet(ephemeral_timeout="30s")}))
    assert run(["config", "check", str(path)]) == 0
    said = capsys.readouterr()
    assert said.out.startswith(f"{path}: fine, with 1 warning")
    assert "tailnet.ephemeral_timeout: with 30s" in said.out
    assert run(["config", "check", str(path), "-o", "json"]) == 0
    answer = json.loads(capsys.readouterr().out)
    assert answer["ok"]
    assert [each["path"] for each in answer["warnings"]] == ["tailnet.ephemeral_timeout"]


def test_a_reload_never_leaves_what_only_a_restart_makes_whole() -> None:
    """A reload takes over a part of the new file: that part with the rest must work too."""
    old = build({**MINIMAL, "derp": {"server": {"enabled": False}, **region()["derp"]}})
    new = build(MINIMAL)  # its relay waits for a restart, its regions do not
    with pytest.raises(ConfigError, match="no node comes up"):
        resolved.reload(old, new)
