"""A playbook of somebody else's, with the collection from its archive, on a host with nothing on it.

The host has IPv6 only, a PostgreSQL of its own, and later a firewall that is not ours.
"""

from __future__ import annotations

import json
import os
import subprocess
from pathlib import Path
from typing import Any

from ansible_trixie.story import LOOK
from driver import network, releases
from driver.ansible import ANSIBLE, NUMBER, Controller, Played
from driver.container import Container
from driver.face import Machines

HOME = Path("/run/headwater-elsewhere")
ADDRESS = network.v6(1, 1)
SITE = {
    "server_url": f"https://[{ADDRESS}]",
    "tls": {"mode": "local_ca"},
    "tailnet": {"base_domain": "tail.test"},
    "database_url": "postgresql://headwater@localhost/headwater",
    "database_password_file": "database-password",
}
PASSWORD = "a password for this story"  # noqa: S105  # of a database that is gone afterwards
BOOK = [
    {
        "name": "Set up what this team has",
        "hosts": "headwater",
        "tasks": [
            {
                "name": "Put a server there",
                "ansible.builtin.include_role": {"name": "headwater.headwater.headwater"},
            }
        ],
    }
]
INSTALL = "DEBIAN_FRONTEND=noninteractive apt-get install -qq --no-install-recommends -y"
OTHERS = (
    "table inet others { chain input { type filter hook input priority 0; tcp dport 443 drop; }; }"
)


def story(machines: Machines) -> None:
    """Look, be refused, install, look again, be cut off, enrol in vain, remove."""
    server = machines["server"]
    assert isinstance(server, Container)
    server.wait_for_unit("multi-user.target")
    server.succeed("ip -4 address flush dev eth1")
    controller = Controller(machines)
    network.ip(f"addr replace {network.v6(1, NUMBER)}/64 dev br1 nodad")
    install_collection(controller)
    book = HOME / "mine.yml"
    book.write_text(json.dumps(BOOK))
    wanted: dict[str, Any] = {
        "headwater_settings": SITE,
        "headwater_release_dir": str(releases.current().whole()),
        "headwater_secrets": {"database-password": PASSWORD},
    }

    def play(name: str, *arguments: str, fails: bool = False, **variables: Any) -> Played:
        at = ("-e", f"ansible_host={ADDRESS}")
        hosts = {"headwater": [server]}
        return controller.play(name, hosts, *at, *arguments, fails=fails, **variables)

    with machines.subtest("the host has nothing but what a system needs to boot, and Python"):
        server.fail("command -v python3 || command -v nft || test -e /etc/ssl/certs")
        server.succeed("apt-get update -qq", f"{INSTALL} python3")
        server.fail("python3 -c 'import apt'")
        fresh = server.succeed(LOOK.replace("nft list ruleset", ""))

    with machines.subtest("--check --diff says what would be, and changes nothing"):
        played = play(str(book), "--check", "--diff", **wanted)
        installs = [line for line in played.text.splitlines() if "would install: " in line]
        assert any("python3-venv" in line for line in installs), played.text
        assert "ListenStream=0.0.0.0:443" in played.text
        assert server.succeed(LOOK.replace("nft list ruleset", "")) == fresh

    with machines.subtest("a mistake is named in the file that has it, as its writer calls it"):
        site = HOME / "our-site.yaml"
        site.write_text(json.dumps({**SITE, "tls": {"mode": "lokal_ca"}}))
        own = {**wanted, "headwater_settings": {}, "headwater_site_file": str(site)}
        played = play(str(book), fails=True, **own)
        assert f"{site}: 3 mistake(s)" in played.text, played.text
        assert "did you mean 'local_ca'" in played.text
        assert "config.yaml" not in played.text

    with machines.subtest("a secret that was forgotten is named before anything is changed"):
        played = play(str(book), fails=True, **{**wanted, "headwater_secrets": {}})
        assert "names the secret database-password" in " ".join(played.text.split())
        assert server.succeed(LOOK.replace("nft list ruleset", "")) == fresh

    with machines.subtest("the first run installs all it needs, beside the host's own PostgreSQL"):
        server.succeed(f"{INSTALL} postgresql")
        server.wait_until_succeeds("pg_isready --quiet --host localhost", timeout=60)
        role = f"CREATE ROLE headwater LOGIN PASSWORD '{PASSWORD}'"
        server.succeed(f'runuser -u postgres -- psql -qc "{role}"')
        server.succeed(
            "runuser -u postgres -- createdb -T template0 -E UTF8 -O headwater headwater"
        )
        play(str(book), **wanted)
        server.succeed("headwater health", "headwater users create alice")
        found = "runuser -u postgres -- psql -Atc 'SELECT count(*) FROM users' headwater"
        assert server.succeed(found) == "1\n"

    with machines.subtest("the second changes nothing, nor would --check"):
        assert play(str(book), **wanted).changed == 0
        assert play(str(book), "--check", "--diff", **wanted).changed == 0

    with machines.subtest("after a reboot it is there again"):
        server.reboot()
        server.wait_until_succeeds("headwater health", timeout=60)

    with machines.subtest("a firewall that is not ours is named, and what it drops"):
        server.succeed(f"nft '{OTHERS}'")
        played = play(str(book), fails=True, headwater_verify_timeout=3, **wanted)
        said = " ".join(played.text.split())
        assert "health: no answer from TCP port 443: something between here and the server" in said
        server.succeed("nft delete table inet others", "headwater health")

    with machines.subtest("where Debian has no client, the node's role says what to do"):
        node = {
            "headwater_node_login_server": SITE["server_url"],
            "headwater_node_auth_key": "hskey-auth-none",
        }
        hosts = {"headwater_nodes": [server]}
        played = controller.play("headwater.headwater.site", hosts, fails=True, **node)
        assert "pkgs.tailscale.com/stable" in played.text
        assert "headwater_node_packages: []" in " ".join(played.text.split())

    with machines.subtest("removed, with the state, nothing of it is left"):
        play("headwater.headwater.uninstall", headwater_purge=True)
        left = server.succeed("find /etc /opt /usr/local /var/lib /run -name '*headwater*'")
        assert left == "", left
        server.fail("getent passwd headwater || getent group headwater")
        server.fail("nft list table inet headwater")
        assert "headwater" not in server.succeed("systemctl list-units --all --no-legend")


def install_collection(controller: Controller) -> None:
    """Install the collection from the release, as somebody without a checkout does."""
    HOME.mkdir()
    (HOME / "ansible.cfg").touch()
    (archive,) = releases.current().whole().glob("headwater-headwater-*.tar.gz")
    environment = {
        "ANSIBLE_CONFIG": str(HOME / "ansible.cfg"),
        "ANSIBLE_COLLECTIONS_PATH": str(HOME / "collections"),
    }
    install = ["collection", "install", "--offline", str(archive)]
    subprocess.run(
        [str(ANSIBLE.with_name("ansible-galaxy")), *install],
        env={**os.environ, **environment, "ANSIBLE_HOME": str(HOME / "home")},
        check=True,
        timeout=120,
    )
    controller.environment.update(environment)
