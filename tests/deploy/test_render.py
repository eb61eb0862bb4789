"""What a site puts on a machine: units, sockets, firewall, users."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from appliance.config import ConfigError, Settings, build, load
from appliance.deploy import facts, firewall, plan
from appliance.deploy.document import PLACE, text
from appliance.deploy.render import Rendered, render
from appliance.deploy.units import Host
from tests.deploy.unitfile import Unit, parse
from tests.support.examples import SITES

EXAMPLES = Path(__file__).parents[2] / "examples"
UNITS = facts.UNIT_DIR


def site(**more: object) -> Settings:
    """Make settings of a public server with something changed."""
    base = {"server_url": "https://hw.example.com", "tls": {"mode": "local_ca"}}
    return build({**base, **more})


def rendered(settings: Settings, **host: object) -> Rendered:
    return render(plan.make(settings), Host(**host))  # type: ignore[arg-type]  # names of fields


def unit(box: Rendered, name: str) -> Unit:
    return parse(box.files[f"{UNITS}/{name}"].text)


def test_facts_json_is_current() -> None:
    assert PLACE.read_text() == text(), "write it anew: make docs"


@pytest.mark.parametrize("path", SITES, ids=lambda path: path.name)
def test_every_example_renders(path: Path) -> None:
    role: plan.Role = "relay" if path.stem == "relay" else "server"
    box = render(plan.make(load(path), role=role), Host(config=f"/etc/headwater/{path.name}"))
    assert json.loads(json.dumps(box.document()))["files"]
    for name in box.enabled:
        assert f"{UNITS}/{name}" in box.files


def test_the_sockets_carry_the_names_that_the_server_asks_for() -> None:
    settings = site(listen_plain=["0.0.0.0:80"], metrics={"listen": "127.0.0.1:9090"})
    box = rendered(settings)
    names = {
        name.removeprefix(UNITS + "/"): parse(file.text)["Socket", "FileDescriptorName"]
        for name, file in box.files.items()
        if name.endswith(".socket")
    }
    assert names == {
        "headwater.socket": ["listen"],
        "headwater-plain.socket": ["plain"],
        "headwater-local.socket": ["local"],
        "headwater-metrics.socket": ["metrics"],
        "headwater-stun.socket": ["stun"],
    }
    service = unit(box, "headwater.service")
    assert service["Service", "Sockets"] == service["Unit", "Requires"] == list(names)


def test_only_what_strangers_may_reach_is_open() -> None:
    settings = site(
        listen=["0.0.0.0:443", "127.0.0.1:8443"],
        listen_plain=[":80"],
        metrics={"listen": "127.0.0.1:9090"},
    )
    made = plan.make(settings)
    assert made.tcp_ports == (80, 443)
    assert made.udp_ports == (3478,)
    table = rendered(settings).files[facts.FIREWALL_FILE].text
    assert "tcp dport { 22, 80, 443 } accept" in table
    assert "udp dport { 3478 } accept" in table
    assert "flush" not in table


def test_a_separate_relay_is_a_unit_of_its_own() -> None:
    settings = site(derp={"server": {"separate": True, "listen": ["0.0.0.0:8443"]}})
    box = rendered(settings)
    relay = unit(box, "headwater-relay.service")
    assert relay["Service", "ExecStart"] == [f"{facts.PROGRAM} relay -c /etc/headwater/config.yaml"]
    assert "headwater.service" in relay["Unit", "After"]
    assert "headwater.service" not in relay["Unit", "Requires"]
    assert unit(box, "headwater-relay.socket")["Socket", "ListenStream"] == ["0.0.0.0:8443"]
    assert unit(box, "headwater-relay-stun.socket")["Socket", "Service"] == [
        "headwater-relay.service"
    ]
    assert f"{UNITS}/headwater-stun.socket" not in box.files
    assert box.plan.tcp_ports == (443, 8443)


def test_a_relay_beside_the_server_has_metrics_of_its_own() -> None:
    """D3: whatever the file said, no socket was planned, and SIGHUP ended the relay."""
    server = {"separate": True, "listen": ["0.0.0.0:8443"], "metrics_listen": "127.0.0.1:9091"}
    settings = site(derp={"server": server}, metrics={"listen": "127.0.0.1:9090"})
    box = rendered(settings, systemd=252)
    assert unit(box, "headwater-metrics.socket")["Socket", "ListenStream"] == ["127.0.0.1:9090"]
    own = unit(box, "headwater-relay-metrics.socket")
    assert own["Socket", "ListenStream"] == ["127.0.0.1:9091"]
    assert own["Socket", "FileDescriptorName"] == ["metrics"]
    relay = unit(box, "headwater-relay.service")
    assert relay["Service", "Type"] == ["notify"]
    assert "kill -HUP" in relay["Service", "ExecReload"][0]
    new = unit(rendered(settings, systemd=255), "headwater-relay.service")
    assert new["Service", "Type"] == ["notify-reload"]


def test_a_relay_host_has_the_plain_and_metrics_sockets_of_its_file() -> None:
    settings = site(listen_plain=["0.0.0.0:80"], metrics={"listen": "127.0.0.1:9090"})
    made = plan.make(settings, role="relay")
    assert {group.unit: group.stream for group in made.sockets if group.stream} == {
        "headwater-relay": ("0.0.0.0:443", "[::]:443"),
        "headwater-relay-plain": ("0.0.0.0:80",),
        "headwater-relay-metrics": ("127.0.0.1:9090",),
    }


def test_a_relay_host_has_no_server() -> None:
    made = plan.make(load(EXAMPLES / "relay.yaml"), role="relay")
    assert [service.unit for service in made.services] == ["headwater-relay"]
    assert [group.purpose for group in made.sockets] == ["listen", "stun"]


def test_reload_waits_on_old_and_new_systemd() -> None:
    old = unit(rendered(site(), systemd=252), "headwater.service")
    assert old["Service", "Type"] == ["notify"]
    assert len(old["Service", "ExecReload"]) == 2
    new = unit(rendered(site(), systemd=257), "headwater.service")
    assert new["Service", "Type"] == ["notify-reload"]
    assert new["Service", "ExecReload"] == []


def test_secrets_are_credentials_by_name() -> None:
    settings = site(
        tls={"mode": "files", "cert_file": "/etc/ssl/c.pem", "key_file": "tls-key"},
        database_url="postgresql://hw@db/hw",
        database_password_file="database-password",
    )
    made = plan.make(settings, secrets={"tls-key": "/run/secrets/key"})
    assert made.credentials == {
        "database-password": "/etc/headwater/secrets/database-password",
        "tls-key": "/run/secrets/key",
    }
    service = unit(render(made, Host()), "headwater.service")
    assert service["Service", "LoadCredential"] == [
        "database-password:/etc/headwater/secrets/database-password",
        "tls-key:/run/secrets/key",
    ]


def test_port_of_the_metrics_is_opened_only_when_asked_for() -> None:
    """H5: with 0.0.0.0 strangers reached it, and nobody had been asked."""
    made = plan.make(site(metrics={"listen": "0.0.0.0:9090"}))
    assert "headwater-metrics" in [group.unit for group in made.sockets]
    assert 9090 not in made.tcp_ports
    opened = "tcp dport { 443, 9090 } accept"
    assert opened not in firewall.table(made)
    assert opened in firewall.table(made, tcp=(9090,))


def test_a_restart_is_asked_for_only_where_a_reload_is_not_enough() -> None:
    digest = plan.make(site()).restart_digest
    warm = site(log={"level": "debug"}, dns={"search_domains": ["example.net"]})
    assert plan.make(warm).restart_digest == digest
    cold = site(metrics={"listen": "127.0.0.1:9090"})
    assert plan.make(cold).restart_digest != digest
    assert plan.make(site(tailnets=[{"name": "b", "base_domain": "b"}])).restart_digest != digest


@pytest.mark.parametrize(
    ("more", "key"),
    [
        ({"state_dir": "/srv/headwater"}, "state_dir"),
        ({"state_dir": "/var/lib/../../etc"}, "state_dir"),
        ({"database_url": "sqlite:////srv/other.db"}, "database_url"),
        ({"listen": ["hw.example.com:443"]}, "listen"),
        ({"listen": ["0.0.0.0:0"]}, "listen"),
        ({"metrics": {"listen": "0.0.0.0:443"}}, "metrics.listen"),
        ({"socket": {"path": "headwater.sock"}}, "socket.path"),
        (
            {"tailnet": {"policy": {"mode": "file", "path": "/root/acl.hujson"}}},
            "tailnet.policy.path",
        ),
        ({"derp": {"server": {"mesh": {"key_file": "/home/hw/key"}}}}, "derp.server.mesh.key_file"),
        ({"database_url": "postgresql:///hw?host=/tmp"}, "database_url (host)"),
    ],
)
def test_what_the_sandbox_forbids_is_refused_with_its_key(
    more: dict[str, object], key: str
) -> None:
    with pytest.raises(ConfigError) as raised:
        plan.make(site(**more))
    assert [mistake.path for mistake in raised.value.mistakes] == [key]


def test_an_unused_secret_is_refused() -> None:
    with pytest.raises(ConfigError, match="secret oidc"):
        plan.make(site(), secrets={"oidc": "/run/secrets/oidc"})
