"""The settings tree: what is read, what is refused, and that every mistake is named at once."""

from __future__ import annotations

import contextlib
import json
from datetime import date
from ipaddress import IPv4Network
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from appliance import config
from appliance.config import reader, yamlfile
from appliance.config.reader import Endpoint, FileMode

MINIMAL: dict[str, Any] = {"server_url": "https://hw.example.com", "tls": {"mode": "local_ca"}}


def mistakes(**changes: Any) -> dict[str, str]:
    """Build settings that must be refused; give the mistakes by path."""
    with pytest.raises(config.ConfigError) as refusal:
        config.build({**MINIMAL, **changes})
    return {mistake.path: str(mistake) for mistake in refusal.value.mistakes}


def test_minimal_file_has_defaults() -> None:
    settings = config.build(MINIMAL)
    assert settings.host == "hw.example.com"
    assert settings.port == 443
    assert settings.database == "sqlite:////var/lib/headwater/headwater.db"
    assert settings.tailnet.prefixes.v4 == IPv4Network("100.64.0.0/10")
    assert settings.tailnet.key_expiry is None
    assert settings.derp.server.enabled


@pytest.mark.parametrize("ending", ["yaml", "json", "toml"])
def test_formats_read_the_same(tmp_path: Path, ending: str) -> None:
    texts = {
        "yaml": "server_url: https://hw.example.com\ntls: {mode: local_ca}\n",
        "json": json.dumps(MINIMAL),
        "toml": 'server_url = "https://hw.example.com"\n[tls]\nmode = "local_ca"\n',
    }
    path = tmp_path / f"site.{ending}"
    path.write_text(texts[ending])
    assert config.load(path) == config.build(MINIMAL)


def test_all_mistakes_are_named_at_once() -> None:
    found = mistakes(
        server_url="ftp://x",
        tls={"mode": "fils", "cert_fil": "/x"},
        tailnet={"key_expiry": "3 days", "prefixes": {"v4": "10.0.0.0/8"}},
        log={"level": "warn"},
        listen="0.0.0.0:443",
    )
    assert set(found) == {
        "server_url",
        "tls.mode",
        "tls.cert_fil",
        "tailnet.key_expiry",
        "tailnet.prefixes.v4",
        "log.level",
        "listen",
        "tls.cert_file",
        "tls.key_file",
    }
    assert "did you mean 'cert_file'?" in found["tls.cert_fil"]
    assert "did you mean 'files'?" in found["tls.mode"]
    assert "30d" in found["tailnet.key_expiry"]


@pytest.mark.parametrize(
    ("changes", "path", "says"),
    [
        ({"listen_addr": ":8080"}, "listen_addr", "'listen'"),
        ({"prefixes": {"v4": "100.64.0.0/10"}}, "prefixes", "tailnet.prefixes"),
        ({"dns": {"base_domain": "x.y"}}, "dns.base_domain", "tailnet.base_domain"),
        ({"database_password": "hunter2"}, "database_password", "database_password_file"),
    ],
)
def test_renamed_key_names_its_successor(changes: dict[str, Any], path: str, says: str) -> None:
    found = mistakes(**changes)
    assert says in found[path]
    assert "hunter2" not in str(found)


