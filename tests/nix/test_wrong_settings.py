"""Wrong settings fail while the configuration is evaluated, and the message names key and fix."""

from __future__ import annotations

from typing import Any

import pytest

from appliance.config import ConfigError, build
from appliance.deploy import plan
from tests.nix.evaluation import LIBRARIES, EvaluationError, box, needs_nix

pytestmark = needs_nix

Tree = dict[str, Any]

BASE: Tree = {
    "server_url": "https://hw.example.com",
    "tls": {"mode": "local_ca"},
    "tailnet": {"base_domain": "tailnet.example.net"},
}
FILES: Tree = {"mode": "files", "cert_file": "/etc/ssl/c.pem", "key_file": "/etc/ssl/k.pem"}


def relay(**server: object) -> Tree:
    return {"derp": {"server": server}}


# what is wrong, the key that the message names, words of the fix that it offers
WRONG_SETTINGS: list[tuple[Tree, str, str]] = [
    ({"sever_url_": "x"}, "sever_url_", "remove it"),
    ({"listen_addr": "0.0.0.0:443"}, "listen_addr", "write it as a list under 'listen'"),
    ({"derp": {"server": {"regionid": 900}}}, "derp.server.regionid", 'did you mean "region_id"'),
    ({"tailnet": {"magic": True}}, "tailnet.magic", "remove it"),
    ({"proxy_protocol": "yes"}, "proxy_protocol", "without quotes"),
    ({"log": {"level": "loud"}}, "log.level", "choose one of these words"),
    ({"log": "debug"}, "log", "{ … }"),
    ({"tailnet": {"key_expiry": "180 days"}}, "tailnet.key_expiry", "30d"),
    ({"tailnet": {"prefixes": {"v4": "100.64.0.0/99"}}}, "tailnet.prefixes.v4", "IPv4 prefix"),
    ({"tailnet": {"name": "My Tailnet"}}, "tailnet.name", "within these limits"),
    ({"tailnets": {"name": "b"}}, "tailnets", "write it as a list"),
    ({"listen": ["192.0.2.1"]}, "listen[0]", "0.0.0.0:443"),
    ({"listen": ["0.0.0.0:70000"]}, "listen[0]", "0.0.0.0:443"),
    ({"listen": []}, "listen", "name an address"),
    ({"listen": ["hw.example.com:443"]}, "listen", "write the address"),
    ({"listen": ["0.0.0.0:0"]}, "listen", "name one"),
    ({"metrics": {"listen": "0.0.0.0:443"}}, "metrics.listen", "another port or address"),
    ({"socket": {"mode": "rwxrwx---"}}, "socket.mode", "octal"),
    ({"socket": {"path": "headwater.sock"}}, "socket.path", "begins with /"),
    ({"server_url": "https://hw.example.com/path"}, "server_url", "without a path"),
    ({"server_url": "http://hw.example.com"}, "server_url", "write https://"),
    ({"tls": {"mode": "files"}}, "tls.cert_file", "set it"),
    ({"tls": {**FILES, "mode": "local_ca"}}, "tls.mode", "remove the files"),
    ({"tls": {"mode": "off"}, "listen_plain": ["0.0.0.0:80"]}, "listen_plain", "put it there"),
    ({"proxy_protocol": True}, "trusted_proxies", "name the proxies"),
    ({"trusted_proxies": ["10.0.0.0/8", "everybody"]}, "trusted_proxies[1]", "write one of these"),
    ({"tailnet": {"base_domain": "example.com"}}, "tailnet.base_domain", "choose another domain"),
    ({"database_url": "postgresql://u:pw@db/hw"}, "database_url", "database_password_file"),
    ({"database_url": "sqlite:////srv/hw.db"}, "database_url", "leave it out"),
    ({"state_dir": "/srv/headwater"}, "state_dir", "below /var/lib"),
    ({"state_dir": "/var/lib/../../etc"}, "state_dir", "below /var/lib"),
    (relay(separate=True), "derp.server.listen", "belong to the server"),
    (relay(region_id=0), "derp.server.region_id", "within these limits"),
    (relay(ipv4="203.0.113"), "derp.server.ipv4", "IPv4 address"),
    (relay(mesh={"peers": ["https://b/derp"]}), "derp.server.mesh.key_file", "name a credential"),
    ({"derp": {"regions": [{"id": 901}]}}, "derp.regions[0].code", "no default"),
    (
        {"dns": {"override_local_dns": True}},
        "dns.nameservers.global",
        "turn override_local_dns off",
    ),
    ({"dns": {"nameservers": {"split": {"corp": "10.0.0.53"}}}}, "split.corp", "a list"),
    (
        {"server_url": "http://hw.example.com", "tls": {"mode": "off"}},
        "server_url",
        "insist on TLS",
    ),
    ({"server_url": "http://8.8.8.8", "tls": {"mode": "off"}}, "server_url", "insist on TLS"),
    (relay(enabled=False), "derp", "turn derp.server.enabled on"),
    ({"metrics": {"listen": "192.0.2.1:443"}}, "metrics.listen", "a wildcard takes them all"),
    ({"listen": ["192.0.2.1:443", "192.0.2.1:443"]}, "listen", "another port or address"),
    ({"tls": {**FILES, "key_file": "/root/k.pem"}}, "tls.key_file", "not below /home"),
    (
        {"tailnet": {"base_domain": "t.example", "policy": {"mode": "file", "path": "/home/p"}}},
        "tailnet.policy.path",
        "not below /home",
    ),
    ({"database_url": "postgresql://db/hw?password=pw"}, "database_url", "database_password_file"),
    ({"database_password_file": "/run/pw"}, "database_password_file", "with SQLite"),
]


