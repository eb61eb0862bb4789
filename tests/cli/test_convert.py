"""``headwater config convert``: files of 0.12 to 0.30 mean here what they mean there.

The files are our own, as small as each point allows.
"""

from __future__ import annotations

import contextlib
from pathlib import Path
from typing import Any

import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from appliance import config
from appliance.cli.convert import from_headscale
from appliance.cli.headscale import DISTINCTIVE
from appliance.cli.root import run
from appliance.config import Settings, yamlfile

BASE: dict[Any, Any] = {"server_url": "https://hs.example.com", "listen_addr": "127.0.0.1:8080"}
SECRET = "hunter2"  # a password that nobody may see again


def converted(theirs: dict[Any, Any], base: Path | None = None) -> Settings:
    """Convert and check; the result must be fine."""
    ours, _ = from_headscale({**BASE, **theirs}, base)
    return config.build(yamlfile.parse(yamlfile.dump(ours)))


def remarks(theirs: dict[Any, Any]) -> str:
    return "\n".join(from_headscale({**BASE, **theirs})[1])


# ── secrets ──────────────────────────────────────────────────────────────────────────────────────

SECRETS: list[dict[str, Any]] = [
    {"database": {"type": "postgres", "postgres": {"host": "db", "user": "u", "pass": SECRET}}},
    {"db_type": "postgres", "db_host": "db", "db_user": "u", "db_pass": SECRET},
    {"oidc": {"issuer": "https://id.example.com", "client_secret": SECRET}},
    {"cli": {"address": "hs.example.com:50443", "api_key": SECRET}},
    {"server_url": f"https://u:{SECRET}@hs.example.com"},
    {"derp": {"urls": [f"https://u:{SECRET}@maps.example.com/derp.json"]}},
    {"dns": {"nameservers": {"global": [f"https://u:{SECRET}@dns.example.com/dns-query"]}}},
    {"database": {"type": "postgres", "postgres": {"host": f"u:{SECRET}@db", "user": "u"}}},
    {"trusted_proxies": [f"u:{SECRET}@proxy"]},
    {"unix_socket_permission": f"u:{SECRET}@x"},
    {"some_password": SECRET, "db_pass": SECRET},
]