@pytest.mark.parametrize(
    ("changes", "path"),
    [
        ({"server_url": "https://hw.example.com/path"}, "server_url"),
        ({"server_url": "http://hw.example.com"}, "server_url"),
        ({"server_url": "https://user@hw.example.com"}, "server_url"),
        ({"server_url": "https://hw.example.com:99999"}, "server_url"),
        ({"server_url": "https://[::1"}, "server_url"),
        ({"listen": []}, "listen"),
        ({"listen": ["127.0.0.1"]}, "listen[0]"),
        ({"listen": ["::1:80"]}, "listen[0]"),
        ({"database_url": "mysql://x"}, "database_url"),
        ({"database_url": "postgresql://u:secret@h/d"}, "database_url"),
        ({"trusted_proxies": ["0.0.0.0/0"]}, "trusted_proxies[0]"),
        ({"proxy_protocol": True}, "trusted_proxies"),
        ({"tls": {"mode": "off", "cert_file": "/x"}}, "tls.mode"),
        ({"tailnet": {"base_domain": "example.com"}}, "tailnet.base_domain"),
        ({"tailnet": {"base_domain": "Up.example"}}, "tailnet.base_domain"),
        ({"tailnet": {"name": "Not A Label"}}, "tailnet.name"),
        ({"tailnet": {"prefixes": {"v4": None, "v6": None}}}, "tailnet.prefixes"),
        ({"tailnet": {"prefixes": {"v6": "fd00::/48"}}}, "tailnet.prefixes.v6"),
        ({"tailnets": [{"name": "default", "base_domain": "b.c"}]}, "tailnets[0].name"),
        ({"tailnets": [{"name": "other"}]}, "tailnets[0].base_domain"),
        ({"dns": {"override_local_dns": True}}, "dns.nameservers.global"),
        ({"dns": {"extra_records": [{"name": "a", "value": "::1"}]}}, "dns.extra_records[0].value"),
        ({"derp": {"regions": [{"id": 999, "code": "x"}]}}, "derp.regions[0].code"),
        ({"derp": {"regions": [{"id": 70000, "code": "x"}]}}, "derp.regions[0].id"),
        (
            {"derp": {"server": {"mesh": {"peers": ["https://a/derp"]}}}},
            "derp.server.mesh.key_file",
        ),
        ({"derp": {"server": {"can_port80": True}}}, "derp.server.ipv4"),
        ({"tailnet": {"policy": {"mode": "file"}}}, "tailnet.policy.path"),
        ({"tailnet": {"policy": {"mode": "file", "path": "p.hujson"}}}, "tailnet.policy.path"),
        ({"tailnet": {"policy": {"path": "/p.hujson"}}}, "tailnet.policy.mode"),
        ({"tailnet": {"policy": {"text": "{}"}}}, "tailnet.policy.mode"),
        ({"tailnet": {"policy": {"document": {}}}}, "tailnet.policy.mode"),
        ({"tailnet": {"policy": {"mode": "settings"}}}, "tailnet.policy.mode"),
        (
            {"tailnet": {"policy": {"mode": "settings", "text": "{}", "document": {}}}},
            "tailnet.policy.mode",
        ),
        ({"tailnet": {"policy": {"mode": "files"}}}, "tailnet.policy.mode"),
        (
            {"tailnet": {"policy": {"mode": "settings", "document": {"acls": [date(2026, 1, 1)]}}}},
            "tailnet.policy.document.acls[0]",
        ),
        ({"tailnet": {"email_domains": ["Example.com"]}}, "tailnet.email_domains[0]"),
        ({"tailnet": {"email_domains": ["alice@example.com"]}}, "tailnet.email_domains[0]"),
        ({"policy": {"path": "/p.hujson"}}, "policy"),
        ({"socket": {"mode": 770}}, "socket.mode"),
        ({"socket": {"mode": "rwx"}}, "socket.mode"),
    ],
)
def test_mistake_in_meaning_is_refused(changes: dict[str, Any], path: str) -> None:
    found = mistakes(**changes)
    assert path in found
    assert "secret" not in str(found)


def test_a_policy_as_values_of_the_file_is_read_as_it_is(tmp_path: Path) -> None:
    document = {"groups": {"group:a": ["b@example.com"]}, "acls": [], "disableIPv4": True}
    policy = {"mode": "settings", "document": document}
    for name, text in {
        "a.json": json.dumps({**MINIMAL, "tailnet": {"policy": policy}}),
        "a.yaml": yamlfile.dump({**MINIMAL, "tailnet": {"policy": policy}}),
        "a.toml": (
            'server_url = "https://hw.example.com"\n[tls]\nmode = "local_ca"\n'
            '[tailnet.policy]\nmode = "settings"\n'
            "[tailnet.policy.document]\nacls = []\ndisableIPv4 = true\n"
            'groups = {"group:a" = ["b@example.com"]}\n'
        ),
    }.items():
        (tmp_path / name).write_text(text)
        settings = config.load(tmp_path / name)
        assert settings.tailnet.policy.document == document
        assert config.build(reader.to_plain(settings)) == settings


def test_aliases_cannot_make_a_policy_large() -> None:
    inner: list[object] = [1] * 9
    for _ in range(11):
        inner = [inner] * 9
    document = {"acls": inner}
    found = mistakes(tailnet={"policy": {"mode": "settings", "document": document}})
    assert any("levels and 100000 values" in each for each in found.values())
    deep: object = []
    for _ in range(100):
        deep = [deep]
    found = mistakes(tailnet={"policy": {"mode": "settings", "document": {"acls": deep}}})
    assert any("32 levels" in each for each in found.values())


def test_yaml_traps_are_read_as_meant() -> None:
    text = "server_url: http://localhost\ntls: {mode: off}\nsocket: {mode: 0770}\n"
    settings = config.build(yamlfile.parse(text))
    assert settings.tls.mode == "off"
    assert settings.socket.mode == 0o770


def test_repeated_yaml_key_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "site.yaml"
    path.write_text("server_url: https://a\nserver_url: https://b\n")
    with pytest.raises(config.ConfigError, match="line 2, column 1: the key 'server_url' is there"):
        config.load(path)


@pytest.mark.parametrize("text", ["{", "[]", "\x00", "a: [1", "&a [*a]", "!!python/object:os.x {}"])
def test_broken_file_is_a_config_error(tmp_path: Path, text: str) -> None:
    for ending in (".yaml", ".json", ".toml"):
        path = tmp_path / f"site{ending}"
        path.write_text(text)
        with pytest.raises(config.ConfigError):
            config.load(path)


def test_missing_and_strange_files_are_config_errors(tmp_path: Path) -> None:
    for name in ("absent.yaml", "site.ini"):
        with pytest.raises(config.ConfigError, match="allowed"):
            config.load(tmp_path / name)
    big = tmp_path / "big.json"
    big.write_bytes(b" " * (config.MAX_FILE_BYTES + 1))
    with pytest.raises(config.ConfigError, match="1 MiB"):
        config.load(big)


