"""The NixOS modules: what their options do to units, firewall, secrets, upgrades and nodes."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from appliance.cli.root import run
from appliance.config import build, load
from tests.deploy.unitfile import Unit, parse
from tests.nix.evaluation import LIBRARIES, ROOT, Box, EvaluationError, box, needs_nix

pytestmark = [needs_nix, pytest.mark.parametrize("nixpkgs", LIBRARIES)]

SETTINGS: dict[str, Any] = {
    "server_url": "https://hw.example.com",
    "tls": {"mode": "local_ca"},
    "tailnet": {"base_domain": "tailnet.example.net"},
}


def server(
    nixpkgs: str,
    *,
    more: Path | None = None,
    around: dict[str, str] | None = None,
    **changes: Any,
) -> Box:
    definition = {"enable": True, "settings": SETTINGS, **changes}
    return box(definition, more=more, nixpkgs=nixpkgs, **(around or {}))


def words(found: Box, name: str, key: str) -> list[str]:
    """Give the words of a list of units, however its lines are cut."""
    return " ".join(unit(found, name)["Unit", key]).split()


def with_module(home: Path, nixpkgs: str, text: str, **changes: Any) -> Box:
    """Evaluate the server with a module of a user beside it."""
    module = home / "user.nix"
    module.write_text(f"{{ lib, pkgs, ... }}: {{ {text} }}\n")
    return server(nixpkgs, more=module, **changes)


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


def test_port_80_is_open_for_http_01_and_not_for_other_challenges(nixpkgs: str) -> None:
    """The authority asks at the plain listener: its port is open because it is listened on."""
    for challenge, plain, ports in (
        ("auto", [], [443]),
        ("tls-alpn-01", [], [443]),
        ("http-01", ["0.0.0.0:80", "[::]:80"], [80, 443]),
    ):
        tls = {"mode": "acme", "email": "you@example.com", "challenge": challenge}
        settings = {**SETTINGS, "tls": tls, "listen_plain": plain}
        found = server(nixpkgs, openFirewall=True, settings=settings)
        assert found["firewall"]["allowedTCPPorts"] == ports
        assert found["settings"]["tls"] == tls


def test_the_site_file_is_checked_where_it_is_built(nixpkgs: str) -> None:
    found = server(nixpkgs)
    assert "headwater config check site.json" in found["configFile"]
    assert found["etc"] == ["headwater/config.json"]
    assert found["packages"] == ["headwater"]


def test_a_file_that_nix_cannot_read_is_refused_with_the_way_to_do_it(nixpkgs: str) -> None:
    """Ports, sockets and secrets follow from the settings: a file of one's own had them wrong."""
    with pytest.raises(EvaluationError, match=r"configFile: found.*lib\.importTOML"):
        server(nixpkgs, configFile="/etc/site.yaml")


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


@pytest.mark.parametrize("name", ["minimal", "behind-proxy", "relay"])
def test_a_yaml_site_file_is_turned_into_json_for_nix(
    nixpkgs: str, name: str, capsys: pytest.CaptureFixture[str]
) -> None:
    """As docs/nixos.md says, and so does the refusal of `configFile`."""
    yaml = ROOT / "examples" / f"{name}.yaml"
    assert run(["config", "show", "-o", "json", str(yaml)]) == 0
    settings = json.loads(capsys.readouterr().out)
    found = server(nixpkgs, settings=settings, role="relay" if name == "relay" else "server")
    assert build(found["settings"]) == load(yaml)


def test_kernel_settings_can_be_left_alone(nixpkgs: str) -> None:
    assert server(nixpkgs, kernelSettings=False)["sysctl"] == {}


ARGUMENTS = ("headwater", "inputs", "self", "plan", "unit", "facts", "check", "made", "cfg")


def test_what_people_hand_to_their_modules_is_no_matter_of_ours(nixpkgs: str) -> None:
    """`specialArgs = inputs` with an input of our name, as the page calls it, broke the module."""
    plain = server(nixpkgs, openFirewall=True, role="relay", around={"inputs": "[]"})
    names = json.dumps(ARGUMENTS)
    busy = server(nixpkgs, openFirewall=True, role="relay", around={"inputs": names})
    assert busy == plain


