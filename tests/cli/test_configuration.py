"""``headwater config``: check, show, and the conversion of Headscale's files."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import config
from appliance.cli.convert import from_headscale
from appliance.cli.root import run
from appliance.config import yamlfile

GOOD = "server_url: https://hw.example.com\ntls: {mode: local_ca}\n"

HEADSCALE = """
server_url: https://hs.example.com
listen_addr: 0.0.0.0:8443
metrics_listen_addr: 127.0.0.1:9090
grpc_listen_addr: 127.0.0.1:50443
noise: {private_key_path: /var/lib/headscale/noise_private.key}
prefixes: {v4: 100.64.0.0/10, v6: "fd7a:115c:a1e0::/48", allocation: random}
derp:
  server:
    enabled: true
    region_id: 901
    region_code: home
    region_name: At home
    stun_listen_addr: 0.0.0.0:3478
    private_key_path: /var/lib/headscale/derp.key
    ipv4: 198.51.100.1
  urls: [https://controlplane.example.com/derpmap/default]
  auto_update_enabled: true
node: {expiry: 180d, ephemeral: {inactivity_timeout: 30m}}
database: {type: sqlite, sqlite: {path: /var/lib/headscale/db.sqlite, write_ahead_log: true}}
tls_cert_path: /etc/ssl/hs.pem
tls_key_path: /etc/ssl/hs.key
log: {level: warn, format: json}
policy: {mode: file, path: /etc/headscale/acl.hujson}
dns:
  magic_dns: true
  base_domain: ts.internal
  override_local_dns: true
  nameservers: {global: [1.1.1.1], split: {corp.example: [10.0.0.1]}}
  extra_records: [{name: grafana.ts.internal, type: A, value: 100.64.0.3}]
unix_socket: /run/headscale/headscale.sock
unix_socket_permission: "0770"
logtail: {enabled: false}
randomize_client_port: false
oidc: {issuer: https://id.example.com, client_id: hs}
"""


@pytest.fixture
def site(tmp_path: Path) -> Path:
    path = tmp_path / "site.yaml"
    path.write_text(GOOD)
    return path


def test_check_passes_a_good_file(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "check", str(site)]) == 0
    assert "fine" in capsys.readouterr().out
    assert run(["configtest", "-c", str(site)]) == 0
    capsys.readouterr()
    assert run(["config", "check", str(site), "-o", "json"]) == 0
    assert json.loads(capsys.readouterr().out) == {"ok": True, "mistakes": [], "warnings": []}


def test_check_names_every_mistake(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site.write_text("server_url: 5\ntls: {mode: locl_ca}\nlogg: {}\n")
    assert run(["config", "check", str(site)]) == 1
    complaint = capsys.readouterr().err
    for word in ("server_url", "did you mean 'local_ca'", "did you mean 'log'"):
        assert word in complaint
    assert run(["config", "check", str(site), "-o", "json-line"]) == 1
    answer = json.loads(capsys.readouterr().out)
    assert {mistake["path"] for mistake in answer["mistakes"]} == {
        "server_url",
        "tls.mode",
        "logg",
    }


def test_check_reads_the_policies_that_the_file_holds(
    site: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    policy = "tailnet: {policy: {mode: settings, document: {acls: [], gruops: {}}}}\n"
    site.write_text(GOOD + policy)
    assert run(["config", "check", str(site)]) == 1
    complaint = capsys.readouterr().err
    assert "tailnet.policy: found line 3, column 3" in complaint
    assert 'did you mean "groups"' in complaint
    site.write_text(GOOD + policy.replace("gruops", "groups"))
    assert run(["config", "check", str(site)]) == 0
    elsewhere = "tailnets: [{name: b, base_domain: b.c, policy: {mode: file, path: /nowhere}}]\n"
    site.write_text(GOOD + elsewhere)
    assert run(["config", "check", str(site)]) == 0


def test_headscales_policy_needs_people_where_it_cannot_be_taken() -> None:
    _, remarks = from_headscale({"policy": {"mode": "database"}})
    assert any("headwater policy set" in each for each in remarks)
    _, remarks = from_headscale({"policy": {"path": "acl.hujson"}})
    assert any("the whole path" in each for each in remarks)


def test_show_fills_in_every_default(site: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["config", "show", str(site)]) == 0
    shown = capsys.readouterr().out
    assert config.build(yamlfile.parse(shown)) == config.load(site)
    assert "ephemeral_timeout: 30m" in shown


def test_commands_without_a_file_say_so(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr("appliance.cli.root.CONFIG_PLACES", ())
    for line in (["config", "check"], ["config", "show"], ["serve"], ["relay"]):
        assert run(line) == 1
        assert "FILE" in capsys.readouterr().err


def test_headscales_file_converts_to_a_good_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    theirs = tmp_path / "config.yaml"
    theirs.write_text(HEADSCALE)
    assert run(["config", "convert", str(theirs)]) == 0
    said = capsys.readouterr()
    settings = config.build(yaml.safe_load(said.out))
    assert settings.server_url == "https://hs.example.com"
    assert [str(each) for each in settings.listen] == ["0.0.0.0:8443"]
    assert settings.tailnet.prefixes.allocation == "random"
    assert settings.tailnet.base_domain == "ts.internal"
    assert str(settings.tailnet.key_expiry) == "180 days, 0:00:00"
    assert settings.derp.server.region_id == 901
    assert settings.dns.nameservers.split == {"corp.example": ("10.0.0.1",)}
    assert settings.socket.mode == 0o770
    assert settings.log.level == "warning"
    assert settings.tls.mode == "files"
    assert settings.tailnet.policy.mode == "file"
    assert str(settings.tailnet.policy.path) == "/etc/headscale/acl.hujson"
    remarks = said.err
    for word in ("noise.key", "derp.urls", "database.sqlite.path"):
        assert word in remarks
    for word in ("grpc", "write_ahead_log", "randomize", "logtail", "auto_update"):
        assert word not in remarks


@pytest.mark.parametrize(
    ("theirs", "ours"),
    [
        ({}, {"tls": {"mode": "off"}}),
        ({"node": {"expiry": 0}}, {}),
        ({"node": {"expiry": "0s"}}, {}),
        ({"unix_socket_permission": 0o770}, {"socket": {"mode": "0770"}}),
        ({"dns": {"base_domain": "a.b"}}, {"tailnet": {"base_domain": "a.b"}}),
        (
            {
                "database": {
                    "type": "postgres",
                    "postgres": {"host": "db", "user": "u", "name": "n"},
                }
            },
            {"database_url": "postgresql://u@db:5432/n"},
        ),
        ({"taildrop": {"enabled": False}}, {"tailnet": {"file_sharing": False}}),
        ({"listen_addr": ""}, {}),
        ({"policy": {"mode": "file", "path": ""}}, {}),
        ({"policy": {"path": "/a"}}, {"tailnet": {"policy": {"mode": "file", "path": "/a"}}}),
        ({"acl_policy_path": "/a"}, {"tailnet": {"policy": {"mode": "file", "path": "/a"}}}),
        (
            {"policy": {"mode": "database", "path": "/a"}},
            {"tailnet": {"policy": {"mode": "database"}}},
        ),
    ],
)
def test_conversion_of_single_keys(theirs: dict[object, object], ours: dict[str, Any]) -> None:
    settings, _ = from_headscale(theirs)
    for section, value in ours.items():
        if isinstance(value, dict):
            got = settings[section]
            assert isinstance(got, dict)
            assert value.items() <= got.items()
        else:
            assert settings[section] == value
    if "node" in theirs:
        assert "key_expiry" not in str(settings)


def test_strange_document_is_refused(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "x.yaml"
    path.write_text("- 1\n")
    assert run(["config", "convert", str(path)]) == 1
    assert "no mapping" in capsys.readouterr().err