def refused(definition: Tree, **more: Any) -> str:
    with pytest.raises(EvaluationError) as raised:
        box(definition, **more)
    return str(raised.value)


@pytest.mark.parametrize(
    ("wrong", "key", "fix"),
    WRONG_SETTINGS,
    ids=[f"{i}-{w[1]}" for i, w in enumerate(WRONG_SETTINGS)],
)
def test_a_wrong_setting_is_refused_with_its_key_and_the_fix(
    wrong: Tree, key: str, fix: str
) -> None:
    settings = {**BASE, **wrong}
    said = refused({"enable": True, "settings": settings})
    assert "services.headwater.settings." in said
    assert said.count(f"{key}: found") == 1, "told once"
    assert "allowed: " in said
    assert fix in said.partition(f"{key}: found")[2]
    # What Nix refuses, the program refuses too: NixOS users have no rules of their own.
    with pytest.raises(ConfigError):
        plan.make(build(settings))


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
@pytest.mark.parametrize(
    ("wrong", "key", "fix"),
    [
        ({"server_url": 1}, "server_url", "in quotes"),
        ({"listen": "0.0.0.0:443"}, "listen", "as a list"),
        ({"listen": [443]}, "listen[0]", "as one text"),
        ({"state_dir": False}, "state_dir", "write the path as text"),
        ({"listen_plain": {"port": 80}}, "listen_plain", "as a list"),
    ],
)
def test_a_value_that_nix_itself_needs_is_refused_like_every_other(
    wrong: Tree, key: str, fix: str, nixpkgs: str
) -> None:
    said = refused({"enable": True, "settings": {**BASE, **wrong}}, nixpkgs=nixpkgs)
    assert f"services.headwater.settings.{key}: found" in said
    assert fix in said.partition(f"{key}: found")[2]


def test_a_missing_url_is_named() -> None:
    assert "services.headwater.settings.server_url" in refused({"enable": True})


SECRETS: list[tuple[Tree, Tree, str, str]] = [
    (
        {"tls": {**FILES, "key_file": "tls-key"}},
        {},
        "tls.key_file",
        "set services.headwater.secrets.tls-key",
    ),
    ({}, {"oidc": "/run/secrets/oidc"}, "secrets.oidc", "take it away"),
    (
        {"tls": {**FILES, "key_file": "k"}},
        {"k": "/nix/store/00000000000000000000000000000000-k"},
        "secrets.k",
        "sops-nix",
    ),
    ({"tls": {**FILES, "key_file": "k"}}, {"k": "secrets/k"}, "secrets.k", "as text"),
]


@pytest.mark.parametrize(("wrong", "secrets", "key", "fix"), SECRETS)
def test_a_secret_that_would_leak_or_is_missing_is_refused(
    wrong: Tree, secrets: Tree, key: str, fix: str
) -> None:
    said = refused({"enable": True, "settings": {**BASE, **wrong}, "secrets": secrets})
    assert key in said
    assert fix in said


