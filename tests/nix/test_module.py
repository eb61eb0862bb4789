"""The NixOS modules: what their options do to units, firewall, secrets, upgrades and nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from tests.deploy.unitfile import Unit, parse
from tests.nix.evaluation import LIBRARIES, ROOT, Box, EvaluationError, box, needs_nix

pytestmark = [needs_nix, pytest.mark.parametrize("nixpkgs", LIBRARIES)]

SETTINGS: dict[str, Any] = {
    "server_url": "https://hw.example.com",
    "tls": {"mode": "local_ca"},
    "tailnet": {"base_domain": "tailnet.example.net"},
}


def server(nixpkgs: str, *, more: Path | None = None, **changes: Any) -> Box:
    definition = {"enable": True, "settings": SETTINGS, **changes}
    return box(definition, more=more, nixpkgs=nixpkgs)


def unit(found: Box, name: str) -> Unit:
    return parse(found["units"][name])


def test_off_means_nothing_at_all(nixpkgs: str) -> None:
    found = box({}, nixpkgs=nixpkgs)
    assert found["units"] == {}
    assert found["users"]["users"] == {}
    assert found["etc"] == []
    assert found["sysctl"] == {}


def test_the_firewall_stays_closed_unless_told(nixpkgs: str) -> None:
    assert server(nixpkgs)["firewall"]["allowedTCPPorts"] == []
    found = server(
        nixpkgs,
        openFirewall=True,
        settings={**SETTINGS, "listen_plain": [":80"], "metrics": {"listen": "127.0.0.1:9090"}},
    )
    assert found["firewall"]["allowedTCPPorts"] == [80, 443]
    assert found["firewall"]["allowedUDPPorts"] == [3478]


def test_the_site_file_is_checked_where_it_is_built(nixpkgs: str) -> None:
    found = server(nixpkgs)
    assert "headwater config check site.json" in found["configFile"]
    assert found["etc"] == ["headwater/config.json"]
    assert found["packages"] == ["headwater"]


def test_a_file_of_ones_own_is_taken_as_it_is(nixpkgs: str) -> None:
    assert server(nixpkgs, configFile="/etc/site.yaml")["configFile"] == ""


def test_a_warm_setting_reloads_and_a_cold_one_restarts(nixpkgs: str) -> None:
    def triggers(**changes: Any) -> Any:
        return server(nixpkgs, settings={**SETTINGS, **changes})["triggers"]["headwater"]

    before = triggers()
    assert before["reload"] == ["headwater-config.json"]
    assert before["stopIfChanged"] is False
    assert triggers(log={"level": "debug"})["restart"] == before["restart"]
    assert triggers(derp={"server": {"region_name": "Here"}})["restart"] == before["restart"]
    assert triggers(derp={"server": {"bytes_per_second": 9}})["restart"] != before["restart"]
    assert triggers(metrics={"listen": "127.0.0.1:1"})["restart"] != before["restart"]


def test_changed_sockets_are_restarted_and_only_they(nixpkgs: str) -> None:
    def trigger(**changes: Any) -> Any:
        found = server(nixpkgs, settings={**SETTINGS, **changes})
        return found["triggers"]["headwater-sockets"]["reload"]

    before = trigger()
    assert trigger(log={"level": "debug"}) == before
    assert trigger(database_url="postgresql://hw@db/hw") == before
    assert trigger(listen=["0.0.0.0:8443"]) != before
    assert trigger(metrics={"listen": "127.0.0.1:1"}) != before
    found = unit(server(nixpkgs), "headwater-sockets.service")
    [reload] = found["Service", "ExecReload"]
    assert reload.endswith("/bin/systemctl try-restart headwater*.socket")


def test_secrets_are_credentials_and_never_settings(nixpkgs: str) -> None:
    found = server(
        nixpkgs,
        settings={
            **SETTINGS,
            "database_url": "postgresql://hw@db/hw",
            "database_password_file": "database-password",
        },
        secrets={"database-password": "/run/secrets/hw-db"},
    )
    credentials = unit(found, "headwater.service")["Service", "LoadCredential"]
    assert credentials == ["database-password:/run/secrets/hw-db"]
    assert "/run/secrets" not in json.dumps(found["settings"])


def test_a_separate_relay_is_a_unit_of_its_own(nixpkgs: str) -> None:
    separate = {"separate": True, "listen": ["0.0.0.0:8443"]}
    found = server(nixpkgs, settings={**SETTINGS, "derp": {"server": separate}})
    assert set(found["units"]) == {
        "headwater.service",
        "headwater.socket",
        "headwater-local.socket",
        "headwater-sockets.service",
        "headwater-relay.service",
        "headwater-relay.socket",
        "headwater-relay-stun.socket",
    }
    relay = unit(found, "headwater-relay.service")
    assert relay["Service", "ExecStart"][0].endswith("relay -c /etc/headwater/config.json")


def test_a_relay_host_runs_the_relay_only(nixpkgs: str) -> None:
    found = server(nixpkgs, role="relay", openFirewall=True)
    assert "headwater.service" not in found["units"]
    assert found["firewall"]["allowedUDPPorts"] == [3478]


def test_a_toml_site_file_is_read_by_nix_itself(nixpkgs: str, tmp_path: Path) -> None:
    module = tmp_path / "site.nix"
    file = ROOT / "examples" / "large.toml"
    module.write_text(
        "{ lib, ... }: { services.headwater = { enable = true;"
        f" settings = lib.importTOML {file};"
        ' secrets.database-password = "/run/secrets/db"; }; }\n'
    )
    found = box(more=module, nixpkgs=nixpkgs)
    assert found["settings"]["tailnets"] == [
        {"name": "lab", "base_domain": "lab.example.net", "ephemeral_timeout": "10m"}
    ]


def test_kernel_settings_can_be_left_alone(nixpkgs: str) -> None:
    assert server(nixpkgs, kernelSettings=False)["sysctl"] == {}


def test_an_upgrade_that_ends_badly_goes_back(nixpkgs: str) -> None:
    found = server(nixpkgs, upgrade={"enable": True, "flake": "github:example/machines#vps"})
    assert found["autoUpgrade"]["flake"] == "github:example/machines#vps"
    script = found["postStart"]["nixos-upgrade"]
    assert "/bin/headwater health" in script
    assert "switch --rollback" in script
    calm = {"enable": True, "flake": "x", "rollback": False}
    assert server(nixpkgs, upgrade=calm)["postStart"]["nixos-upgrade"] == ""


def test_a_node_enrols_with_a_key_file(nixpkgs: str) -> None:
    found = box(
        node={
            "enable": True,
            "serverUrl": "https://hw.example.com",
            "authKeyFile": "/run/secrets/key",
            "hostname": "web-1",
            "routes": ["192.168.1.0/24", "10.1.0.0/16"],
            "exitNode": True,
            "extraFlags": ["--ssh"],
            "caFile": "/etc/ssl/hw-ca.pem",
        },
        nixpkgs=nixpkgs,
    )
    tailscale = found["tailscale"]
    assert tailscale["authKeyFile"] == "/run/secrets/key"
    assert tailscale["useRoutingFeatures"] == "server"
    assert tailscale["extraUpFlags"] == [
        "--login-server=https://hw.example.com",
        "--hostname=web-1",
        "--advertise-routes=192.168.1.0/24,10.1.0.0/16",
        "--advertise-exit-node",
        "--ssh",
    ]
    assert found["environment"]["tailscaled"] == {"SSL_CERT_FILE": "/etc/ssl/hw-ca.pem"}


def test_two_modules_may_say_parts_of_the_settings(nixpkgs: str, tmp_path: Path) -> None:
    module = tmp_path / "part.nix"
    module.write_text(
        "{ lib, ... }: { services.headwater.settings = {"
        ' dns.search_domains = [ "example.net" ]; log.level = lib.mkForce "warning"; }; }\n'
    )
    found = server(nixpkgs, more=module, settings={**SETTINGS, "log": {"level": "debug"}})
    assert found["settings"]["log"] == {"level": "warning"}
    assert found["settings"]["dns"] == {"search_domains": ["example.net"]}


def test_one_key_said_twice_differently_is_refused(nixpkgs: str, tmp_path: Path) -> None:
    module = tmp_path / "part.nix"
    module.write_text('{ services.headwater.settings.log.level = "info"; }\n')
    with pytest.raises(EvaluationError, match="conflicting definition values"):
        server(nixpkgs, more=module, settings={**SETTINGS, "log": {"level": "debug"}})
