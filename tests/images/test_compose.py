"""The compose examples and the quadlet against their site files: ports, addresses, rights, places.

Here by a reader of our own, everywhere; that podman-compose takes them is in the stories, and that
Docker's own reader does in `test_docker_reads.py`.
"""

from __future__ import annotations

import configparser
import re
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import pytest
import yaml

from appliance import config
from appliance.config.settings import Settings
from appliance.deploy import facts

ROOT = Path(__file__).resolve().parents[2]
FOLDERS = sorted(path.parent for path in (ROOT / "examples" / "compose").glob("*/compose.yaml"))
QUADLET = ROOT / "examples" / "quadlet" / "headwater.container"
IMAGE = "localhost/headwater:latest"
STATE = "/var/lib/headwater"
LOW_PORTS = "net.ipv4.ip_unprivileged_port_start=0"

each_example = pytest.mark.parametrize("folder", FOLDERS, ids=lambda folder: folder.name)


def compose(folder: Path) -> dict[str, Any]:
    read: dict[str, Any] = yaml.safe_load((folder / "compose.yaml").read_text())
    return read


def site(folder: Path) -> Settings:
    return config.load(folder / "headwater" / "config.yaml")


def published(service: dict[str, Any]) -> set[str]:
    """The ports inside that are published, each as the number outside, too."""
    found = set()
    for each in service.get("ports", []):
        outside, _, inside = each.partition(":")
        number, _, protocol = inside.partition("/")
        assert outside == number, each
        found.add(f"{number}/{protocol or 'tcp'}")
    return found


def listened(settings: Settings) -> set[str]:
    tcp = {f"{place.port}/tcp" for place in (*settings.listen, *settings.listen_plain)}
    return tcp | {f"{place.port}/udp" for place in settings.derp.server.stun_listen}


def test_there_is_one_of_each() -> None:
    assert [folder.name for folder in FOLDERS] == ["alone", "caddy", "nginx"]


@each_example
def test_the_server_has_no_rights_and_one_volume(folder: Path) -> None:
    service = compose(folder)["services"]["headwater"]
    assert service["image"] == IMAGE
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "cap_add" not in service
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert service["tmpfs"] == ["/run"]
    assert service["volumes"] == ["./headwater:/etc/headwater:ro", f"state:{STATE}"]
    assert list(facts.IMAGE["Volumes"]) == [STATE]  # type: ignore[call-overload]
    assert "environment" not in service


@each_example
def test_volumes_and_networks_are_declared(folder: Path) -> None:
    read = compose(folder)
    named = {
        each.partition(":")[0]
        for service in read["services"].values()
        for each in service["volumes"]
        if not each.startswith("./")
    }
    assert named == set(read["volumes"])
    used = {net for each in read["services"].values() for net in each.get("networks", {})}
    assert used == set(read.get("networks", {}))


@each_example
def test_files_that_are_mounted_are_there(folder: Path) -> None:
    """But for certificates, which people bring."""
    for service in compose(folder)["services"].values():
        for each in service["volumes"]:
            source = each.partition(":")[0]
            if source.startswith("./") and source != "./tls":
                assert (folder / source).exists(), each


def test_alone_publishes_all_that_it_listens_on() -> None:
    folder = ROOT / "examples" / "compose" / "alone"
    service = compose(folder)["services"]["headwater"]
    assert published(service) == listened(site(folder)) == set(facts.IMAGE["ExposedPorts"])  # type: ignore[call-overload]
    assert service["sysctls"] == [LOW_PORTS]


@pytest.mark.parametrize("proxy", ["caddy", "nginx"])
def test_behind_a_proxy_only_stun_is_published(proxy: str) -> None:
    folder = ROOT / "examples" / "compose" / proxy
    read, settings = compose(folder), site(folder)
    server, front = read["services"]["headwater"], read["services"][proxy]
    assert published(server) == {"3478/udp"}
    assert published(front) == {"80/tcp", "443/tcp"}
    assert settings.tls.mode == "off"
    (place,) = settings.listen
    assert place.port >= 1024
    (network,) = read["networks"].values()
    subnet = ip_network(network["ipam"]["config"][0]["subnet"])
    address = {
        name: each["networks"]["front"]["ipv4_address"] for name, each in read["services"].items()
    }
    assert all(ip_address(each) in subnet for each in address.values())
    # The proxy alone: the network's gateway is where published ports come from.
    assert [str(each) for each in settings.trusted_proxies] == [f"{address[proxy]}/32"]
    (file,) = (folder / name for name in ("Caddyfile", "nginx.conf") if (folder / name).exists())
    assert f"{address['headwater']}:{place.port}" in file.read_text()


def lines(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines()}


@pytest.mark.parametrize(
    ("example", "story"),
    [("caddy/Caddyfile", "Caddyfile"), ("nginx/nginx.conf", "nginx.conf")],
)
def test_proxies_are_set_up_as_in_the_story_that_runs_them(example: str, story: str) -> None:
    """Every line that the story of the proxies needs, but for names, addresses, certificates."""
    ours = lines((ROOT / "examples" / "compose" / example).read_text())
    proven = lines((ROOT / "vm-tests" / "proxies" / story).read_text())
    own = re.compile(
        r"#|server_name|ssl_certificate|listen |proxy_pass|reverse_proxy|https://front|tls /|"
        r"auto_https|admin|^{$"
    )
    missing = {line for line in proven - ours if line and not own.match(line)}
    assert not missing


def test_quadlet_says_the_same_as_the_compose_example() -> None:
    parser = configparser.RawConfigParser(strict=False, delimiters="=")
    parser.optionxform = str  # type: ignore[assignment,method-assign]
    text = QUADLET.read_text()
    parser.read_string(text)
    container = parser["Container"]
    assert container["Image"] == IMAGE
    assert container["ReadOnly"] == container["NoNewPrivileges"] == "true"
    assert container["DropCapability"] == "all"
    assert container["Sysctl"] == LOW_PORTS
    alone = compose(ROOT / "examples" / "compose" / "alone")["services"]["headwater"]
    assert re.findall(r"^PublishPort=(.*)$", text, re.MULTILINE) == alone["ports"]
    assert re.findall(r"^Volume=(.*)$", text, re.MULTILINE) == [
        "/etc/headwater:/etc/headwater:ro",
        f"headwater:{STATE}",
    ]