@pytest.mark.parametrize("theirs", SECRETS, ids=lambda each: next(iter(each)))
@pytest.mark.parametrize("form", [[], ["-o", "json"]])
def test_a_secret_is_never_shown_again(
    theirs: dict[str, Any], form: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """F3, H12."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**BASE, **theirs}))
    run(["config", "convert", str(path), *form])
    said = capsys.readouterr()
    assert SECRET not in said.out + said.err
    if "postgres" in str(theirs.get("database")) and "pass" in str(theirs):
        assert "database_password_file" in said.err


# ── defaults and values: the table of F2 ─────────────────────────────────────────────────────────


def test_one_family_of_prefixes_stays_one() -> None:
    """F2: Headscale has no default for the other family."""
    only_v4 = converted({"prefixes": {"v4": "100.64.0.0/10"}})
    assert str(only_v4.tailnet.prefixes.v4) == "100.64.0.0/10"
    assert only_v4.tailnet.prefixes.v6 is None
    only_v6 = converted({"prefixes": {"v4": "", "v6": "fd7a:115c:a1e0::/48"}})
    assert only_v6.tailnet.prefixes.v4 is None
    assert str(only_v6.tailnet.prefixes.v6) == "fd7a:115c:a1e0::/48"


def test_local_dns_is_overridden_by_default() -> None:
    """F2: the default of ``dns.override_local_dns`` is true there and false here."""
    assert converted({"dns": {"nameservers": {"global": ["9.9.9.9"]}}}).dns.override_local_dns
    assert not converted({"dns": {"base_domain": "ts.internal"}}).dns.override_local_dns
    off = {"dns": {"override_local_dns": False, "nameservers": {"global": ["9.9.9.9"]}}}
    assert not converted(off).dns.override_local_dns


@pytest.mark.parametrize(
    ("value", "seconds"),
    [
        (None, 120),
        ("30m", 1800),
        (1_800_000_000_000, 1800),
        ("1800000000000", 1800),
        ("1.5h", 5400),
        ("65s", 120),
        (120, 120),
        ("soon", 120),
    ],
)
def test_ephemeral_timeouts_are_read_as_go_reads_them(value: object, seconds: int) -> None:
    """F2: 120 s is the default there, numbers are nanoseconds, 65 s and less ends Headscale."""
    for theirs in (
        {"node": {"ephemeral": {"inactivity_timeout": value}}},
        {"ephemeral_node_inactivity_timeout": value},
    ):
        found = converted(theirs).tailnet.ephemeral_timeout
        assert found.total_seconds() == seconds
        if value in ("65s", 120, "soon"):
            assert "2m is taken" in remarks(theirs)


@pytest.mark.parametrize(
    ("expiry", "days"),
    [("180d", 180), ("1y", 365), (0, None), ("0s", None), ("", None), (180, None), ("x", None)],
)
def test_key_expiry(expiry: object, days: int | None) -> None:
    found = converted({"node": {"expiry": expiry}}).tailnet.key_expiry
    assert (found and found.days) == days
    if expiry in (180, "x"):
        assert "takes it for none" in remarks({"node": {"expiry": expiry}})


def postgres(**values: object) -> dict[str, Any]:
    return {"database": {"type": "postgres", "postgres": {"name": "hs", "user": "hs", **values}}}


@pytest.mark.parametrize(
    ("values", "url"),
    [
        ({"host": "db"}, "postgresql://hs@db:5432/hs"),
        ({"host": "db", "port": 6432}, "postgresql://hs@db:6432/hs"),
        ({"host": "/run/postgresql", "port": 5432}, "postgresql://hs@/hs?host=/run/postgresql"),
        ({"host": "/srv/pg", "port": 6432}, "postgresql://hs@/hs?host=/srv/pg&port=6432"),
        ({"host": "fd00::5", "port": 5433}, "postgresql://hs@[fd00::5]:5433/hs"),
        ({"host": "db", "user": "a@corp"}, "postgresql://a%40corp@db:5432/hs"),
        ({"host": "db", "name": "h/s?"}, "postgresql://hs@db:5432/h%2Fs%3F"),
        ({"host": "db", "ssl": True}, "postgresql://hs@db:5432/hs?sslmode=require"),
        ({"host": "db", "ssl": "true"}, "postgresql://hs@db:5432/hs?sslmode=require"),
        ({"host": "db", "ssl": "require"}, "postgresql://hs@db:5432/hs?sslmode=require"),
        ({"host": "db", "ssl": "verify-full"}, "postgresql://hs@db:5432/hs?sslmode=verify-full"),
        ({"host": "db", "ssl": False}, "postgresql://hs@db:5432/hs?sslmode=disable"),
    ],
)
def test_postgresql_is_reached_as_there(values: dict[str, object], url: str) -> None:
    """F2: sockets, IPv6, TLS, and names that a URL must escape."""
    assert converted(postgres(**values)).database_url == url
    old = {f"db_{key}": value for key, value in {"name": "hs", "user": "hs", **values}.items()}
    assert converted({"db_type": "postgres", **old}).database_url == url


def test_a_password_becomes_a_file() -> None:
    settings = converted(postgres(host="db", **{"pass": SECRET}))
    assert str(settings.database_password_file) == "database-password"


@pytest.mark.parametrize(
    ("value", "mode"),
    [
        ("0770", 0o770),
        (770, 0o770),
        (0o770, 0o770),
        ("770", 0o770),
        (700, 0o700),
        ("0o770", 0o770),
        (0o660, 0o660),
        ("0666", 0o666),
        (999, 0o700),
        ("rwx", 0o700),
    ],
)
def test_permissions_of_the_socket(value: object, mode: int) -> None:
    """F2: a number's digits are octal there; YAML has read ``0770`` as 504 before."""
    assert converted({"unix_socket_permission": value}).socket.mode == mode
    if mode == 0o700 and value != 700:
        assert "0700" in remarks({"unix_socket_permission": value})


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ({"auto_update": {"enabled": True}}, "auto_update.enabled (true): nodes are not told"),
        ({"randomize_client_port": True}, "randomizeClientPort"),
        ({"log": {"level": "disabled"}}, "errors are written"),
        (
            {"derp": {"server": {"automatically_add_embedded_derp_region": False}}},
            "automatically_add_embedded_derp_region (false): nodes are always told",
        ),
        ({"derp": {"urls": ["https://maps.example.net/derp.json"]}}, "without a relay"),
        (
            {"tls_letsencrypt_hostname": "hs.example.com"},
            "this server asks for the certificate itself",
        ),
        ({"policy": {"mode": "database"}}, "headwater policy set"),
        ({"policy": {"path": "/etc/headscale/acl.yaml"}}, "rewrite it"),
        ({"dns": {"extra_records_path": "/x.json"}}, "list the records"),
        ({"magic_new_key": 1}, "magic_new_key: no counterpart yet"),
        ({"node": {"routes": {"ha": {"probe_interval": "10s"}}}}, "no counterpart yet"),
        (
            {"oidc": {"issuer": "https://i.example.com", "domain_map": {}}},
            "oidc.domain_map: users are",
        ),
    ],
)
def test_what_has_no_counterpart_is_said(theirs: dict[Any, Any], words: str) -> None:
    """F2: a loss is never silent."""
    assert words in remarks(theirs)


