"""Ansible on Debian: what an operator does with one host, from nothing to nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from driver import releases
from driver.ansible import Controller, Played
from driver.container import Container
from driver.face import Machines

SITE = json.loads((Path(__file__).parent / "site.json").read_text())

# Everything on the host that a deploy could touch, but for what time changes by itself.
LOOK = """
places='/etc /opt /usr/local /var/lib'
find $places -type f ! -path '/var/lib/systemd/*' ! -name '*.pyc' ! -name .lock \\
  -printf '%p %m %u %g %s\\n' | sort
systemctl list-unit-files --no-legend --no-pager | sort
nft list ruleset
"""

FOREIGN = "table inet story { chain input { type filter hook input priority 10; counter; }; }"


def story(machines: Machines) -> None:
    """Look, install, look again, change, refuse, uninstall."""
    host = Host(machines)
    host.from_nothing()
    host.changes()
    host.to_nothing()


class Host:
    """The one host of this story, and what an operator does with it."""

    def __init__(self, machines: Machines) -> None:
        self.machines = machines
        self.server = machines["server"]
        assert isinstance(self.server, Container)
        self.controller = Controller(machines)
        self.wanted: dict[str, Any] = {
            "headwater_release_dir": str(releases.current(self.server.spec.suite).folder()),
            "headwater_settings": SITE,
        }

    def play(self, book: str, *arguments: str, fails: bool = False, **variables: Any) -> Played:
        """Run a playbook on the host."""
        hosts = {"headwater": [self.server]}
        return self.controller.play(book, hosts, *arguments, fails=fails, **variables)

    def from_nothing(self) -> None:
        """Install, twice, and look before and after."""
        machines, server, wanted, play = self.machines, self.server, self.wanted, self.play
        server.wait_for_unit("multi-user.target")
        server.succeed(f"nft '{FOREIGN}'")
        fresh = server.succeed(LOOK)

        with machines.subtest(
            "--check --diff on a fresh host says what would be, and does nothing"
        ):
            played = play("site", "--check", "--diff", **wanted)
            assert "ListenStream=0.0.0.0:443" in played.text
            assert server.succeed(LOOK) == fresh

        with machines.subtest("a wrong site file is refused before anything is touched"):
            wrong = {**wanted, "headwater_settings": {**SITE, "lisen": ["0.0.0.0:443"]}}
            played = play("site", fails=True, **wrong)
            assert "lisen" in played.text
            assert "did you mean" in played.text
            assert server.succeed(LOOK) == fresh
            server.fail("test -e /opt/headwater")
            server.fail("ls -d /tmp/headwater-*")

        with machines.subtest("the first run ends with a server that is well"):
            play("site", **wanted)
            server.succeed("headwater health", "headwater users create alice")
            server.succeed("systemctl is-enabled headwater.service headwater.socket")
            server.succeed("nft list chain inet story input")
            server.succeed("nft list table inet headwater")

        with machines.subtest(
            "the second run changes nothing, nor does --check see anything to change"
        ):
            running = server.get_unit_info("headwater.service")["MainPID"]
            assert play("site", **wanted).changed == 0
            assert play("site", "--check", "--diff", **wanted).changed == 0
            assert server.get_unit_info("headwater.service")["MainPID"] == running

        with machines.subtest("without a release the one that runs stays"):
            kept = {**wanted, "headwater_release_dir": ""}
            assert play("site", **kept).changed == 0

    def changes(self) -> None:
        """Change settings: those that a reload takes over, those that need more, and bad ones."""
        machines, server, wanted, play = self.machines, self.server, self.wanted, self.play
        running = server.get_unit_info("headwater.service")["MainPID"]

        with machines.subtest("--check --diff shows a change of settings and does not make it"):
            warm = {**wanted, "headwater_settings": {**SITE, "log": {"level": "debug"}}}
            before = server.succeed(LOOK)
            played = play("site", "--check", "--diff", **warm)
            assert played.changed
            assert '"level": "debug"' in played.text
            assert server.succeed(LOOK) == before

        with machines.subtest("a setting that may change while running is reloaded"):
            play("site", **warm)
            assert server.get_unit_info("headwater.service")["MainPID"] == running
            server.wait_until_succeeds("journalctl -u headwater | grep -F 'settings reloaded'", 30)

        with machines.subtest("one that may not gets a restart"):
            cold = {**warm, "headwater_settings": {**SITE, "metrics": {"listen": "127.0.0.1:9090"}}}
            play("site", **cold)
            assert server.get_unit_info("headwater.service")["MainPID"] != running
            assert "headwater_" in server.succeed("curl -sSf http://127.0.0.1:9090/metrics")

        with machines.subtest("a certificate of one's own is a secret, and is nowhere else"):
            pair = server.succeed("cat /var/lib/headwater/tls/server.pem")
            authority = Path("/run/headwater-ca.pem")
            authority.write_text(server.succeed("cat /var/lib/headwater/tls/ca.pem"))
            own = {
                **cold,
                "headwater_settings": {**SITE, "tls": {"cert_file": "pair", "key_file": "pair"}},
                "headwater_secrets": {"pair": pair},
                "headwater_verify_ca_file": str(authority),
            }
            played = play("site", "-vvv", "--diff", **own)
            line = pair.splitlines()[1]
            assert line not in played.text
            assert line not in server.succeed("journalctl --no-pager -q")
            server.fail(f"grep -rlF {line} /etc /opt --exclude-dir=secrets")
            assert server.succeed("stat -c %a%U /opt/headwater/secrets") == "700root\n"
            assert server.succeed("stat -c %a%U /etc/headwater/secrets/pair") == "400root\n"
            assert play("site", **own).changed == 0
            renewed = {**own, "headwater_secrets": {"pair": f"{pair}\n"}}
            running = server.get_unit_info("headwater.service")["MainPID"]
            assert play("site", **renewed).changed
            assert server.get_unit_info("headwater.service")["MainPID"] != running
            play("site", **cold)

        with machines.subtest("settings with which it does not become well are taken back"):
            # Good as a file, but this certificate is not there.
            gone = {
                "mode": "files",
                "cert_file": "/etc/ssl/gone.pem",
                "key_file": "/etc/ssl/gone.key",
            }
            bad = {
                **cold,
                "headwater_settings": {**SITE, "tls": gone},
                "headwater_health_timeout": 20,
            }
            played = play("site", fails=True, **bad)
            assert "the host is back as it was" in played.text
            assert "gone.pem" in played.text
            server.succeed("headwater health")
            assert play("site", **cold).changed == 0

        with machines.subtest("a server that cannot be seen from outside is taken back"):
            # The host itself would find nothing wrong with it.
            hidden = {
                **cold,
                "headwater_settings": {**SITE, "derp": {"server": {"stun_port": 3479}}},
                "headwater_verify_timeout": 3,
            }
            played = play("site", fails=True, **hidden)
            assert "is not well: stun" in played.text
            assert "The change was taken back, and the server answers as before." in played.text
            assert play("site", **cold).changed == 0

    def to_nothing(self) -> None:
        """Uninstall: what stays is what was said."""
        machines, server, play = self.machines, self.server, self.play
        with machines.subtest("uninstall leaves what it announces, and nothing else"):
            played = play("uninstall")
            assert "Stays: the state in /var/lib/headwater" in played.text
            server.succeed("test -e /var/lib/headwater/noise.key")
            for gone in ("/opt/headwater", "/etc/headwater", "/usr/local/bin/headwater"):
                server.fail(f"test -e {gone}")
            assert server.succeed("find /etc -name '*headwater*'") == ""
            server.fail("nft list table inet headwater")
            server.succeed("nft list table inet story")
            assert "headwater" not in server.succeed("systemctl list-units --all --no-legend")

        with machines.subtest("and with headwater_purge the state and its owner too"):
            played = play("uninstall", "--extra-vars", "headwater_purge=true")
            server.fail("test -e /var/lib/headwater")
            server.fail("getent passwd headwater || getent group headwater")
            assert play("uninstall", "-e", "headwater_purge=true").changed == 0
