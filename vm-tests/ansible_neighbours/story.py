"""A host that has nginx and others' rules already: what fails leaves no trace, what runs cuts nobody off."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from driver import releases
from driver.ansible import Controller, Played
from driver.face import Machines

SITE = json.loads((Path(__file__).parent / "site.json").read_text())
NAME = "server"
CERTIFICATES = "/etc/story"
AUTHORITY = "/usr/local/share/ca-certificates/story.crt"

# As Docker leaves them behind: tables of iptables-nft's, with chains that jump to each other.
RULES = """
table ip nat {
  chain DOCKER { }
  chain PREROUTING { type nat hook prerouting priority dstnat; fib daddr type local jump DOCKER; }
}
table ip filter {
  chain DOCKER-USER { return; }
  chain FORWARD { type filter hook forward priority filter; policy drop; jump DOCKER-USER; }
}
"""

# Everything that a deploy could have left behind, besides what it says.
LOOK = """
find /etc /usr/local -type f -printf '%p %m %u %s\\n' | grep -vE '^/etc/(passwd|group|g?shadow|sub.id)' | sort
systemctl list-unit-files --no-legend | sort
systemctl list-units --failed --no-legend
nft list ruleset
getent passwd headwater || true
sysctl -n net.core.somaxconn
"""


def story(machines: Machines) -> None:
    """Fail beside nginx three times, then live behind it."""
    host = Host(machines)
    host.taken_port()
    host.failing_first_run()
    host.behind_the_proxy()


class Host:
    """The host, its operator, and a stranger."""

    def __init__(self, machines: Machines) -> None:
        self.machines = machines
        self.server, self.stranger = machines[NAME], machines["stranger"]
        self.controller = Controller(machines)
        for machine in machines.values():
            machine.wait_for_unit("multi-user.target")
        self.server.wait_for_unit("nginx.service")
        self.server.succeed(f"nft '{RULES}'")
        self.rules = self.foreign_rules()
        authority = Path("/run/headwater-story.crt")
        authority.write_text(self.server.succeed(f"cat {AUTHORITY}"))
        self.own = {
            **SITE,
            "tls": {"mode": "files", "cert_file": "fullchain.pem", "key_file": "key.pem"},
        }
        self.common = {
            "headwater_release_dir": str(releases.current().folder()),
            "headwater_verify_ca_file": str(authority),
            "headwater_verify_timeout": 5,
        }

    def play(self, settings: dict[str, Any], *, fails: bool = False, **more: Any) -> Played:
        """Run site.yml."""
        wanted = {**self.common, "headwater_settings": settings, **more}
        return self.controller.play("site", {"headwater": [self.server]}, fails=fails, **wanted)

    def foreign_rules(self) -> str:
        """The rules of others."""
        return self.server.succeed("nft list table ip nat", "nft list table ip filter")

    def nginx_is_reached(self) -> None:
        """A stranger gets what nginx had to say before we came."""
        said = self.stranger.succeed(f"curl -sS -m 10 http://{NAME}/")
        assert said == "nginx was here first\n"

    def secrets(self, certificate: str, key: str = "") -> dict[str, str]:
        """A certificate and a key, as the inventory gives them."""
        return {
            "fullchain.pem": self.server.succeed(f"cat {CERTIFICATES}/{certificate}.crt"),
            "key.pem": key or self.server.succeed(f"cat {CERTIFICATES}/{certificate}.key"),
        }

    def taken_port(self) -> None:
        """Port 443 is nginx's."""
        fresh = self.server.succeed(LOOK)
        with self.machines.subtest("a port that is taken is named with its holder, at once"):
            played = self.play(SITE, fails=True)
            played.says("port 443 (TCP) is taken by nginx, pid ")
            played.says("nginx.service")
            played.says("nothing was touched")
            self.server.fail("test -e /opt/headwater")
            assert self.server.succeed(LOOK) == fresh
            self.nginx_is_reached()

    def failing_first_run(self) -> None:
        """The site is fine as a file, and its server cannot start."""
        self.server.succeed(
            "sed -i 's/listen 443 ssl/listen 127.0.0.1:8443 ssl/' /etc/nginx/conf.d/story.conf"
        )
        self.server.succeed("systemctl restart nginx")
        fresh = self.server.succeed(LOOK)
        with self.machines.subtest("a first run that fails leaves the host as it was"):
            secrets = self.secrets("good", "garbage\n")
            played = self.play(self.own, fails=True, headwater_secrets=secrets)
            played.says("the host is back as it was before this first run")
            played.says("key.pem")
            played.says("Left on the host: /opt/headwater (the release)")
            played.says("playbooks/uninstall.yml removes these")
            # The server got as far as making its state, so that and its owner stay, and are named.
            played.says("Left on the host: /var/lib/headwater", "the user headwater")
            left = {*self.server.succeed(LOOK).splitlines()} ^ {*fresh.splitlines()}
            assert all(line.startswith("headwater:x:") for line in left), left
            assert self.foreign_rules() == self.rules
            self.nginx_is_reached()

    def behind_the_proxy(self) -> None:
        """nginx takes 443 again, now for us."""
        site = {
            **SITE,
            "listen": ["127.0.0.1:8080"],
            "tls": {"mode": "off"},
            "trusted_proxies": ["127.0.0.1/32"],
        }
        fresh = self.server.succeed(LOOK)
        with self.machines.subtest("a first run that nobody can see from outside is taken back"):
            # Well on the host; but nginx does not listen yet where server_url leads to.
            played = self.play(site, fails=True, headwater_verify_proxy_address=self.address())
            played.says("is not well: health", "(behind a proxy)")
            played.says("The host is as it was before this first run.")
            assert self.server.succeed(LOOK) == fresh
            self.nginx_is_reached()
        with self.machines.subtest("behind nginx on the same host, both stay reached"):
            self.server.succeed(
                "sed -i 's/listen 127.0.0.1:8443 ssl/listen 443 ssl/' /etc/nginx/conf.d/story.conf",
                "systemctl restart nginx",
            )
            played = self.play(site)
            played.says("Stays open: 80 and 443, for nginx")
            self.nginx_is_reached()
            self.stranger.succeed(f"curl -sSf -m 10 https://{NAME}/health")
            assert self.foreign_rules() == self.rules

    def address(self) -> str:
        """Where the host is."""
        return self.stranger.succeed(f"getent ahostsv4 {NAME} | cut -d ' ' -f 1 | sort -u").strip()