@pytest.mark.parametrize(
    "theirs",
    [
        {"auto_update": {"enabled": False}},
        {"randomize_client_port": False},
        {"disable_check_updates": True, "grpc_listen_addr": "127.0.0.1:50443"},
        {"database": {"type": "sqlite", "debug": True, "sqlite": {"write_ahead_log": True}}},
        {"tuning": {"node_store_batch_size": 5}},
    ],
)
def test_what_costs_nothing_is_no_remark(theirs: dict[Any, Any]) -> None:
    said = remarks({"derp": {"server": {"enabled": True}}, **theirs})
    assert said == ""


@pytest.mark.parametrize(
    ("text", "value"), [("true", True), ("1", True), ("T", True), ("false", False), ("yes", False)]
)
def test_quoted_booleans_are_read_as_there(text: str, value: bool) -> None:
    """F2."""
    theirs = {"taildrop": {"enabled": text}, "logtail": {"enabled": text}}
    settings = converted(theirs)
    assert settings.tailnet.file_sharing is value
    assert settings.tailnet.client_logs is value
    assert ("neither true nor false" in remarks(theirs)) is (text == "yes")


@pytest.mark.parametrize(
    ("level", "ours"),
    [
        ("trace", "debug"),
        ("WARN", "warning"),
        ("panic", "error"),
        ("disabled", "error"),
        ("loud", "debug"),
        ("info", "info"),
    ],
)
def test_levels_of_the_log(level: str, ours: str) -> None:
    for theirs in ({"log": {"level": level}}, {"log_level": level}):
        assert converted(theirs).log.level == ours


# ── relays ───────────────────────────────────────────────────────────────────────────────────────


def test_our_relay_is_turned_on_when_no_other_is_left() -> None:
    """F1, real-clients 2: without a relay no node comes up."""
    example = {"region_id": 901, "region_code": "Home Lab", "ipv4": "198.51.100.1"}
    theirs = {"derp": {"server": {"enabled": False, **example}, "urls": ["https://m.example.net"]}}
    server = converted(theirs).derp.server
    assert server.enabled
    assert (server.region_id, server.region_code) == (901, "home-lab")
    assert server.ipv4 is None  # the example's: it was never in force
    said = remarks(theirs)
    assert "turned on" in said
    assert "derp.server.ipv4" in said


def test_a_relay_that_was_on_stays_as_it_was() -> None:
    server = {"enabled": True, "ipv4": "203.0.113.5", "stun_listen_addr": "[::]:3478"}
    found = converted({"derp": {"server": {**server, "verify_clients": False}}}).derp.server
    assert str(found.ipv4) == "203.0.113.5"
    assert not found.verify_clients
    assert [str(each) for each in found.stun_listen] == [":3478"]  # Go's [::] is both families


def test_go_names_ports_and_listens_on_both_families() -> None:
    settings = converted({"listen_addr": "[::]:https", "metrics_listen_addr": ":9090"})
    assert [str(each) for each in settings.listen] == [":443"]
    assert str(settings.metrics.listen) == ":9090"


# ── DNS ──────────────────────────────────────────────────────────────────────────────────────────


