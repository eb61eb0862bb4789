"""``tls``: what a site file of each mode may say, and what could never get a certificate."""

from __future__ import annotations

from typing import Any

import pytest

from appliance import config
from appliance.config import tlschecks
from appliance.config.warnings import warnings

OWN = "https://ca.corp.example/acme/directory"
DNS = {"rfc2136": {"server": "192.0.2.53:53", "key_name": "k", "key_file": "/etc/k"}}


def site(url: str = "https://hw.example.com", tls: Any = None, **more: Any) -> dict[str, Any]:
    return {"server_url": url, "tls": {"mode": "acme", **(tls or {})}, **more}


FINE: list[tuple[dict[str, Any], tuple[str, ...]]] = [
    (site(), ("tls-alpn-01",)),
    (site(listen_plain=["0.0.0.0:80"]), ("tls-alpn-01", "http-01")),
    (site("https://hw.example.com:8443", listen_plain=["0.0.0.0:80"]), ("tls-alpn-01", "http-01")),
    (site("https://hw.example.com:8443", listen=[":8443"], listen_plain=[":80"]), ("http-01",)),
    (site(listen=[":8443"]), ("tls-alpn-01",)),  # something forwards 443
    (site("https://1.1.1.1"), ("tls-alpn-01",)),
    (site("https://[2606:4700::1111]"), ("tls-alpn-01",)),
    (site(tls={"names": ["*.hw.example.com"], "dns": DNS}), ("tls-alpn-01", "dns-01")),
    (
        site(tls={"challenge": "dns-01", "dns": {"hook": "/usr/local/bin/set"}}),
        ("dns-01",),
    ),
    (site(tls={"challenge": "dns-persist-01", "names": ["*.a.example.org"]}), ("dns-persist-01",)),
    (site("https://hw.corp", tls={"directory": OWN}), ("tls-alpn-01",)),
    (site("https://10.0.0.5:8443", listen=[":8443"], tls={"directory": OWN}), ("tls-alpn-01",)),
    (
        site(tls={"staging": True, "email": "a@b.example", "profile": "tlsserver"}),
        ("tls-alpn-01",),
    ),
    (site(tls={"eab": {"key_id": "k", "key_file": "eab"}, "directory": OWN}), ("tls-alpn-01",)),
]


@pytest.mark.parametrize(("document", "kinds"), FINE, ids=lambda each: str(each)[:90])
def test_what_can_get_a_certificate_is_fine(document: Any, kinds: tuple[str, ...]) -> None:
    settings = config.build(document)
    assert tlschecks.kinds(settings) == kinds


WRONG: list[tuple[dict[str, Any], str, str]] = [
    (site("https://hw.example.com:8443", listen=[":8443"]), "tls.challenge", "port 443"),
    (site(tls={"challenge": "http-01"}), "tls.challenge", "listen_plain"),
    (site(tls={"challenge": "dns-01"}), "tls.challenge", "tls.dns.rfc2136"),
    (site(tls={"names": ["*.hw.example.com"]}), "tls.names[0]", "without *"),
    (site("https://1.1.1.1", tls={"challenge": "dns-01", "dns": DNS}), "server_url", "a name when"),
    (site("https://headwater"), "server_url", "public DNS"),
    (site("https://hw.internal"), "server_url", "public DNS"),
    (site("https://hw.local"), "server_url", "public DNS"),
    (site("https://hw.lan"), "server_url", "public DNS"),
    (site("https://hw.home.corp"), "server_url", "public DNS"),
    (site("https://192.168.1.5"), "server_url", "public"),
    (site("https://100.64.0.1"), "server_url", "public"),
    (site(tls={"names": ["HW.example.com"]}), "tls.names[0]", "lower-case"),
    (site(tls={"names": ["a_b.example.com"]}), "tls.names[0]", "name of DNS"),
    (site(tls={"names": ["a.*.example.com"]}), "tls.names[0]", "name of DNS"),
    (site(tls={"names": [f"n{i}.example.com" for i in range(100)]}), "tls.names", "at most 100"),
    (site(tls={"directory": "http://ca.example"}), "tls.directory", "https URL"),
    (site(tls={"directory": OWN, "staging": True}), "tls.staging", "false"),
    (site(tls={"email": "nobody"}), "tls.email", "e-mail"),
    (site(tls={"dns": {**DNS, "hook": "/x"}}), "tls.dns.hook", "nothing beside"),
    (site(tls={"dns": {"hook": "set"}}), "tls.dns.hook", "begins with /"),
    (site(tls={"dns": {"wait": "1h"}}), "tls.dns.wait", "at most 5m"),
    (
        site(tls={"dns": {"rfc2136": {"server": "192.0.2.1:53", "key_name": "k"}}}),
        "tls.dns.rfc2136.key_file",
        "key_name and key_file",
    ),
    (
        site(tls={"dns": {"rfc2136": {"server": "192.0.2.1:53", "zone": "Z."}}}),
        "tls.dns.rfc2136.zone",
        "lower-case",
    ),
    (site(tls={"cert_file": "/c.pem", "key_file": "/k.pem"}), "tls.mode", "'files'"),
    (site(tls={"mode": "local_ca", "email": "a@b.example"}), "tls.email", "'acme'"),
    (site(tls={"mode": "local_ca", "names": ["x.example"]}), "tls.names", "'acme'"),
    (site("http://10.0.0.1"), "server_url", "https"),
]


@pytest.mark.parametrize(("document", "path", "told"), WRONG, ids=lambda each: str(each)[:60])
def test_what_could_never_get_one_is_refused_with_its_key(
    document: Any, path: str, told: str
) -> None:
    with pytest.raises(config.ConfigError) as refusal:
        config.build(document)
    found = {mistake.path: str(mistake) for mistake in refusal.value.mistakes}
    assert told in found[path]


def test_what_may_not_be_meant_gets_a_word() -> None:
    document = site(
        tls={"staging": True, "challenge": "http-01"},
        listen_plain=[":8080"],
        derp={"server": {"host": "relay.example.com"}},
    )
    found = {each.path for each in warnings(config.build(document))}
    assert found == {"tls.staging", "derp.server.host", "listen_plain"}


def test_names_are_the_hosts_and_further_ones_once() -> None:
    document = site(tls={"names": ["b.example.com", "hw.example.com"]})
    assert config.build(document).certificate_names == ("hw.example.com", "b.example.com")