def test_show_and_build_agree() -> None:
    settings = config.build(
        {
            **MINIMAL,
            "listen": ["[::1]:8443"],
            "tailnet": {"key_expiry": "180d", "ephemeral_timeout": "1h30m"},
            "dns": {"nameservers": {"global": ["1.1.1.1"], "split": {"corp": ["10.0.0.1"]}}},
            "derp": {"regions": [{"id": 1, "code": "x", "nodes": [{"host": "h"}]}]},
        }
    )
    assert config.build(yamlfile.parse(yamlfile.dump(reader.to_plain(settings)))) == settings


@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | st.text(max_size=8),
        lambda inner: (
            st.lists(inner, max_size=3)
            | st.dictionaries(st.sampled_from([*MINIMAL, "listen", "dns", "derp", "x"]), inner)
        ),
        max_leaves=12,
    )
)
def test_any_document_gives_settings_or_a_config_error(document: object) -> None:
    with contextlib.suppress(config.ConfigError):
        config.build(document)


def test_endpoints_and_modes() -> None:
    assert Endpoint.parse(":443") == ("", 443)
    assert Endpoint.parse("[::]:0") == ("::", 0)
    assert str(Endpoint("::", 443)) == "[::]:443"
    assert FileMode.parse("0660") == 0o660
    assert str(FileMode(0o660)) == "0660"


def test_relative_secret_is_a_systemd_credential(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CREDENTIALS_DIRECTORY", str(tmp_path))
    (tmp_path / "db").write_text("swordfish\n")
    assert config.read_secret(Path("db")) == "swordfish"
    assert config.read_secret(tmp_path / "db") == "swordfish"


SECRET = "hunter2"


@pytest.mark.parametrize(
    "changes",
    [
        {"database_url": f"postgresql://h/db?password={SECRET}&user=x"},
        {"database_url": f"postgresql://h/db?user=x&sslpassword={SECRET}"},
        {"database_url": f"postgresql://h/db?p%61ssword={SECRET}"},
        {"database_url": f"postgresql://h/db?oauth_client_secret={SECRET}"},
        {"database_url": f"postgresql://h/db?scram_client_key={SECRET}"},
        {"database_url": f"postgresql://u:{SECRET}@h/db"},
        {"database_url": f"postgresql://u:a/{SECRET}#x@h/db"},
        {"database_url": f"postgresql://u@h:{SECRET}@h2/db"},
        {"database_url": f"u:{SECRET}@h/db"},
        {"database_url": f"mysql://u:{SECRET}@h/db"},
        {"database_url": [f"postgresql://u:{SECRET}@h/db"]},
        {"server_url": f"https://u:{SECRET}@hw.example.com"},
        {"server_url": {"url": f"https://u:{SECRET}@hw.example.com"}},
        {"derp": {"server": {"mesh": {"peers": [f"https://u:{SECRET}@b.example.com/derp"]}}}},
        {"derp": {"server": {"mesh": {"peers": f"https://u:{SECRET}@b.example.com/derp"}}}},
        {"tls": {"mode": "local_ca", "password": SECRET, "mdoe": SECRET}},
        {"database_password": SECRET},
        {"database_password_file": {"password": SECRET}},
        {"tls": {"mode": "files", "key_file": f"-----BEGIN PRIVATE KEY-----\n{SECRET}\n"}},
        {"listen": [f"u:{SECRET}@hw.example.com"]},
        {"trusted_proxies": [f"http://u:{SECRET}@proxy"]},
    ],
)
def test_a_refusal_shows_no_secret(changes: dict[str, Any]) -> None:
    """H12: nor does it let one pass, which ``config show`` would print."""
    said = str(mistakes(**changes))
    assert SECRET not in said


@pytest.mark.parametrize(
    "changes",
    [
        {"derp": {"server": {"bytes_per_second": 10**5000}}},
        {"tailnet": {"policy": {"mode": "settings", "document": {"a": 0x1 << 80000}}}},
        {"tailnet": {"policy": {"mode": "settings", "document": {"a": float("nan")}}}},
        {"tailnet": {"policy": {"mode": "settings", "document": {"a": "\ud800"}}}},
        {"derp": {"regions": [{"id": 5, "code": "x", "latitude": 10**400}]}},
        {"derp": {"regions": [{"id": 5, "code": "x", "latitude": float("inf")}]}},
        {"dns": {"search_domains": ["a\0b"]}},
        {"dns": {"search_domains": ["a\ud800b"]}},
        {"state_dir": "/var/lib/x\ny"},
        {"state_dir": "/" + "x" * 5000},
        {"listen": [[["x" * 100_000] * 100] * 100]},
        {"x" * 100_000: 1},
        {str(i): i for i in range(100_000)},
    ],
)
def test_a_value_that_nothing_can_carry_is_refused_in_few_words(changes: dict[str, Any]) -> None:
    """H8: what is shown of a value is cut, whatever it is."""
    assert len(str(mistakes(**changes))) < 100_000