def test_resolvers_that_clients_cannot_use_are_left_out_with_words() -> None:
    """F4, in what is converted."""
    theirs = {
        "dns": {
            "base_domain": "ts.internal",
            "nameservers": {
                "global": ["1.1.1.1", "tls://9.9.9.9", "dns.example.com"],
                "split": {"corp.example": [], "b.example": ["https://dns.example.com/dns-query"]},
            },
            "extra_records": [
                {"name": "*.apps.ts.internal", "type": "A", "value": "100.64.0.1"},
                {"name": "x.ts.internal", "type": "CNAME", "value": "y.ts.internal"},
                {"name": "Z.ts.internal.", "value": "fd7a:115c:a1e0::1"},
            ],
        }
    }
    settings = converted(theirs)
    assert settings.dns.nameservers.global_ == ("1.1.1.1",)
    assert settings.dns.nameservers.split == {}
    assert [(r.name, r.type) for r in settings.dns.extra_records] == [("z.ts.internal", "AAAA")]
    said = remarks(theirs)
    for word in ("tls://9.9.9.9", "(dns.example.com)", "split.corp.example", "wildcards", "CNAME"):
        assert "left out" in next(line for line in said.splitlines() if word in line)


# ── the forms of the years ───────────────────────────────────────────────────────────────────────

FORM_012 = """
server_url: http://127.0.0.1:8080
listen_addr: 0.0.0.0:8080
private_key_path: private.key
ip_prefix: 100.80.0.0/16
derp: {urls: [https://maps.example.net/derp.json], paths: [derp.yaml], auto_update_enabled: true}
disable_check_updates: false
ephemeral_node_inactivity_timeout: 30m
db_type: sqlite3
db_path: db.sqlite
acme_url: https://acme.example.com/directory
tls_letsencrypt_hostname: ""
tls_letsencrypt_listen: ":http"
tls_cert_path: ""
log_level: warn
acl_policy_path: acl.hujson
dns_config:
  nameservers: [1.1.1.1, 9.9.9.9]
  restricted_nameservers: {corp.example: [10.0.0.1]}
  domains: [corp.example]
  magic_dns: true
  base_domain: ts.example.org
unix_socket: /var/run/headscale.sock
"""

FORM_022 = """
server_url: http://127.0.0.1:8080
listen_addr: 127.0.0.1:8080
metrics_listen_addr: 127.0.0.1:9090
private_key_path: /var/lib/headscale/private.key
noise: {private_key_path: /var/lib/headscale/noise_private.key}
ip_prefixes: ["fd7a:115c:a1e0::/48", 100.64.0.0/10]
derp: {server: {enabled: false, region_id: 999, region_code: headscale}, paths: []}
node_update_check_interval: 10s
db_type: postgres
db_host: /run/postgresql
db_port: 5432
db_name: headscale
db_user: headscale
log: {format: text, level: info}
dns_config:
  override_local_dns: true
  nameservers: [1.1.1.1]
  magic_dns: true
  base_domain: ts.example.org
  extra_records: [{name: a.ts.example.org, type: A, value: 100.64.0.3}]
unix_socket_permission: "0770"
logtail: {enabled: true}
randomize_client_port: false
"""