def test_an_upgrade_that_ends_badly_goes_back(nixpkgs: str) -> None:
    found = server(nixpkgs, upgrade={"enable": True, "flake": "github:example/machines#vps"})
    assert found["autoUpgrade"]["flake"] == "github:example/machines#vps"
    script = found["postStart"]["nixos-upgrade"]
    assert "/bin/headwater health" in script
    assert "is-active --quiet headwater.service" in script
    assert "-nixos-rebuild/bin/nixos-rebuild switch --rollback" in script
    calm = {"enable": True, "flake": "x", "rollback": False}
    assert server(nixpkgs, upgrade=calm)["postStart"]["nixos-upgrade"] == ""


def test_a_relay_has_a_way_back_too(nixpkgs: str) -> None:
    upgrade = {"enable": True, "flake": "github:example/machines#relay"}
    script = server(nixpkgs, role="relay", upgrade=upgrade)["postStart"]["nixos-upgrade"]
    assert "is-active --quiet headwater-relay.service" in script
    assert "headwater health" not in script, "there is no local socket to ask"
    assert "switch --rollback" in script


NODE: dict[str, Any] = {
    "enable": True,
    "serverUrl": "https://hw.example.com",
    "authKeyFile": "/run/secrets/key",
}


def tailscale(nixpkgs: str, **changes: Any) -> Any:
    return box(node={**NODE, **changes}, nixpkgs=nixpkgs)["tailscale"]


def test_a_node_enrols_with_a_key_file(nixpkgs: str) -> None:
    found = box(
        node={
            **NODE,
            "hostname": "web-1",
            "routes": ["192.168.1.0/24", "10.1.0.0/16"],
            "exitNode": True,
            "extraFlags": ["--advertise-tags=tag:web"],
            "caFile": "/etc/ssl/hw-ca.pem",
        },
        nixpkgs=nixpkgs,
    )
    assert found["tailscale"]["authKeyFile"] == "/run/secrets/key"
    assert found["tailscale"]["useRoutingFeatures"] == "server"
    assert found["tailscale"]["extraUpFlags"] == [
        "--login-server=https://hw.example.com",
        "--hostname=web-1",
        "--advertise-routes=192.168.1.0/24,10.1.0.0/16",
        "--advertise-exit-node=true",
        "--advertise-tags=tag:web",
    ]
    assert found["environment"]["tailscaled"] == {"SSL_CERT_FILE": "/etc/ssl/hw-ca.pem"}


def test_what_changes_later_on_a_node_is_set_later(nixpkgs: str) -> None:
    """`tailscale up` of NixOS's unit is for a node that is not enrolled; `set` is for every start."""
    found = tailscale(
        nixpkgs,
        hostname="web-2",
        routes=["10.0.0.0/8"],
        exitNode=True,
        acceptRoutes=True,
        useExitNode="gateway",
        extraSetFlags=["--ssh"],
    )
    assert found["extraSetFlags"] == [
        "--hostname=web-2",
        "--advertise-routes=10.0.0.0/8",
        "--advertise-exit-node=true",
        "--accept-routes=true",
        "--exit-node=gateway",
        "--ssh",
    ]
    # What was taken out of the configuration is taken back on the node.
    assert tailscale(nixpkgs)["extraSetFlags"] == [
        "--hostname=",
        "--advertise-routes=",
        "--advertise-exit-node=false",
    ]


@pytest.mark.parametrize(
    ("node", "features"),
    [
        ({}, None),
        ({"routes": ["10.0.0.0/8"]}, "server"),
        ({"exitNode": True}, "server"),
        ({"acceptRoutes": True}, "client"),
        ({"acceptRoutes": False}, None),
        ({"useExitNode": "gateway"}, "client"),
        ({"useExitNode": ""}, None),
        ({"acceptRoutes": True, "exitNode": True}, "both"),
    ],
)
def test_the_kernel_is_set_up_for_what_the_node_does(
    node: dict[str, Any], features: str | None, nixpkgs: str
) -> None:
    assert tailscale(nixpkgs, **node).get("useRoutingFeatures") == features