@pytest.mark.parametrize(
    ("definition", "key", "fix"),
    [
        ({"role": "relais"}, "services.headwater.role", '"relay"'),
        (
            {"role": "relay", "settings": {**BASE, **relay(separate=True, listen=["0.0.0.0:1"])}},
            "derp.server.separate",
            "leave 'separate' out",
        ),
        ({"openFirewal": True}, "services.headwater.openFirewal", "does not exist"),
        ({"openFirewall": "yes"}, "services.headwater.openFirewall", "boolean"),
        ({"upgrade": {"enable": True}}, "services.headwater.upgrade.flake", "set it"),
    ],
)
def test_a_wrong_option_is_refused(definition: Tree, key: str, fix: str) -> None:
    said = refused({"enable": True, "settings": BASE, **definition})
    assert key in said
    assert fix in said


@pytest.mark.parametrize(
    ("node", "key", "fix"),
    [
        ({"serverUrl": "hw.example.com"}, "serverUrl", "without a path"),
        ({"authKeyFile": "/nix/store/x-key"}, "authKeyFile", "sops-nix"),
        ({"authKeyFile": "hskey-auth-abc"}, "authKeyFile", "absolute path"),
        ({"extraFlags": ["--auth-key=x"]}, "extraFlags", "authKeyFile"),
    ],
)
def test_a_wrong_node_is_refused(node: Tree, key: str, fix: str) -> None:
    right = {"enable": True, "serverUrl": "https://hw.example.com", "authKeyFile": "/run/k"}
    said = refused({}, node={**right, **node})
    assert f"services.headwater-node.{key}" in said
    assert fix in said


# Settings with several things wrong, each of another kind; what is said, and what must not be: what
# nobody can know of a value of a wrong form.
TOGETHER: list[tuple[Tree, list[str], list[str]]] = [
    (
        {"state_dir": "/srv/hw", "log": {"level": "loud"}},
        ["log.level", "state_dir"],
        [],
    ),
    (
        {"server_url": "ftp://hw.example.com", "lisen": ["0.0.0.0:443"], "proxy_protocol": True},
        ["lisen", "server_url", "trusted_proxies"],
        [],
    ),
    # Which address is taken depends on a list that nobody can read; a wrong word may be any mode.
    ({"listen": [443], "metrics": {"listen": "0.0.0.0:443"}}, ["listen[0]"], ["metrics.listen"]),
    ({"tls": {"mode": "on"}, "state_dir": "/srv/hw"}, ["tls.mode", "state_dir"], ["tls.cert_file"]),
    ({"tls": "on", "listen": []}, ["tls", "listen"], ["tls.cert_file", "tls.mode"]),
    (
        {"derp": {"regions": [{"id": 901}], "server": {"enabled": False}}, "listen": []},
        ["derp.regions[0].code", "listen"],
        ["derp"],
    ),
    (
        {"tailnets": [{"name": 5, "policy": {"path": "/home/p"}}], "listen": ["localhost:443"]},
        ["tailnets[0].name", "listen"],
        ["tailnets.policy.path"],
    ),
]


@pytest.mark.parametrize("nixpkgs", LIBRARIES)
@pytest.mark.parametrize(("wrong", "said", "unsaid"), TOGETHER)
def test_mistakes_of_form_and_of_meaning_are_told_together(
    wrong: Tree, said: list[str], unsaid: list[str], nixpkgs: str
) -> None:
    found = refused({"enable": True, "settings": {**BASE, **wrong}}, nixpkgs=nixpkgs)
    for key in said:
        assert f"services.headwater.settings.{key}: found" in found
    for key in unsaid:
        assert f"services.headwater.settings.{key}: found" not in found


def test_a_secret_is_not_called_idle_when_its_setting_is_unreadable() -> None:
    tls = {"mode": "files", "cert_file": "/etc/c.pem", "key_file": "k"}
    settings = {**BASE, "tls": tls, "log": {"level": "loud"}}
    found = refused({"enable": True, "settings": settings, "secrets": {"k": "/run/k"}})
    assert "log.level: found" in found
    assert "secrets.k" not in found