def test_the_form_of_0_12(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """F2: dns_config, ip_prefix, db_* and log_level have counterparts."""
    path = tmp_path / "config.yaml"
    path.write_text(FORM_012)
    assert run(["config", "convert", str(path)]) == 0
    said = capsys.readouterr()
    settings = config.build(yaml.safe_load(said.out))
    assert str(settings.tailnet.prefixes.v4) == "100.80.0.0/16"
    assert settings.tailnet.prefixes.v6 is None
    assert settings.tailnet.base_domain == "ts.example.org"
    assert settings.dns.magic_dns
    assert settings.dns.override_local_dns
    assert settings.dns.nameservers.global_ == ("1.1.1.1", "9.9.9.9")
    assert settings.dns.nameservers.split == {"corp.example": ("10.0.0.1",)}
    assert settings.dns.search_domains == ("corp.example",)
    assert settings.log.level == "warning"
    assert settings.tailnet.policy.path == tmp_path / "acl.hujson"  # beside the file, as there
    assert settings.derp.server.enabled
    assert "no counterpart" not in said.err
    assert "NODE.USER.DOMAIN" in said.err


def test_the_form_of_0_22() -> None:
    settings = converted(yaml.safe_load(FORM_022))
    assert str(settings.tailnet.prefixes.v4) == "100.64.0.0/10"
    assert str(settings.tailnet.prefixes.v6) == "fd7a:115c:a1e0::/48"
    assert settings.database_url == "postgresql://headscale@/headscale?host=/run/postgresql"
    assert settings.dns.extra_records[0].name == "a.ts.example.org"
    assert settings.tailnet.client_logs


def test_an_old_file_without_prefixes_has_ipv4_only() -> None:
    settings = converted({"db_type": "sqlite3"})
    assert str(settings.tailnet.prefixes.v4) == "100.64.0.0/10"
    assert settings.tailnet.prefixes.v6 is None


def test_a_mixed_file_is_read_from_both_forms() -> None:
    """F2: the newer key counts, an older one stands in for what is missing."""
    settings = converted(
        {
            "dns_config": {"base_domain": "old.example.org", "nameservers": ["9.9.9.9"]},
            "dns": {"base_domain": "new.example.org", "magic_dns": True},
            "ip_prefixes": ["100.99.0.0/16"],
        }
    )
    assert settings.tailnet.base_domain == "new.example.org"
    assert settings.dns.nameservers.global_ == ("9.9.9.9",)
    assert str(settings.tailnet.prefixes.v4) == "100.99.0.0/16"


def test_the_split_of_the_nixos_module_is_taken() -> None:
    settings = converted({"dns": {"base_domain": "t.example", "split": {"corp": ["10.0.0.1"]}}})
    assert settings.dns.nameservers.split == {"corp": ("10.0.0.1",)}


def test_keys_are_read_without_regard_to_case() -> None:
    ours, _ = from_headscale({"Server_URL": "https://hs.example.com", "DNS": {"Magic_DNS": False}})
    assert ours["server_url"] == "https://hs.example.com"


# ── the result is checked ────────────────────────────────────────────────────────────────────────


@pytest.mark.parametrize(
    "document",
    [
        {"name": "Some add-on", "version": "1", "slug": "x", "options": {"log_level": "info"}},
        {
            "server": {"host": "127.0.0.1", "port": 3000, "cookie_secret": SECRET},
            "headscale": {"url": "https://hs.example.com", "config_path": "/etc/x"},
            "oidc": {"issuer": "https://id.example.com", "client_secret": SECRET},
        },
        {"a": 1},
        {},
    ],
    ids=["an add-on", "a console", "anything", "nothing"],
)
def test_a_file_of_another_program_is_called_so(
    document: dict[str, Any], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """F2: no known key, so none of Headscale's."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(document))
    assert run(["config", "convert", str(path)]) == 1
    said = capsys.readouterr()
    assert "none of Headscale's" in said.err
    assert said.out == ""


def test_our_own_file_is_called_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("server_url: https://hw.example.com\ntailnet: {base_domain: t.example}\n")
    assert run(["config", "convert", str(path)]) == 1
    assert "a site file of Headwater's already" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("theirs", "words"),
    [
        ({"listen_addr": "127.0.0.1:9090", "metrics_listen_addr": "nowhere"}, "metrics.listen"),
        ({"tls_cert_path": "/etc/tls.crt"}, "tls.key_file"),
        ({"prefixes": {"v4": "10.0.0.0/8"}}, "tailnet.prefixes.v4"),
        ({"server_url": "http://hs.example.com:8080"}, "insist on TLS"),
        ({"server_url": "https://hs.ts.example", "dns": {"base_domain": "ts.example"}}, "base_dom"),
    ],
)
def test_a_result_that_cannot_work_is_refused_in_words(
    theirs: dict[str, Any], words: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """F2: the result goes through ``config check``; what came out is printed for mending."""
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump({**BASE, **theirs}))
    assert run(["config", "convert", str(path)]) == 1
    said = capsys.readouterr()
    assert words in said.err
    assert "server_url" in said.out


LEAVES = (
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False)
    | st.text(max_size=12)
    | st.sampled_from(["[::]:8080", ":http", "1h", "0770", "100.64.0.0/10", "/x", "tls://9.9.9.9"])
)
VALUES = (
    LEAVES | st.lists(LEAVES, max_size=3) | st.dictionaries(st.text(max_size=4), LEAVES, max_size=3)
)


@given(st.dictionaries(st.sampled_from(sorted(DISTINCTIVE)), VALUES, max_size=8))
def test_any_values_are_converted_or_refused(flat: dict[str, object]) -> None:
    """A value of another type than Headscale wants is no traceback."""
    document: dict[object, object] = {}
    for key, value in flat.items():
        *sections, name = key.split(".")
        place: Any = document
        for section in sections:
            place = place.setdefault(section, {})
        place[name] = value
    ours, said = from_headscale(document, Path("/etc/headscale"))
    assert all(isinstance(each, str) for each in said)
    with contextlib.suppress(config.ConfigError):
        config.build(ours)