def test_a_node_may_be_logged_in_by_hand(nixpkgs: str) -> None:
    found = tailscale(nixpkgs, authKeyFile=None, routes=["10.0.0.0/8"])
    assert "authKeyFile" not in found
    assert "--advertise-routes=10.0.0.0/8" in found["extraSetFlags"]


def test_options_of_the_client_reach_it(nixpkgs: str) -> None:
    found = tailscale(nixpkgs, port=41642, interfaceName="hw0", permitCertUid="caddy")
    assert (found["port"], found["interfaceName"], found["permitCertUid"]) == (
        41642,
        "hw0",
        "caddy",
    )
    assert {"port", "interfaceName", "permitCertUid"}.isdisjoint(tailscale(nixpkgs))


def test_limits_are_changed_without_force(nixpkgs: str, tmp_path: Path) -> None:
    text = 'MemoryMax = "2G"; TasksMax = 512; LimitNOFILE = 1024; TimeoutStopSec = 5; '
    for name in ("headwater", "headwater-relay"):
        separate = {"separate": True, "listen": ["0.0.0.0:8443"]}
        found = with_module(
            tmp_path,
            nixpkgs,
            f"systemd.services.{name}.serviceConfig = {{ {text} }};",
            settings={**SETTINGS, "derp": {"server": separate}},
        )
        service = unit(found, f"{name}.service")
        for key, value in (("MemoryMax", "2G"), ("TasksMax", "512"), ("LimitNOFILE", "1024")):
            assert service["Service", key] == [value]


def test_who_the_service_is_needs_force(nixpkgs: str, tmp_path: Path) -> None:
    text = 'systemd.services.headwater.serviceConfig.UMask = "0000";'
    with pytest.raises(EvaluationError, match="conflicting"):
        with_module(tmp_path, nixpkgs, text)


def test_a_user_and_a_group_of_ones_own(nixpkgs: str) -> None:
    found = server(nixpkgs, user="vpn", group="admins")
    service = unit(found, "headwater.service")
    assert service["Service", "User"] == ["vpn"]
    assert service["Service", "Group"] == ["admins"]
    local = unit(found, "headwater-local.socket")
    assert local["Socket", "SocketUser"] == ["vpn"]
    assert local["Socket", "SocketGroup"] == ["admins"]
    # Whoever names others makes them.
    assert found["users"] == {"users": {}, "groups": {}}
    half = server(nixpkgs, group="admins")
    assert half["users"]["users"]["headwater"]["group"] == "admins"
    assert half["users"]["groups"] == {}


ACME = 'security.acme.certs."hw.example.com" = { dnsProvider = "rfc2136"; group = "certs"; };'


def test_a_certificate_of_nixos_needs_one_word(nixpkgs: str, tmp_path: Path) -> None:
    """The first start has a certificate, and a renewed one reloads."""
    settings = {**SETTINGS, "tls": {}}
    found = with_module(tmp_path, nixpkgs, ACME, useACMEHost="hw.example.com", settings=settings)
    assert found["failed"] == []
    assert found["settings"]["tls"] == {
        "cert_file": "/var/lib/acme/hw.example.com/fullchain.pem",
        "key_file": "/var/lib/acme/hw.example.com/key.pem",
    }
    service = unit(found, "headwater.service")
    assert service["Service", "SupplementaryGroups"] == ["certs"]
    assert "acme-hw.example.com.service" in words(found, "headwater.service", "After")
    assert "acme-hw.example.com.service" in words(found, "headwater.service", "Wants")
    assert found["reloads"] == {"hw.example.com": ["headwater.service"]}


def test_a_certificate_reaches_every_service(nixpkgs: str, tmp_path: Path) -> None:
    separate = {"separate": True, "listen": ["0.0.0.0:8443"]}
    settings = {**SETTINGS, "tls": {}, "derp": {"server": separate}}
    found = with_module(tmp_path, nixpkgs, ACME, useACMEHost="hw.example.com", settings=settings)
    both = ["headwater.service", "headwater-relay.service"]
    assert found["reloads"] == {"hw.example.com": both}
    for name in both:
        assert "acme-hw.example.com.service" in words(found, name, "After")


@pytest.mark.parametrize(
    ("cert", "changes", "missing"),
    [
        ("other.example.com", {}, "hw.example.com"),
        ("example.com", {}, "hw.example.com"),
        (
            "hw.example.com",
            {"derp": {"server": {"host": "relay.example.com"}}},
            "relay.example.com",
        ),
    ],
)
def test_a_certificate_that_clients_would_refuse_is_refused(
    cert: str, changes: dict[str, Any], missing: str, nixpkgs: str, tmp_path: Path
) -> None:
    settings = {**SETTINGS, "tls": {}, **changes}
    with pytest.raises(EvaluationError, match=f"allowed: one for {missing}"):
        with_module(tmp_path, nixpkgs, "", useACMEHost=cert, settings=settings)


@pytest.mark.parametrize(
    "cert",
    [
        'certs."example.com".extraDomainNames = [ "hw.example.com" ];',
        'certs."example.com" = { domain = "*.example.com"; };',
    ],
)
def test_a_certificate_for_more_names_is_taken(cert: str, nixpkgs: str, tmp_path: Path) -> None:
    found = with_module(
        tmp_path,
        nixpkgs,
        f"security.acme.{cert}",
        useACMEHost="example.com",
        settings={**SETTINGS, "tls": {}},
    )
    assert found["settings"]["tls"]["key_file"] == "/var/lib/acme/example.com/key.pem"


def test_a_relay_s_certificate_is_for_the_relay(nixpkgs: str, tmp_path: Path) -> None:
    settings = {**SETTINGS, "tls": {}, "derp": {"server": {"host": "relay.example.com"}}}
    found = with_module(
        tmp_path, nixpkgs, "", role="relay", useACMEHost="relay.example.com", settings=settings
    )
    assert found["reloads"] == {"relay.example.com": ["headwater-relay.service"]}


@pytest.mark.parametrize(
    ("url", "waits"),
    [
        ("postgresql:///hw", True),
        ("postgresql:///hw?host=/run/postgresql", True),
        ("postgresql:///hw?host=%2Frun%2Fpostgresql", True),
        ("postgresql://hw@localhost/hw", True),
        ("postgresql://hw@127.0.0.1:5432/hw", True),
        ("postgres://hw@[::1]/hw", True),
        ("postgresql://hw@db.example.net/hw", False),
        ("postgresql:///hw?host=db.example.net", False),
        ("postgresql://hw@localhost.example.net/hw", False),
        ("postgresql://hw@a:5432,b:5432/hw", False),
        ("", False),
    ],
)
def test_the_server_starts_after_a_database_of_this_machine(
    url: str, waits: bool, nixpkgs: str, tmp_path: Path
) -> None:
    def after(text: str) -> bool:
        found = with_module(tmp_path, nixpkgs, text, settings={**SETTINGS, "database_url": url})
        before = set(words(found, "headwater.service", "After"))
        return {"postgresql.service", "postgresql.target"} <= before

    assert after("services.postgresql.enable = true;") is waits
    assert not after(""), "no database of this machine, no order"


def test_the_package_needs_no_overlay(nixpkgs: str) -> None:
    """The stand-in for pkgs has none; an overlay, where there is one, goes first."""
    program = unit(server(nixpkgs), "headwater.service")["Service", "ExecStart"][0]
    assert program.startswith("/nix/store/00000000000000000000000000000000-headwater/bin/")
    assert server(nixpkgs, around={"overlay": "coreutils"})["packages"] == ["coreutils"]


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
